"""Processes of a home: start them apart, find every one of them again, end them all.

A process is ours when it carries the marker of the home in its environment, when it is in a session that such a process
leads, or when it descends from one. The environment alone is not enough: programs that write their own title overwrite it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from holdfast.processes import ProcessSpec

MARKER = "HOLDFAST_HOME_MARKER"
PROCESS = "HOLDFAST_PROCESS"
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


def launch(spec: ProcessSpec, *, home: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, without input, its output appended to ``log``."""
    env = {**os.environ, **spec.env, "HOLDFAST_HOME": str(home), MARKER: str(home), PROCESS: spec.name}  # noqa: TID251  (for the child)
    env.setdefault("PYTHONUNBUFFERED", "1")
    with log.open("ab") as output:
        return subprocess.Popen(
            spec.argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=home
        )


def adopt_orphans() -> None:
    """Make grandchildren whose parent dies our children, so that they stay findable as descendants (Linux; elsewhere a no-op)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def reap_adopted(known: Iterable[int]) -> None:
    """Collect the exit status of adopted processes that ended; those in ``known`` are waited for by their Popen."""
    own = set(known)
    try:
        # Peek first: one system call and no walk through the process table, since this is asked five times a second.
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None and ended.si_pid not in own:
            os.waitpid(ended.si_pid, os.WNOHANG)
    except ChildProcessError:
        return


def belongings(home: Path, *, name: str | None = None) -> tuple[psutil.Process, ...]:
    """Every living process of a home, or of one named process of it; never this process nor one it runs in.

    The supervisor itself is among them.
    """
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    everyone = {process.pid: process for process in psutil.process_iter() if process.pid not in spared}
    marked = {pid for pid, process in everyone.items() if _is_marked(process, str(home), name)}
    sessions = {pid for pid in marked if _session(pid) == pid}
    found = marked | {pid for pid in everyone if _session(pid) in sessions}
    for pid in tuple(found):
        try:
            found.update(child.pid for child in everyone[pid].children(recursive=True))
        except psutil.Error:
            continue
    return tuple(process for pid, process in everyone.items() if pid in found and _lives(process))


def of_session(leader: int) -> tuple[psutil.Process, ...]:
    """Every living process of the session that ``leader`` led, whether it still lives or not."""
    return tuple(process for process in psutil.process_iter() if _session(process.pid) == leader and _lives(process))


def end(processes: Sequence[psutil.Process], *, grace_s: float) -> int:
    """Ask every process to end, wait, kill the rest; the number that had to be killed."""
    for process in processes:
        _signal(process, kill=False)
    return kill(wait(processes, grace_s))


def kill(processes: Sequence[psutil.Process]) -> int:
    """Kill and wait up to 5 s; the number that was sent the signal."""
    for process in processes:
        _signal(process, kill=True)
    wait(processes, 5.0)
    return len(processes)


def wait(processes: Sequence[psutil.Process], timeout_s: float) -> tuple[psutil.Process, ...]:
    """Those that still live after at most ``timeout_s``. Zombies count as ended: their parent is not ours to ask."""
    deadline = time.monotonic() + timeout_s
    while (living := tuple(p for p in processes if _lives(p))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living


def _is_marked(process: psutil.Process, home: str, name: str | None) -> bool:
    try:
        env = process.environ()
    except (psutil.Error, OSError):
        return False
    return env.get(MARKER) == home and name in (None, env.get(PROCESS))


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.Error:
        return
