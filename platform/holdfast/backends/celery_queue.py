"""Celery: the doorbell, and the application that both sides of it share.

The broker carries rings, not work: what must be done stands in the database, and the sweep rings again. So a ring may be lost, come
twice or come late, and messages expire. JSON only, no result backend, no remote control.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

import structlog
from celery import Celery
from kombu.transport import filesystem
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import dumps, loads

QUEUE = "holdfast"
RING_EXPIRES_S = 30.0
"""A ring older than this says nothing that the sweep has not said again."""
POLL_S = 0.1
"""How often the filesystem broker is looked at; kombu's own second would be a second on every step of a retraining."""
log = structlog.get_logger(__name__)


class Channel(filesystem.Channel):
    """Kombu's filesystem channel, whole where that one breaks.

    Kombu writes a message under its final name (a reader may see half of it), takes one by moving it to the machine's shared temporary
    folder, and lets an unreadable one end the worker. Here a message appears by a rename, is taken by a rename within the private
    folder, and one that cannot be read is dropped.
    """

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]  # kombu's own classes disagree on the name
        folder = Path(self.data_folder_out)
        draft = folder / f".{uuid.uuid4().hex}.draft"
        try:
            draft.write_bytes(str_to_bytes(dumps(payload)))
            draft.rename(folder / f"{int(time.monotonic() * 1000):016d}_{uuid.uuid4().hex}.{queue}.msg")
        except OSError:
            with contextlib.suppress(OSError):  # a full disk leaves nothing behind
                draft.unlink()
            raise

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for path in sorted(Path(self.data_folder_in).glob(f"*.{queue}.msg")):
            taken = path.with_name(f".{path.name}.taken")
            try:
                path.rename(taken)
                raw = taken.read_bytes()
                taken.unlink()
            except OSError:
                continue  # somebody else took it
            try:
                message = loads(bytes_to_str(raw))
                if {"delivery_tag", "delivery_info"} <= set(message["properties"]) and {"body", "headers"} <= set(message):
                    return message
            except (ValueError, TypeError, KeyError):
                pass
            log.warning("broker.unreadable", file=path.name)
        raise Empty


class Transport(filesystem.Transport):
    """The filesystem transport with our channel. Named by its path, so that nothing of kombu's is replaced for others."""

    Channel = Channel


def message_app(home: Path, broker_url: str | None = None) -> Celery:
    """The Celery application of a home. Makes the broker folder, readable by its owner only; opens no connection."""
    app = Celery("holdfast", set_as_current=False)
    app.conf.update(
        broker_url=broker_url or "filesystem://localhost//",
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_default_queue=QUEUE,
        enable_utc=True,
        timezone="UTC",
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=2,
        worker_soft_shutdown_timeout=5.0,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    if broker_url is None:
        app.conf.update(broker_transport=f"{__name__}:Transport", broker_transport_options=_folders(home / "broker"))
    return app


def purge_folder(home: Path) -> int:
    """Remove every message of the embedded broker, readable or not; the number removed. For the start of the one worker."""
    gone = 0
    for path in (home / "broker").glob("**/*"):
        if path.is_file():
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def _folders(folder: Path) -> dict[str, Any]:
    control = folder / "control"
    for each in (folder, control):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(control),
        "store_processed": False,
        "polling_interval": POLL_S,
    }


class CeleryDoorbell:
    """Rings by sending a job's name and ids. A ring that cannot be sent is noted and forgotten: the sweep rings again."""

    def __init__(self, home: Path, broker_url: str | None = None) -> None:
        self._home = home
        self._broker_url = broker_url
        self._lock = threading.Lock()
        self._app: Celery | None = None

    def ring(self, job: str, *ids: str) -> None:
        """Send, waiting at most about two seconds. Never raises."""
        try:
            with self._lock:
                if self._app is None:
                    self._app = message_app(self._home, self._broker_url)
                    self._app.conf.update(broker_connection_timeout=2.0)
                self._app.send_task(job, args=ids, expires=RING_EXPIRES_S, retry=False, ignore_result=True)
        except Exception as error:  # whatever the broker does, what was asked stands in the database
            log.warning("doorbell.not_rung", job=job, ids=ids, error=f"{type(error).__name__}: {error}"[:200])
