"""The REST contract is a committed file; a change of it is a change that somebody saw.

Write it anew with ``HOLDFAST_OVERWRITE_SNAPSHOTS=1 pytest tests/integration/api/test_openapi.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).parent / "openapi.json"


def test_the_openapi_document_is_the_committed_one(place: Any) -> None:
    document = place.client().get("/api/v1/openapi.json").json()
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("HOLDFAST_OVERWRITE_SNAPSHOTS"):  # noqa: TID251 - a switch of this test alone
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), "run this test with HOLDFAST_OVERWRITE_SNAPSHOTS=1 and commit the file"


def test_every_operation_has_a_summary_and_describes_its_problems(place: Any) -> None:
    document = place.client().get("/api/v1/openapi.json").json()
    operations = [(path, method, op) for path, methods in document["paths"].items() for method, op in methods.items()]
    assert len(operations) >= 28
    for path, method, operation in operations:
        assert operation["summary"], (method, path)
        if path.startswith("/api/"):
            assert operation["security"] == [{"HTTPBearer": []}], (method, path)
            assert {"401", "422", "503"} <= operation["responses"].keys(), (method, path)
            assert "application/problem+json" in operation["responses"]["401"]["content"]
            assert "HTTPValidationError" not in json.dumps(operation), (method, path)


def test_no_description_points_nowhere(place: Any) -> None:
    document = place.client().get("/api/v1/openapi.json").json()
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= document["components"]["schemas"].keys()
