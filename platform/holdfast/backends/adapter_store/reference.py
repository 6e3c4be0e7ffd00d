"""The reference window of a version, as Parquet.

Columns: part (`fitted` or `calibration`), text, label (null where unknown), prediction, confidence (float32, 0..1), embedding
(list<float32>, the pooled vector that the head saw).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from holdfast.domain.adapters import REFERENCE_NAME
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.errors import AdapterRefused

COLUMNS = ("part", "text", "label", "prediction", "confidence", "embedding")


def read_reference(folder: Path, digest: AdapterDigest) -> ReferenceWindow:
    """Both parts of the window. Raises AdapterRefused when a column is absent, a part is empty or a number is not finite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not the whole dataset reader: it would look at the folder's other files.
        with pq.ParquetFile(folder / REFERENCE_NAME) as file:
            table = file.read()
        parts = np.array(table.column("part").to_pylist(), dtype=object)
        windows = {part: _rows(table.filter(pa.array(parts == part))) for part in ("fitted", "calibration")}
        whole = set(table.column_names) == set(COLUMNS) and set(parts) == set(windows)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise AdapterRefused(folder=folder, reason=f"{REFERENCE_NAME} cannot be read ({error})") from error
    if not whole or not all(_sound(window) for window in windows.values()):
        raise AdapterRefused(folder=folder, reason=f"{REFERENCE_NAME} lacks a column or a part, or holds values that are not finite")
    return ReferenceWindow(adapter_digest=digest, fitted=windows["fitted"], calibration=windows["calibration"])


def _rows(table: Any) -> WindowRows:
    import pyarrow.compute as pc

    embeddings = table.column("embedding").combine_chunks()
    if len(pc.unique(pc.list_value_length(embeddings))) > 1:
        raise ValueError("its embeddings differ in length")
    flat = np.asarray(embeddings.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    return WindowRows(
        texts=tuple(table.column("text").to_pylist()),
        predictions=tuple(table.column("prediction").to_pylist()),
        confidences=np.asarray(table.column("confidence").to_numpy(), dtype=np.float32).copy(),
        embeddings=flat.reshape(len(table), -1).copy() if len(table) else np.zeros((0, 0), np.float32),  # [n * hidden] -> [n, hidden]
        labels=tuple(table.column("label").to_pylist()),
    )


def _sound(rows: WindowRows) -> bool:
    finite = bool(np.isfinite(rows.embeddings).all() and np.isfinite(rows.confidences).all())
    texts = all(isinstance(text, str) for text in (*rows.texts, *rows.predictions))
    return len(rows) > 0 and rows.embeddings.shape[1] > 0 and finite and texts
