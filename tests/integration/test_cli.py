"""Commands as a person types them: a home on disk, and a real control plane over twins."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from holdfast import cli
from holdfast.api.app import build
from holdfast.api.keys import ensure_admin_key
from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli.run_files import lock
from holdfast.client import Client
from holdfast.domain.datasets import LeftOut, ReplayTrial, SuspectedRow, TaughtRows
from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.errors import BadInput, GateRefused, LedgerBroken, NotFound, PartUnavailable, RequestInvalid, RetrainingHeld, TrainingFailed
from holdfast.flows import retrain
from holdfast.ports import House
from holdfast.settings import Settings, read_settings
from holdfast.testing.builders import a_house, an_adapter
from holdfast.testing.memory_stores import MemoryAdapterStore
from holdfast.testing.record_builders import a_capture, a_contract, a_snapshot, a_version, an_alert, an_assignment

CONTRACT = "task: tickets\nlabels: [billing, delivery]\nfloor: 0.5\npromotion:\n  mode: suggest\n"


class Hand:
    """Types commands and keeps what was said."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._capsys = home, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capsys.readouterr()
        code = cli.run(["--home", str(self.home), *arguments])
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return code


@pytest.fixture
def hand(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hand]:
    with socket.socket() as nobody:  # else a home that runs on the usual port would answer
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HOLDFAST_PORTS__GATEWAY", str(nobody.getsockname()[1]))
        yield Hand(tmp_path / "home", capsys)


