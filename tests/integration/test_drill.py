"""`holdfast drill` as a person runs it: a home on SQL and stores, with a champion trained on a tiny base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.bootstrap.backtest import for_backtest
from holdfast.cli import run
from holdfast.domain.backtest import ReplayPlan, derived_contract
from holdfast.domain.datasets import HistoryRow
from holdfast.flows.backtest import LoopArm
from holdfast.settings import BasePin, Settings
from holdfast.testing.clock import NOON
from holdfast.testing.tiny_model import make_tiny_model
from holdfast.testing.traffic import history

WARMUP, CAPTURES = 400, 300
FEW = ("--events", "120", "--quiet", "100", "--replicates", "5", "--share", "0.9")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose task `backtest` was trained on 400 tickets and answered 300 more, all labelled."""
    folder = tmp_path_factory.mktemp("drilled")
    path, sha256 = make_tiny_model(tmp_path_factory.mktemp("tiny") / "base")
    pin = {"minilm": BasePin(path=path, sha256=sha256)}
    stage = for_backtest(Settings(home=folder, bases=pin), folder)
    rows = [
        HistoryRow(text=t.text, label=t.label, at=NOON + timedelta(hours=n), index=n) for n, t in enumerate(history(5, WARMUP + CAPTURES))
    ]
    loop = LoopArm(stage, derived_contract(rows[:WARMUP]), ReplayPlan(label_delay=0))
    loop.begin(rows[:WARMUP])
    loop.play(rows[WARMUP:], lambda done: None)
    (folder / "keys").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_DATABASE_URL", f"sqlite:///{folder / 'backtest.db'}")
        patch.setenv("HOLDFAST_BASES", json.dumps({"minilm": {"path": path, "sha256": sha256}}))
        yield folder


def drilled(home: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["--home", str(home), "drill", "backtest", *FEW, *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_texts_of_another_world_are_seen(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = drilled(home, capsys, "--change", "new-class")
    assert (result["capture_count"], result["labelled_count"]) == (CAPTURES, CAPTURES)
    assert [(row["change"], row["seen"]) for row in result["rows"]] == [("new-class", 5)]
    assert result["smallest"] == {"new-class": 0.9}


def test_a_drill_leaves_the_home_as_it_was(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "backtest.db").read_bytes(), sorted(path.name for path in (home / "adapters").iterdir())
    drilled(home, capsys, "--change", "noise")
    assert ((home / "backtest.db").read_bytes(), sorted(path.name for path in (home / "adapters").iterdir())) == before


def test_the_new_class_may_come_from_a_file_and_the_result_is_told_in_words(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("text,label\nthe moon is bright over the harbour,x\nwolves sing in the hills,x\n")
    arguments = ["drill", "backtest", *FEW, "--change", "new-class", "--texts", str(tmp_path / "new.csv")]
    assert run(["--home", str(home), *arguments]) == 0
    out = capsys.readouterr().out
    assert "new-class\t90%\t5 of 5" in out
    assert "new-class: a share of 90% is the smallest tried that would be seen within 120 events" in out
    assert "False alarms in the quiet part: 0 of 5 streams" in out


def test_too_few_captures_are_told_with_how_many_are_needed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(home), "drill", "backtest"]) == 1
    assert "answered 300 captures, 500 are needed" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--change", "magic"), ("--share", "half"), ("--share", "2"), ("--events", "1")])
def test_wrong_usage_is_told_before_any_work(tmp_path: Path, wrong: tuple[str, str]) -> None:
    assert run(["--home", str(tmp_path), "drill", "backtest", *wrong]) == 2


def test_a_home_that_was_never_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--home", str(tmp_path / "none"), "drill", "backtest"]) == 1
    assert "There is no home in" in capsys.readouterr().err
