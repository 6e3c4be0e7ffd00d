"""River's drift detectors on streams of 0/1 errors, each tuned to the same average run length: in an environment of their own.

python river_detectors.py STREAMS.npz RUN_LENGTH

STREAMS.npz: `null` [streams, events], nothing changes; every other array [replicates, events] is a case. Prints one JSON object:
detector to its setting, the run length measured at it, and for each case the event (from 1) of the first alarm of each replicate, 0
for none.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import drift

Make = Callable[[float], Any]
STEPS = 14
"""Halvings of the logarithm of a setting."""
DETECTORS: dict[str, tuple[Make, float, float]] = {
    "ADWIN": (lambda x: drift.ADWIN(delta=x), 0.9, 1e-9),
    "Page-Hinkley": (lambda x: drift.PageHinkley(threshold=x, mode="up"), 1.0, 1000.0),
}
"""How each is made from its setting, and the settings at which it alarms most and least."""


def first_alarm(detector: Any, stream: NDArray[np.uint8]) -> int:
    """Event, from 1, at which it first alarms; 0 for none."""
    for i, value in enumerate(stream.tolist(), start=1):
        detector.update(value)
        if detector.drift_detected:
            return i
    return 0


def run_length(make: Make, setting: float, null: NDArray[np.uint8]) -> float:
    """Events over alarms, each stream until its first."""
    alarms = [first_alarm(make(setting), stream) for stream in null]
    return sum(alarm or null.shape[1] for alarm in alarms) / max(sum(alarm > 0 for alarm in alarms), 0.5)


def tuned(make: Make, most: float, least: float, null: NDArray[np.uint8], wanted: float) -> float:
    """The setting that alarms as often as wanted, never more often."""
    for _ in range(STEPS):
        middle = math.exp((math.log(most) + math.log(least)) / 2)
        if run_length(make, middle, null) >= wanted:
            least = middle
        else:
            most = middle
    return least


def main(path: str, wanted: float) -> None:
    """See the module."""
    with np.load(path) as file:
        null, cases = file["null"], {name: file[name] for name in file.files if name != "null"}
    found: dict[str, Any] = {}
    for name, (make, most, least) in DETECTORS.items():
        setting = tuned(make, most, least, null, wanted)
        alarms = {case: [first_alarm(make(setting), stream) for stream in rows] for case, rows in cases.items()}
        found[name] = {"setting": setting, "run length": run_length(make, setting, null), "alarms": alarms}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
