"""`holdfast backtest` as a person runs it: a file in, the real base model, SQL and stores, a page and JSON out."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import run
from holdfast.testing.tiny_model import make_tiny_model
from holdfast.testing.traffic import history, stream

ROWS, CHANGE = 900, 250


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """JSON and page of a replay of synthetic tickets that change once, 250 events after a warm-up of 400."""
    folder = tmp_path_factory.mktemp("backtest")
    tickets = [*history(5, 400), *stream(5, ROWS, CHANGE)]
    with (folder / "tickets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("question", "topic", "date"))
        began = datetime(2026, 1, 1, tzinfo=UTC)
        writer.writerows((t.text, t.label, (began + timedelta(hours=n)).isoformat()) for n, t in enumerate(tickets))
    arguments = ["backtest", str(folder / "tickets.csv"), "--warmup-share", str(400 / 1300), "--label-delay", "20", "--periods", "6"]
    assert run([*arguments, "--json", str(folder / "out.json"), "--html", str(folder / "out.html")]) == 0
    return json.loads((folder / "out.json").read_text()), (folder / "out.html").read_text()


def test_the_json_has_the_documented_keys(told: tuple[dict[str, Any], str]) -> None:
    result, _ = told
    assert set(result) == {"periods", "alerts", "retrainings", "promotions", "totals"}
    assert {"start", "end", "events", "accuracy_loop", "accuracy_frozen", "accuracy_bound"} <= set(result["periods"][0])
    assert {"at", "event_index", "monitor", "diagnosis"} <= set(result["alerts"][0])
    assert {"requested_at", "labels_used", "seconds", "verdict"} <= set(result["retrainings"][0])
    assert {"at", "event_index", "adapter_digest"} <= set(result["promotions"][0])


def test_the_loop_mends_what_the_frozen_version_loses(told: tuple[dict[str, Any], str]) -> None:
    result, _ = told
    assert result["alerts"][0]["event_index"] > 400 + CHANGE
    assert result["periods"][-1]["accuracy_loop"] > result["periods"][-1]["accuracy_frozen"] + 0.1
    assert result["totals"]["events"] == ROWS


def test_the_page_shows_the_figure_and_asks_nothing_of_the_net(told: tuple[dict[str, Any], str]) -> None:
    _, page = told
    assert "<svg" in page
    assert "Retrainings" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_folder_that_is_not_there_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backtest", str(tmp_path / "x.csv"), "--html", str(tmp_path / "no" / "out.html")]) == 3
    assert "its folder does not exist" in capsys.readouterr().err


def test_a_file_without_times_is_refused_with_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.csv").write_text("text,label\nhello,a\n")
    assert run(["backtest", str(tmp_path / "x.csv")]) == 1
    assert "the columns are text, label" in capsys.readouterr().err


def test_a_share_above_one_is_wrong_usage(tmp_path: Path) -> None:
    assert run(["backtest", str(tmp_path / "x.csv"), "--label-share", "2"]) == 2


@pytest.fixture
def dated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tickets an hour apart, on a tiny base in the place of MiniLM."""
    path, sha256 = make_tiny_model(tmp_path / "tiny")
    monkeypatch.setenv("HOLDFAST_BASES", json.dumps({"minilm": {"path": path, "sha256": sha256}}))
    rows = (f"{json.dumps(t.text)[1:-1]}\t{t.label}\t{1767225600 + 3600 * n}" for n, t in enumerate(history(5, 800)))
    (tmp_path / "tickets.tsv").write_text("\n".join(["text\tlabel\ttime", *rows]))
    return tmp_path / "tickets.tsv"


def policy(folder: Path, name: str, *lines: str, task: str = "tickets", labels: str = "[billing, refund]") -> str:
    text = "\n".join([f"task: {task}", f"labels: {labels}", "floor: 0.0", "promotion: {min_holdout_rows: 20}", *lines])
    (folder / name).write_text(f"{text}\n")
    return str(folder / name)


def test_a_policy_compared_with_its_copy_makes_no_difference(dated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (policy(tmp_path, name, "retraining: {rung: head}") for name in ("a.yaml", "b.yaml"))
    arguments = ["backtest", str(dated), "--warmup-share", "0.5", "--periods", "4", "--compare", a, b]
    assert run([*arguments, "--json", str(tmp_path / "out.json"), "--html", str(tmp_path / "out.html")]) == 0
    assert "No difference" in " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result) == {"a", "b", "difference", "decisions", "summary", "replays"}
    assert (result["a"]["policy"], result["b"]["policy"], result["difference"]["mean"]) == ("a.yaml", "b.yaml", 0.0)
    page = (tmp_path / "out.html").read_text()
    assert "the loop under B" in page
    assert "http" not in page


def test_contracts_of_two_tasks_are_not_compared(dated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = policy(tmp_path, "a.yaml"), policy(tmp_path, "b.yaml", labels="[billing, sales]")
    assert run(["backtest", str(dated), "--compare", a, b]) == 1
    assert "they differ in labels" in capsys.readouterr().err


def test_a_contract_that_is_not_there_is_named(dated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backtest", str(dated), "--compare", policy(tmp_path, "a.yaml"), str(tmp_path / "no.yaml")]) == 1
    assert "no.yaml" in capsys.readouterr().err


def test_two_ways_to_name_a_policy_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = policy(tmp_path, "a.yaml")
    assert run(["backtest", str(tmp_path / "x.csv"), "--policy", a, "--compare", a, a]) == 2
    assert "--compare names both policies" in capsys.readouterr().err
