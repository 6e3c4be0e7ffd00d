"""`holdfast label` against a real gateway and the database of its home: what is known of an id is said at once."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from holdfast import bootstrap, cli
from holdfast.backends.sql import SqlDatabase
from holdfast.bootstrap import home as bootstrap_home
from holdfast.domain.captures import Feedback
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.serving.__main__ import make_state
from holdfast.serving.connection import Connection
from holdfast.serving.gateway import make_app
from holdfast.serving.gateway_state import GatewayState
from holdfast.serving.label_buffer import LabelBuffer
from holdfast.serving.listening import listen
from holdfast.settings import read_settings
from holdfast.testing.clock import NOON
from holdfast.testing.record_builders import a_capture, a_contract

TASK = TaskName("tickets")


class Home:
    """A home with one capture of each of two tasks, and its gateway; no replica is needed to take labels."""

    def __init__(self, folder: Path) -> None:
        self.settings = read_settings(folder)
        bootstrap_home.make_home(self.settings)
        self.database = SqlDatabase(self.settings.database)
        with self.database.unit_of_work() as work:
            for task in (TASK, TaskName("faq")):
                work.contracts.put(a_contract(task=task), NOON)
            work.commit()
        self.database.log().append([a_capture(1, capture_id="c-1"), a_capture(2, capture_id="c-2", task="faq")])
        self.state: GatewayState = make_state(self.settings, Connection(bootstrap.fleet(self.settings), {}))
        self.state.feed.look()

    @property
    def labels(self) -> LabelBuffer:
        assert self.state.labels is not None
        return self.state.labels

    def stored(self) -> list[str]:
        """Ids of the labelled captures, after the spool was looked at once."""
        self.labels.drain()
        return [found.capture.capture_id for found in self.database.log().labelled_since(TASK, 0)]

    @contextmanager
    def serving(self) -> Iterator[None]:
        server = uvicorn.Server(uvicorn.Config(make_app(self.state), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": listen(self.settings, 1)}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HOLDFAST_PORTS__GATEWAY", str(probe.getsockname()[1]))
    monkeypatch.setenv("HOLDFAST_SERVING__FEEDBACK_WAIT_S", "90")
    made = Home(tmp_path / "home")
    with made.serving():
        yield made
    made.labels.close()
    made.database.dispose()


def type_in(home: Home, *arguments: str) -> int:
    return cli.run(["--home", str(home.settings.folder), *arguments])


def test_a_label_of_a_known_capture_is_taken_without_a_word_more(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert type_in(home, "label", "tickets", "c-1", "billing") == 0
    assert capsys.readouterr() == ("1 label taken\n", "")
    assert home.stored() == ["c-1"]


def test_an_id_that_is_not_in_the_log_yet_is_named_and_its_label_waits_for_it(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert type_in(home, "label", "tickets", "c-l", "billing") == 0
    said = capsys.readouterr()
    assert said.out == "1 label taken\n"
    for expected in ("no capture is in the log yet of c-l\n", "waits 90 s", "unmatched", "holdfast status", "holdfast_feedback_total"):
        assert expected in said.err, expected
    home.database.log().append([a_capture(3, capture_id="c-l")])
    assert home.stored() == ["c-l"]


def test_of_a_file_only_the_unknown_ids_are_named(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{name},billing\n" for name in ("c-1", *(f"x-{n:02}" for n in range(30))))
    (tmp_path / "labels.csv").write_text("capture_id,label\n" + rows)
    assert type_in(home, "label", "tickets", "--file", str(tmp_path / "labels.csv")) == 0
    said = capsys.readouterr()
    assert said.out == "31 labels taken\n"
    assert "x-00, x-01" in said.err
    assert "x-19 and 10 more" in said.err
    assert "c-1" not in said.err


def test_the_capture_of_another_task_is_refused_at_once_since_its_label_could_never_be_stored(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type_in(home, "label", "tickets", "c-2", "billing") == cli.FAILED
    assert "this capture is of task faq (at c-2)" in capsys.readouterr().err
    assert home.labels.counts.accepted == 0


def test_without_the_database_labels_are_taken_all_the_same(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (home.settings.folder / "holdfast.db").rename(home.settings.folder / "away.db")
    (home.settings.folder / "holdfast.db").mkdir()
    assert type_in(home, "label", "tickets", "c-1", "billing") == 0
    said = capsys.readouterr()
    assert said.out == "1 label taken\n"
    assert "was not looked up" in said.err


def test_status_counts_the_labels_that_waited_in_vain_and_the_refused(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nobody", "c-2"):  # NOON was long ago
        home.labels.accept(Feedback(capture_id=CaptureId(name), task=TASK, value="billing", source="me", given_at=NOON))
    assert home.stored() == []
    type_in(home, "status", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["labels_unmatched"], found["labels_refused"]) == (1, 1)
    type_in(home, "status")
    assert f"labels: 1 met no capture, 1 were refused; kept in {home.settings.label_spool}" in capsys.readouterr().out
