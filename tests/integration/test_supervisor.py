"""The supervisor with real, small children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from holdfast.cli import processes
from holdfast.cli.probe import answers
from holdfast.cli.run_files import ChildStatus, HomeStatus, is_locked, lock, read_status
from holdfast.cli.supervisor import Supervisor
from holdfast.errors import HomeInUse, PartUnavailable
from holdfast.processes import ProcessSpec

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
PARENT = (
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True, "
    "env={}); time.sleep(600)",
)
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
)


def until(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    for name in ("run", "logs"):
        (tmp_path / name).mkdir()
    yield tmp_path
    processes.end(processes.belongings(tmp_path), grace_s=1.0)


Supervise = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def supervise(home: Path) -> Iterator[Supervise]:
    """Start a supervisor in a process of its own, as `holdfast up` does."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*specs: ProcessSpec) -> subprocess.Popen[bytes]:
        code = (
            "import signal; from pathlib import Path; from holdfast.cli import supervisor; from holdfast.processes import ProcessSpec; "
            f"supervisor.STOP_S = 1.0; it = supervisor.Supervisor(Path({str(home)!r}), {specs!r}, alone=True); "
            "signal.signal(signal.SIGTERM, lambda *_: it.stop()); it.run()"
        )
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        started.append(process)
        until(lambda: runs(home))
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def web(name: str, *, needs: tuple[str, ...] = ()) -> ProcessSpec:
    port = free_port()
    argv = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    return ProcessSpec(name=name, argv=argv, ready_url=f"http://127.0.0.1:{port}/", needs=needs)


def status(home: Path) -> HomeStatus:
    found = read_status(home / "run")
    assert found is not None
    return found


def child(home: Path, name: str) -> ChildStatus:
    return next(c for c in status(home).children if c.name == name)


def runs(home: Path) -> bool:
    found = read_status(home / "run")
    return found is not None and found.state == "running"


def test_children_start_and_are_told_in_the_status(home: Path, supervise: Supervise) -> None:
    spec = web("site")
    supervise(spec, ProcessSpec(name="quiet", argv=SLEEPER))
    assert {c.name: c.state for c in status(home).children} == {"site": "ready", "quiet": "ready"}
    assert spec.ready_url is not None
    assert answers(spec.ready_url)


def test_a_child_waits_for_what_it_needs(home: Path, supervise: Supervise) -> None:
    supervise(ProcessSpec(name="second", argv=SLEEPER, needs=("first",)), web("first"))
    first, second = child(home, "first").pid, child(home, "second").pid
    assert first is not None
    assert second is not None
    assert psutil.Process(first).create_time() <= psutil.Process(second).create_time()


def test_a_killed_child_comes_back(home: Path, supervise: Supervise) -> None:
    spec = web("site")
    supervise(spec)
    old = child(home, "site").pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    until(lambda: child(home, "site").restarts == 1 and child(home, "site").state == "ready")
    assert child(home, "site").pid != old


def test_a_grandchild_that_hides_from_marker_and_session_is_ended_with_the_home(home: Path, supervise: Supervise) -> None:
    supervisor = supervise(ProcessSpec(name="parent", argv=PARENT))
    parent = child(home, "parent").pid
    assert parent is not None
    until(lambda: psutil.Process(parent).children())
    orphan = psutil.Process(parent).children()[0]
    os.kill(parent, signal.SIGKILL)
    until(lambda: child(home, "parent").restarts == 1)
    assert orphan.is_running()
    supervisor.terminate()
    supervisor.wait(30)
    assert processes.wait((orphan,), 0) == ()


def test_stopping_ends_children_grandchildren_and_stubborn_ones(home: Path, supervise: Supervise) -> None:
    supervisor = supervise(ProcessSpec(name="parent", argv=PARENT), ProcessSpec(name="stubborn", argv=STUBBORN))
    parent = child(home, "parent").pid
    assert parent is not None
    until(lambda: psutil.Process(parent).children() and (home / "logs" / "stubborn.log").read_text())
    family = [psutil.Process(parent), *psutil.Process(parent).children()]
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    assert processes.wait(family, 0) == ()
    assert processes.belongings(home) == ()
    assert status(home).state == "stopped"


def test_a_child_that_cannot_live_fails_the_start_and_nothing_stays(home: Path) -> None:
    broken = ProcessSpec(
        name="broken", argv=(sys.executable, "-c", "raise SystemExit('no such table: dreams')"), ready_url="http://127.0.0.1:9/"
    )
    with pytest.raises(PartUnavailable, match=r"broken .*3 times.*no such table: dreams"):
        Supervisor(home, (broken, ProcessSpec(name="quiet", argv=SLEEPER))).run()
    assert processes.belongings(home) == ()


def test_a_child_that_never_answers_fails_the_start_in_time(home: Path) -> None:
    mute = ProcessSpec(name="mute", argv=SLEEPER, ready_url="http://127.0.0.1:9/")
    with pytest.raises(PartUnavailable, match="not ready after 1 s"):
        Supervisor(home, (mute,), start_s=1.0).run()


def test_the_orphans_of_a_killed_supervisor_are_found_by_their_marker(home: Path, supervise: Supervise) -> None:
    supervisor = supervise(ProcessSpec(name="quiet", argv=SLEEPER))
    supervisor.kill()
    supervisor.wait()
    orphans = processes.belongings(home)
    assert [p.pid for p in orphans] == [child(home, "quiet").pid]
    assert processes.end(orphans, grace_s=5.0) == 0
    assert processes.belongings(home) == ()


def test_processes_of_another_home_are_left_alone(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    stranger = processes.launch(ProcessSpec(name="quiet", argv=SLEEPER), home=other, log=other / "log")
    try:
        assert processes.belongings(home) == ()
        assert [p.pid for p in processes.belongings(other)] == [stranger.pid]
    finally:
        stranger.kill()
        stranger.wait()


def test_a_home_is_held_once_and_free_after(home: Path) -> None:
    with lock(home):
        assert is_locked(home)
        with pytest.raises(HomeInUse, match=str(os.getpid())), lock(home):
            pass
    assert not is_locked(home)