@pytest.fixture
def house(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house of twins behind a real control plane, at the port that the settings of the hand name."""
    made = a_house()
    ensure_admin_key(made, hand.home / "keys")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HOLDFAST_PORTS__API", str(listener.getsockname()[1]))
        settings = read_settings(hand.home)
        server = uvicorn.Server(uvicorn.Config(build(made, settings), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield made
        server.should_exit = True
        thread.join(20)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def examples(path: Path) -> str:
    rows = [f"{'pay' if n % 2 else 'parcel'} number {n},{'billing' if n % 2 else 'delivery'}" for n in range(1000)]
    return write(path, "text,label\n" + "\n".join(rows) + "\n")


def test_init_makes_a_private_home_and_nothing_else(hand: Hand, tmp_path: Path) -> None:
    assert hand("init") == 0
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o700 for p in (hand.home, *hand.home.iterdir()) if p.is_dir())
    key = hand.home / "keys" / "admin.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_text().strip()) == 46


def test_init_again_keeps_the_key(hand: Hand) -> None:
    assert (hand("init"), (key := (hand.home / "keys" / "admin.key").read_text())) == (0, key)
    assert hand("init") == 0
    assert (hand.home / "keys" / "admin.key").read_text() == key


def test_a_home_that_cannot_be_made_is_one_error(hand: Hand, tmp_path: Path) -> None:
    hand.home = Path(write(tmp_path / "file", "")) / "home"
    assert hand("init") == cli.UNHEALTHY
    assert hand.err.startswith("error: ")
    assert len(hand.err.splitlines()) == 2


def test_without_a_home_every_command_names_init(hand: Hand) -> None:
    for command in (("status",), ("ledger", "verify"), ("keys", "list"), ("task", "list"), ("down",)):
        assert hand(*command) == cli.FAILED
        assert "holdfast init" in hand.err


def test_status_of_a_stopped_home_is_unhealthy_and_says_what_to_do(hand: Hand) -> None:
    hand("init")
    assert hand("status", "--json") == cli.UNHEALTHY
    found = json.loads(hand.out)
    assert {"home", "state", "children", "oldest_due_job", "tasks", "troubles"} <= set(found)
    assert found["troubles"] == ["it does not run; `holdfast up` starts it"]


def test_a_second_up_on_the_same_home_is_refused(hand: Hand) -> None:
    hand("init")
    with lock(hand.home):
        assert hand("up") == cli.FAILED
    assert "is in use by a running Holdfast" in hand.err


def test_a_port_in_use_is_named_with_its_setting_and_nothing_stays(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("HOLDFAST_PORTS__API", str(port))
        assert hand("up") == cli.FAILED
    assert hand.err.startswith(f"error: Port {port} (api) is in use")
    assert "HOLDFAST_PORTS__API" in hand.err
    assert hand("down") == 0
    assert "nothing was running" in hand.out


def test_keys_are_made_listed_and_revoked_and_the_last_one_stays(hand: Hand) -> None:
    hand("init")
    assert hand("keys", "create", "ci") == 0
    assert hand.out.startswith("hf_")
    assert hand("keys", "create", "ci") == cli.FAILED
    assert hand("keys", "create", "Not A Name") == cli.USAGE
    assert hand("keys", "list", "--json") == 0
    assert json.loads(hand.out) == [{"name": "admin"}, {"name": "ci"}]
    assert hand("keys", "revoke", "ci") == 0
    assert hand("keys", "revoke", "admin") == cli.FAILED
    assert "last valid one" in hand.err


def test_the_ledger_verifies_offline_and_a_changed_row_is_found(hand: Hand) -> None:
    hand("init")
    hand("keys", "create", "ci")
    assert hand("ledger", "verify", "--json") == 0
    assert json.loads(hand.out)["entry_count"] == 2
    settings = read_settings(hand.home)
    code = f"import sqlite3; db = sqlite3.connect({str(settings.folder / 'holdfast.db')!r}); "
    code += "db.execute(\"update ledger set actor = 'someone else' where seq = 1\"); db.commit(); db.close()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert hand("ledger", "verify") == cli.FAILED
    assert "row 1" in hand.err


def test_a_lost_key_file_is_replaced_and_the_old_key_is_useless(hand: Hand) -> None:
    hand("init")
    (hand.home / "keys" / "admin.key").unlink()
    assert hand("init") == 0
    names = bootstrap_home.key_names(read_settings(hand.home))
    assert len(names) == 1
    assert names != ("admin",)


def test_data_show_tells_what_was_left_out_what_was_tried_and_which_labels_look_wrong(hand: Hand, house: House, tmp_path: Path) -> None:
    assert hand("task", "create", write(tmp_path / "c.yaml", CONTRACT)) == 0
    assert hand("data", "show", "tickets") == 0
    assert "no data yet" in hand.out
    taught = TaughtRows(
        taught_count=11,
        suspected=(SuspectedRow(row_id=3, text="where is it", label="billing", source="desk", suggested="delivery", margin=0.91),),
        replay_share=0.5,
        replay_trials=(ReplayTrial(share=0.5, row_count=9, past_score=0.8125, recent_score=0.7),),
    )
    left_out = LeftOut(near_duplicate_count=21, conflict_count=1, conflicts_by_source={"desk": 1}, capped_by_source={"robot": 4600})
    with house.unit_of_work() as uow:
        uow.snapshots.put(a_snapshot(task="tickets", taught=taught, left_out=left_out))
        uow.commit()
    assert hand("data", "show", "tickets") == 0
    for words in ("where is it", "delivery", "0.91", "4600", "by robot", "50%", "0.812", "11 rows"):
        assert words in hand.out, hand.out


def test_the_way_of_a_task_by_hand(hand: Hand, house: House, tmp_path: Path) -> None:
    assert hand("task", "create", write(tmp_path / "c.yaml", CONTRACT)) == 0
    assert hand("data", "audit", "tickets", examples(tmp_path / "rows.csv")) == 0
    assert hand("data", "add", "tickets", str(tmp_path / "rows.csv")) == 0
    assert "1000 rows, 2 labels" in hand.out
    assert hand("data", "show", "tickets") == 0
    assert "nearly the same as a held-out row" in hand.out
    assert hand("train", "tickets", "--no-wait", "--json") == 0
    retraining = json.loads(hand.out)["retraining"]["retraining_id"]
    for _ in range(20):
        retrain.advance(house, retraining, owner="test")
        house.clock.step(60)  # type: ignore[attr-defined]
    assert hand("evaluate", "tickets") == 0
    assert "pass" in hand.out
    assert hand("promote", "tickets", "--reason", "it passed") == 0
    assert "is champion of tickets" in hand.out
    assert hand("task", "show", "tickets", "--json") == 0
    view = json.loads(hand.out)
    assert view["assignment"]["champion"] == view["champion"]["digest"]
    assert hand("monitor", "check", "tickets") == 0
    assert "not enough data" in hand.out
    assert hand("monitor", "list") == 0
    assert "not enough data" in hand.out
    assert hand("monitor", "budget", "--json") == 0
    assert json.loads(hand.out)["task_count"] == 1
    assert hand("monitor", "budget") == 0
    assert "all" in hand.out
    assert hand("alerts", "tickets") == 0
    with house.unit_of_work() as work:
        broken = Diagnosis(cause="upstream break", action="wait", sentence="half of the inputs are empty")
        work.alerts.put(an_alert(diagnosis=broken))
        work.commit()
    assert hand("retrain", "tickets") == cli.REFUSED
    assert "half of the inputs are empty" in hand.err
    assert hand("retrain", "tickets", "--anyway", "--json") == 0
    assert json.loads(hand.out)["retraining"]["forced_over"]
    assert hand("rollback", "tickets") in (cli.FAILED, cli.REFUSED)
    assert hand("task", "list") == 0
    assert "tickets" in hand.out


def test_spans_and_sets_are_brought_by_hand_and_labelled_over_rest(hand: Hand, house: House, tmp_path: Path) -> None:
    spans = write(tmp_path / "s.yaml", "task: places\nkind: extraction\nlabels: [city, item]\nfloor: 0.5\nmetric: f1\n")
    assert hand("task", "create", spans) == 0
    lines = [json.dumps({"text": f"to Oslo, {n}", "slots": [{"slot": "city", "start": 3, "end": 7, "value": "Oslo"}]}) for n in range(30)]
    lines.append(json.dumps({"text": "nothing at all", "slots": []}))
    assert hand("data", "add", "places", write(tmp_path / "s.jsonl", "\n".join(lines))) == 0
    assert "31 rows, 1 labels" in hand.out
    wrong = [lines[0].replace(": 7", ": 70"), lines[1], lines[2].replace("city", "town")]
    assert hand("data", "audit", "places", write(tmp_path / "bad.jsonl", "\n".join(wrong))) == cli.FAILED
    assert "the span 3..70 of 'city' does not lie in the text" in hand.err
    assert "the label 'town' is not one of the contract" in hand.err
    assert hand("data", "add", "places", str(tmp_path / "bad.jsonl")) == cli.FAILED
    assert "and 1 more mistake(s)" in hand.err
    sets = write(tmp_path / "m.yaml", "task: owners\nkind: multi-label\nlabels: [a, b]\nfloor: 0.5\n")
    assert hand("task", "create", sets) == 0
    rows = "".join(f"text {n},{'a|b' if n % 2 else 'a'}\n" for n in range(20))
    assert hand("data", "add", "owners", write(tmp_path / "m.csv", "text,labels\n" + rows)) == 0
    house.log.append([a_capture(1, capture_id="c-1", task="places", text="to Oslo"), a_capture(2, capture_id="c-2", task="owners")])
    settings = read_settings(hand.home)
    key = (hand.home / "keys" / "admin.key").read_text().strip()
    pairs = bootstrap_home.read_labels(Path(write(tmp_path / "l.jsonl", '{"capture_id": "c-2", "label": ["b", "a"]}')))
    with Client(settings.local(settings.ports.api), settings.local(settings.ports.gateway), key) as client:
        client.add_labels("places", [{"capture_id": "c-1", "value": '{"city": "Oslo"}'}])
        client.add_labels("owners", [{"capture_id": capture, "value": value} for capture, value in pairs])
        with pytest.raises(BadInput, match="exactly once"):
            client.add_labels("places", [{"capture_id": "c-1", "value": '{"city": "Bergen"}'}])
    assert house.log.labelled_since("owners", 0)[0].label.value == '["a","b"]'  # type: ignore[arg-type]
    assert house.log.labelled_since("places", 0)[0].label.value.startswith('{"spans":[{"field":"city"')  # type: ignore[arg-type]


def test_promoting_what_was_not_judged_is_refused_with_its_own_code(hand: Hand, house: House, tmp_path: Path) -> None:
    hand("task", "create", write(tmp_path / "c.yaml", CONTRACT))
    assert hand("promote", "tickets") == cli.REFUSED
    assert "no version was judged yet" in hand.err


def test_wrong_data_is_refused_with_the_line_of_the_file_and_changes_nothing(hand: Hand, house: House, tmp_path: Path) -> None:
    hand("task", "create", write(tmp_path / "c.yaml", CONTRACT))
    assert hand("data", "add", "tickets", write(tmp_path / "bad.csv", "text,label\npay,billing\nx,unheard\n")) == cli.FAILED
    assert "the label 'unheard' is not one of the contract (billing, delivery) (at line 3)" in hand.err
    assert hand("data", "audit", "tickets", str(tmp_path / "bad.csv")) == cli.FAILED
    assert "error: line 3: the label 'unheard'" in hand.err
    assert hand("data", "add", "tickets", str(tmp_path / "none.csv")) == cli.FAILED
    assert hand.err.startswith(f"error: The file {tmp_path / 'none.csv'} cannot be used: it does not exist.\n")
    with house.unit_of_work() as work:
        assert work.snapshots.of_task("tickets") == ()  # type: ignore[arg-type]


def test_a_contract_with_mistakes_names_every_place(hand: Hand, house: House, tmp_path: Path) -> None:
    assert hand("task", "create", write(tmp_path / "c.yaml", "task: Tickets\nlabels: a\n")) == cli.FAILED
    assert "line 2, column 9, labels" in hand.err
    assert "line 1, column 1, floor: is required" in hand.err


def test_a_part_that_is_away_is_unhealthy_and_names_up(hand: Hand, house: House) -> None:
    assert hand("predict", "tickets", "where is it") == cli.UNHEALTHY
    assert hand.err.startswith("error: The gateway at 127.0.0.1:")
    assert hand.err.count("holdfast up") == 1


def test_wrong_usage_has_its_own_code(hand: Hand) -> None:
    hand("init")
    for arguments in (("predict",), ("nonsense",), ("label", "tickets"), ("up", "--sideways")):
        assert hand(*arguments) == cli.USAGE
        assert len(hand.err.splitlines()) == 2


def test_a_trial_without_a_way_is_told_what_a_trial_wants(hand: Hand) -> None:
    hand("init")
    assert hand("trial", "tickets", "2") == cli.USAGE
    assert hand.err.startswith("error: A trial wants to know what the version gets: --shadow")
    assert "`holdfast trial tickets 2 --shadow`" in hand.err
    assert hand("trial", "tickets", "--end", "--shadow") == cli.USAGE
    assert hand.err.startswith("error: A trial is ended with --end alone")


def test_a_setting_that_cannot_be_read_is_named(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_PORTS__API", "many")
    assert hand("status") == cli.USAGE
    assert "HOLDFAST_PORTS__API" in hand.err


def test_what_nobody_foresaw_is_one_line_and_a_trace_in_the_log(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    hand("init")

    def fall(_: Settings) -> None:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr(bootstrap_home, "verify_ledger", fall)
    assert hand("ledger", "verify") == cli.FAILED
    assert hand.err.startswith("error: ZeroDivisionError: by chance\n")
    assert "Traceback" in (hand.home / "logs" / "cli.log").read_text()


def test_a_review_goes_out_as_a_table_and_comes_back(hand: Hand, house: House, tmp_path: Path) -> None:
    digest = crown_desk(house)
    for n in range(40):
        house.log.append([a_capture(n, capture_id=f"d-{n}", task="desk", text=f"parcel {n}", adapter_digest=digest)])
    assert hand("review", "export", "desk") == cli.FAILED
    assert "holdfast review ask desk" in hand.err
    assert hand("review", "ask", "desk", "--rows", "5") == cli.USAGE
    assert hand("review", "ask", "desk", "--rows", "30") == 0
    assert hand("review", "ask", "desk") == cli.FAILED
    assert "is open already" in hand.err
    file = tmp_path / "rows.csv"
    assert hand("review", "export", "desk", "-o", str(file)) == 0
    lines = file.read_text().splitlines()
    assert lines[0] == "capture_id,text,label" and len(lines) == 31
    file.write_text("\n".join([lines[0], *(line + "billing" for line in lines[1:4]), lines[4] + "nonsense", *lines[5:]]))
    assert hand("review", "import", "desk", str(file)) == cli.FAILED
    assert "line 5" in hand.err and "nonsense" in hand.err
    file.write_text(file.read_text().replace("nonsense", ""))
    assert hand("review", "import", "desk", str(file)) == 0
    assert "3 labels taken" in hand.out
    assert hand("review", "status", "desk", "--json") == 0
    found = json.loads(hand.out)
    assert (found["answered_count"], found["state"], found["evidence"]["outcome"]) == (3, "open", "more labels")
    assert hand("review", "list", "desk") == 0
    assert found["request_id"] in hand.out
    assert hand("review", "import", "desk", str(tmp_path / "none.csv")) == cli.FAILED
    assert "none.csv" in hand.err


def crown_desk(house: House) -> AdapterDigest:
    """A task `desk` with a champion."""
    assert isinstance(house.adapters, MemoryAdapterStore)
    task, folder = TaskName("desk"), Path("/nowhere/desk")
    digest = house.adapters.plant(folder, an_adapter("desk", task=task))
    house.adapters.add(folder)
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(task=task), house.clock())
        uow.versions.put(a_version(digest=digest, task=task))
        uow.assignments.put(
            an_assignment(task=task, champion=digest, generation=uow.assignments.next_generation()), expected_generation=None
        )
        uow.commit()
    return digest


def test_every_error_has_its_documented_code() -> None:
    told = {
        GateRefused(digest="d", task="t", reason="r", remedy="m"): cli.REFUSED,
        PartUnavailable(part="p", reason="r"): cli.UNHEALTHY,
        TrainingFailed(key="k", reason="r", log="l"): cli.FAILED,
        RetrainingHeld(task="t", reason="r"): cli.REFUSED,
        RequestInvalid(place="p", problem="p", remedy="r"): cli.USAGE,
        LedgerBroken(seq=1, reason="r"): cli.FAILED,
        NotFound(kind="task", name="t"): cli.FAILED,
    }
    assert {error: cli.exit_code(error) for error in told} == told


def test_every_command_explains_itself(hand: Hand) -> None:
    nouns = "task create,task list,task show,data add,data audit,data show,ledger verify,captures gaps,keys create,keys list,keys revoke"
    nouns += ",monitor check,monitor list,monitor budget"
    verbs = "init,up,down,status,doctor,demo,backtest,predict,label,alerts,retrain,promote,trial,rollback,train,evaluate"
    reviews = "review list,review ask,review export,review import,review status"
    for command in f"{nouns},{reviews},{verbs}".split(","):
        assert hand(*command.split(), "--help") == 0
        assert "Usage: holdfast" in hand.out
