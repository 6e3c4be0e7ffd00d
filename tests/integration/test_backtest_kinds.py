"""`holdfast backtest` on sets and on spans whose world changes: drift, alert, retraining, verdict, promotion, with the real base."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import run
from holdfast.domain.answers import labels_in, spans_in
from holdfast.domain.datasets import Example
from holdfast.testing.several import orders, topics

BEFORE, AFTER = 300, 350


def plain_label(example: Example) -> object:
    """As a person would write it: a list of labels, or of spans under another name than ours."""
    spans = spans_in(example.label)
    return [{"slot": s.field, "start": s.start, "end": s.end} for s in spans] if spans else list(labels_in(example.label))


def replay(folder: Path, kind: str, examples: list[Example]) -> dict[str, Any]:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    lines = [
        json.dumps({"text": e.text, "labels": plain_label(e), "at": (began + timedelta(hours=n)).isoformat()})
        for n, e in enumerate(examples)
    ]
    (folder / "history.jsonl").write_text("\n".join(lines))
    arguments = [
        "backtest",
        str(folder / "history.jsonl"),
        "--kind",
        kind,
        "--warmup-share",
        "0.3",
        "--label-delay",
        "20",
        "--periods",
        "2",
    ]
    assert run([*arguments, "--json", str(folder / "out.json")]) == 0
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


@pytest.mark.parametrize(("kind", "make"), [("multi-label", topics), ("extraction", orders)])
def test_the_loop_mends_what_a_new_label_or_field_broke(tmp_path: Path, kind: str, make: Any) -> None:
    found = replay(tmp_path, kind, [*make(1, BEFORE), *make(2, AFTER, changed=True)])
    assert found["alerts"], "the change is noticed"
    assert "pass" in {r["verdict"] for r in found["retrainings"]}
    assert found["promotions"]
    last = found["periods"][-1]
    assert last["accuracy_loop"] > last["accuracy_frozen"] + 0.05
    assert found["totals"]["labels_new"] == 1
