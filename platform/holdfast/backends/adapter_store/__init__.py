"""Adapter folders on disk: refused unless every file is known, whole and harmless; then kept under the adapter's digest."""

from holdfast.backends.adapter_store.store import FolderAdapterStore

__all__ = ["FolderAdapterStore"]
