"""The supervisor: starts the processes of a home, starts a dead one again, and ends all of them.

One thread, one loop. Each round looks at every child once: it waits for what it needs, is started, becomes ready, dies,
rests for its back-off (0.5 s, doubled up to 10 s, forgotten after a minute of life) and is started again.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from holdfast.cli import processes
from holdfast.cli.probe import answers, log_tail
from holdfast.cli.run_files import ChildState, ChildStatus, HomeState, HomeStatus, write_status
from holdfast.cli.show import say
from holdfast.errors import PartUnavailable
from holdfast.processes import ProcessSpec

ROUND_S = 0.2
FIRST_REST_S, LONGEST_REST_S = 0.5, 10.0
STEADY_S = 60.0
PROBE_S = 10.0
"""Seconds between two looks at a ready child; three unanswered in a row make it `silent`."""
START_S = 300.0
STOP_S = 20.0
DEATHS_AT_START = 3


@dataclass
class Child:
    """One child with what the loop remembers of it. Times are monotonic seconds but for ``since``."""

    spec: ProcessSpec
    log: Path
    state: ChildState = "waiting"
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    rest_s: float = FIRST_REST_S
    started: float = 0.0
    start_again: float = 0.0
    was_ready: bool = False
    deaths: int = 0
    probe: Future[bool] | None = None
    probed: float = 0.0
    silences: int = 0

    def enter(self, state: ChildState) -> None:
        """Change the state, note when, and write it into the log."""
        self.was_ready |= state == "ready"
        if state != self.state:
            self.state, self.since = state, datetime.now(UTC)
            code = f" (exit code {self.process.poll()})" if self.process and state in ("restarting", "ended") else ""
            say(f"{self.since:%Y-%m-%dT%H:%M:%S}Z {self.spec.name}: {state}{code}")

    def status(self) -> ChildStatus:
        """What is told of it."""
        pid = self.process.pid if self.process and self.state not in ("restarting", "ended") else None
        return ChildStatus(
            name=self.spec.name,
            state=self.state,
            pid=pid,
            restarts=self.restarts,
            since=self.since,
            log=str(self.log),
            url=self.spec.ready_url,
        )


class Supervisor:
    """Runs the processes of one home until ``stop`` is called.

    ``alone`` says that this process does nothing else: whatever descends from it is of the home and is ended with it, even a
    process that hid from marker and session.
    """

    def __init__(
        self, home: Path, specs: Sequence[ProcessSpec], *, alone: bool = False, start_s: float = START_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.home, self.run_folder = home, home / "run"
        self.children = {spec.name: Child(spec=spec, log=home / "logs" / f"{spec.name}.log") for spec in specs}
        self._alone, self._start_s, self._clock = alone, start_s, clock
        self._began_at, self._began = datetime.now(UTC), clock()
        self._state: HomeState = "starting"
        self._halt = threading.Event()
        self._written: HomeStatus | None = None

    def stop(self) -> None:
        """Ask the loop to end; safe in a signal handler and from other threads."""
        self._halt.set()

    def run(self) -> None:
        """Supervise until stopped, then end every process.

        Raises:
            PartUnavailable: a process did not become ready at the first start; every process was ended.
        """
        if self._alone:
            processes.adopt_orphans()
        try:
            with ThreadPoolExecutor(max(1, len(self.children)), thread_name_prefix="probe") as probes:
                while not self._halt.is_set():
                    self._round(probes)
                    self._halt.wait(ROUND_S)
        finally:
            self._end_all()

    def _round(self, probes: ThreadPoolExecutor) -> None:
        for child in self.children.values():
            self._look(child, probes)
        if self._state == "starting":
            self._judge_start()
        if self._alone:
            processes.reap_adopted(c.process.pid for c in self.children.values() if c.process)
        self._tell()

    def _look(self, child: Child, probes: ThreadPoolExecutor) -> None:
        now = self._clock()
        if child.state == "waiting" and all(self.children[name].state == "ready" for name in child.spec.needs):
            self._start(child, now)
        elif child.state == "restarting" and now >= child.start_again:
            child.restarts += 1
            child.enter("waiting")
        elif child.process is not None and child.state in ("starting", "ready", "silent"):
            code = child.process.poll()
            if code is not None:
                self._bury(child, now)
            else:
                self._probe(child, probes, now)

    def _start(self, child: Child, now: float) -> None:
        try:
            child.process = processes.launch(child.spec, home=self.home, log=child.log)
        except OSError as error:
            raise PartUnavailable(part=child.spec.name, reason=f"{child.spec.argv[0]} cannot be started ({error.strerror})") from None
        child.started, child.probed, child.probe, child.silences = now, 0.0, None, 0
        child.enter("starting")

    def _bury(self, child: Child, now: float) -> None:
        """The child is dead: end what it left behind (it may hold ports) and rest before the next start."""
        assert child.process is not None
        remains = {p.pid: p for p in (*processes.belongings(self.home, name=child.spec.name), *processes.of_session(child.process.pid))}
        processes.end(tuple(remains.values()), grace_s=2.0)
        if now - child.started > STEADY_S:
            child.rest_s = FIRST_REST_S
        child.deaths += 1
        child.start_again, child.rest_s = now + child.rest_s, min(2 * child.rest_s, LONGEST_REST_S)
        child.enter("restarting")

    def _probe(self, child: Child, probes: ThreadPoolExecutor, now: float) -> None:
        if child.spec.ready_url is None:
            if child.state == "starting" and now - child.started > 1.0:
                child.enter("ready")
            return
        if child.probe is not None and child.probe.done():
            good, child.probe = child.probe.result(), None
            child.silences = 0 if good else child.silences + 1
            if good and child.state != "ready":
                child.enter("ready")
            elif child.state == "ready" and child.silences >= 3:
                child.enter("silent")
        pause = PROBE_S if child.state == "ready" else 2 * ROUND_S
        if child.probe is None and now - child.probed >= pause:
            child.probed, child.probe = now, probes.submit(answers, child.spec.ready_url)

    def _judge_start(self) -> None:
        if all(child.was_ready for child in self.children.values()):
            self._state = "running"
            return
        for child in self.children.values():
            if child.was_ready:
                continue
            said = f"; the end of {child.log}: {log_tail(child.log)}"
            if child.deaths >= DEATHS_AT_START:
                assert child.process is not None
                code = child.process.returncode
                raise PartUnavailable(part=child.spec.name, reason=f"it ended {child.deaths} times at the start (exit code {code}){said}")
            if self._clock() - self._began > self._start_s and child.state != "waiting":
                raise PartUnavailable(part=child.spec.name, reason=f"it was not ready after {self._start_s:.0f} s{said}")

    def _end_all(self) -> None:
        """End the children, those that need others first, then whatever else belongs to the home."""
        self._state = "stopping"
        self._tell()
        left = dict(self.children)
        while left:
            needed = {name for child in left.values() for name in child.spec.needs}
            first = [name for name in left if name not in needed] or list(left)
            self._end_children([left.pop(name) for name in first])
            self._tell()
        processes.end(self._strays(), grace_s=3.0)
        self._state = "stopped"
        self._tell()

    def _end_children(self, children: Sequence[Child]) -> None:
        living = [child.process for child in children if child.process is not None and child.process.poll() is None]
        for process in living:
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in living:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for child in children:
            if child.process is not None:
                processes.end(processes.of_session(child.process.pid), grace_s=2.0)
            child.enter("ended")

    def _strays(self) -> tuple[psutil.Process, ...]:
        descendants = psutil.Process().children(recursive=True) if self._alone else []
        found = {p.pid: p for p in (*processes.belongings(self.home), *descendants)}
        return tuple(found.values())

    def _tell(self) -> None:
        children = tuple(child.status() for child in self.children.values())
        status = HomeStatus(state=self._state, pid=os.getpid(), started_at=self._began_at, children=children)
        if status != self._written:
            write_status(self.run_folder, status)
            self._written = status
