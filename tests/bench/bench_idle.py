"""What a home costs before anybody asks it anything: seconds of `holdfast up`, memory of each part once all is ready.

    python tests/bench/bench_idle.py [--smoke] [--write]

A fresh home with no task, on free ports, started and ended by the command. Memory is PSS (proportional set size: pages shared by n
processes count 1/n in each), read from /proc 20 s after everything was ready. The first start makes the home and its database.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from holdfast.testing.running_home import RunningHome, part_of

RESULTS = Path(__file__).parent / "results" / "idle.md"
SETTLED_S = 20.0
MIB = 1 << 20


def memory(home: RunningHome) -> dict[str, float]:
    """Part to MiB of PSS."""
    found: dict[str, float] = {}
    for process in home.everything():
        try:
            part = part_of(process)
            found[part] = found.get(part, 0.0) + process.memory_full_info().pss / MIB
        except psutil.NoSuchProcess:  # Ray and MLflow end helpers at any time
            continue
    return found


def main(starts: int, write: bool) -> None:
    """Run and print."""
    seconds: list[float] = []
    parts: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="hf-idle-") as folder:
        for number in range(starts):
            began = time.perf_counter()
            with RunningHome(Path(folder) / "home") as home:
                seconds.append(time.perf_counter() - began)
                if number == starts - 1:
                    time.sleep(SETTLED_S)  # what is measured is a home that has come to rest
                    parts = memory(home)
    lines = [__doc__ or "", "| `holdfast up` until all is ready, s | |", "|---|---|", f"| the first start | {seconds[0]:.1f} |"]
    if starts > 1:
        lines.append(f"| later starts, median of {starts - 1} | {median(seconds[1:]):.1f} |")
    lines += ["", "| part | PSS, MiB |", "|---|---|"]
    lines += [f"| {part} | {size:.0f} |" for part, size in sorted(parts.items(), key=lambda one: -one[1])]
    lines += [f"| **all** | **{sum(parts.values()):.0f}** |", "", f"{os.cpu_count()} cores, Python {sys.version.split()[0]}."]
    print("\n".join(lines))
    if write:
        RESULTS.write_text("# An idle home\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one start")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    main(1 if given.smoke else 4, given.write)
