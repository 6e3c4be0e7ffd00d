"""Monitors on real texts: false alarms where nothing changes, and the smallest share of changed rows that is found.

    python tests/bench/bench_input_drift.py [--data FOLDER] [--part NAME ...] [--smoke] [--write]

Texts of Banking77 and CLINC150 under the frozen base model and a head of their own (`real_streams`), 1,000 calibration rows,
reshuffled for every replicate. Part `quiet`: no change, all monitors, labels included, looked at after every event, one false
alarm in 10,000 events allowed; realised over nominal with the exact interval. The other parts each mix one kind of change into
500 events from the first on: how often each detector has alarmed by the 500th. Ours may alarm at every event and has 5% in all
for 500 events; peers look once, at the end, at 5% (the Evidently rule has no level). Parts are kept in a temporary folder and
put together, so that they can be run one by one; seeds are fixed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # noqa: TID251  set for NumPy, before it is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench import real_streams
from tests.bench.bench_false_alarms import joined
from tests.bench.input_peers import PEERS
from tests.bench.real_streams import CALIBRATION, Site, take

from holdfast.domain import monitors, scorers
from holdfast.domain.captures import Capture, Label, LabelledCapture, Prediction
from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.statistics.conformal import ties_of
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.testing.clock import NOON

BUDGET, EVENTS, LONGEST = 10_000, 500, 5_000
OURS = "Holdfast, after every event"
WIDE = "Evidently's rule, 2,000 reference rows"
SHARES = {
    "out of scope": (0.03, 0.05, 0.08, 0.1, 0.2, 0.5),
    "another domain": (0.1, 0.15, 0.2, 0.3, 0.5),
    "typos": (0.1, 0.2, 0.3, 0.5, 1.0),
    "truncation": (0.05, 0.1, 0.15, 0.2, 0.3),
    "label shift": (0.1, 0.2, 0.3, 0.5),
}
RESULTS = Path(__file__).parent / "results" / "input_drift.md"
KEPT = Path(tempfile.gettempdir()) / "holdfast-bench"


def first_alarms(reference: ReferenceWindow, stream: WindowRows, seed: int) -> dict[str, int]:
    """Monitor to the event of its alarm, or 0."""
    fitted, policy = scorers.fit(reference), MonitoringPolicy(run_length_events=BUDGET)
    rows = [_labelled(stream, n, seed) for n in range(len(stream))]
    states = monitors.observe(monitors.start(fitted), fitted, [row.capture for row in rows], policy)
    states = monitors.observe_labels(states, fitted, [row for row in rows if row.label.value], policy)
    return {name: state.detector.alarm_seq for name, state in states.items()}


def _labelled(stream: WindowRows, n: int, seed: int) -> LabelledCapture:
    name, task = CaptureId(f"{seed}-{n}"), TaskName("bench")
    capture = Capture(
        capture_id=name, task=task, text=stream.texts[n], adapter_digest=AdapterDigest("bench"), generation=1, route="champion",
        prediction=Prediction(label=stream.predictions[n], confidence=float(stream.confidences[n])), captured_at=NOON, latency_ms=0.0,
        embedding=stream.embeddings[n].astype(np.float16), slices={"channel": str(int(3 * ties_of([name], 1)[0, 0]))}, seq=n + 1,
    )  # fmt: skip
    return LabelledCapture(
        capture=capture, label=Label(capture_id=name, task=task, value=stream.labels[n] or "", source="bench", labelled_at=NOON)
    )


def quiet(site: Site, seed: int, found: dict[str, Any]) -> None:
    """Add a stream in which nothing changes: the first alarm of any monitor, and which alarmed."""
    reference, chosen = site.draw(np.random.default_rng([11, seed]), LONGEST)
    alarms = first_alarms(reference, take(site.pool, chosen), seed)
    found.setdefault("firsts", []).append(min((at for at in alarms.values() if at), default=0))
    by = found.setdefault("by", dict.fromkeys(scorers.NAMES, 0))
    for name, at in alarms.items():
        by[name] += at > 0


def changed(site: Site, kind: str, share: float, domain_of: dict[str, str], seed: int) -> tuple[ReferenceWindow, WindowRows, WindowRows]:
    """A reference, a stream in which each row is changed with probability ``share``, and 1,000 known rows more for the wide peer."""
    random = np.random.default_rng([13, seed])
    reference, left = site.draw(random, len(site.pool) - CALIBRATION)
    chosen, extra, left = left[:EVENTS], take(site.pool, left[EVENTS : EVENTS + CALIBRATION]), left[EVENTS + CALIBRATION :]
    plain, hit = take(site.pool, chosen), random.random(EVENTS) < share
    if kind == "label shift":  # rows of one of the ten domains take the place of others
        other = take(site.pool, np.resize([i for i in left if domain_of[site.pool.labels[i] or ""] == "banking"], EVENTS))
    elif kind in ("typos", "truncation"):
        other = take(site.foreign[kind], chosen)
    else:
        other = take(site.foreign[kind], random.permutation(len(site.foreign[kind].texts))[:EVENTS])
    both = joined(plain, other)
    return reference, take(both, np.where(hit, np.arange(EVENTS) + EVENTS, np.arange(EVENTS))), extra


def power(site: Site, kind: str, domain_of: dict[str, str], seed: int, found: dict[str, Any]) -> None:
    """Add a stream of each share of changed rows: share to detector to the number of streams in which it alarmed."""
    for share in SHARES.get(kind, (0.0,)):
        counts = found.setdefault(str(share), dict.fromkeys([OURS, *PEERS, WIDE, *scorers.OF_CAPTURES], 0))
        reference, stream, extra = changed(site, kind if share else "typos", share, domain_of, seed)
        alarms = first_alarms(reference, replace(stream, labels=(None,) * EVENTS), seed)
        counts[OURS] += any(alarms.values())
        for name in scorers.OF_CAPTURES:
            counts[name] += alarms[name] > 0
        random = np.random.default_rng([17, seed])
        for name, peer in PEERS.items():
            counts[name] += peer(reference.calibration, stream, random)
        counts[WIDE] += PEERS["Evidently's rule"](joined(reference.calibration, extra), stream, random)


def quiet_lines(name: str, found: dict[str, Any]) -> list[str]:
    """Rows of the first table."""
    firsts, lines = np.array(found["firsts"]), []
    for events in (50, 500, LONGEST):
        count, nominal = int(((firsts > 0) & (firsts <= events)).sum()), events / BUDGET
        low, high = (x / nominal for x in stats.binomtest(count, len(firsts)).proportion_ci(0.95, "exact"))
        lines.append(f"| {name} | {events:,} | {count} of {len(firsts)} | {count / len(firsts) / nominal:.2f} ({low:.2f} to {high:.2f}) |")
    return lines


def power_lines(kind: str, found: dict[str, dict[str, int]], replicates: int) -> list[str]:
    """One table: a row per detector, a column per share."""
    shares = list(found)
    heads = [f"{float(share):.0%}" for share in shares]
    lines = [f"### {kind.capitalize()}: alarms in {replicates} streams", "", f"| detector | {' | '.join(heads)} | 90% found at |"]
    lines.append("|---" * (len(shares) + 2) + "|")
    for name in found[shares[0]]:
        counts = [found[share][name] for share in shares]
        enough = [head for head, count in zip(heads, counts, strict=True) if count >= 0.9 * replicates]
        shown = f"of these `{name}`" if name in scorers.NAMES else name
        lines.append(f"| {shown} | {' | '.join(map(str, counts))} | {enough[0] if enough and float(shares[0]) else '–'} |")
    return [*lines, ""]


def composed(parts: dict[str, Any]) -> str:
    """The page of results, of the parts that were run."""
    about = " ".join((__doc__ or "").split("\n\n")[2].split())
    lines = ["# Monitors on real texts", "", f"`python tests/bench/bench_input_drift.py --write`; {about}", "", "## Nothing changes", ""]
    lines += ["| texts | events | streams with an alarm | realised / nominal (95% interval) |", "|---|---|---|---|"]
    for name in ("CLINC150", "Banking77"):
        if f"quiet {name}" in parts:
            lines += quiet_lines(name, parts[f"quiet {name}"]["found"])
    for name in ("CLINC150", "Banking77"):
        if f"quiet {name}" in parts:
            by = ", ".join(f"{monitor} {count}" for monitor, count in parts[f"quiet {name}"]["found"]["by"].items())
            lines += ["", f"Alarms by monitor within {LONGEST:,} events of {name}: {by}."]
    lines += ["", f"## Changes in CLINC150, {EVENTS} events", ""]
    for kind in ("nothing", *SHARES):
        if kind in parts:
            lines += power_lines(kind, parts[kind]["found"], parts[kind]["replicates"])
    seconds = sum(part["seconds"] for part in parts.values())
    return "\n".join([*lines, f"{seconds:,.0f} CPU seconds in all, one thread a part."]) + "\n"


def main() -> int:
    """Run the parts asked for, keep them, and print the page; 1 when the interval of a quiet stream lies above its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["quiet CLINC150", "quiet Banking77", "nothing", *SHARES]
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--part", nargs="*", default=names, choices=names)
    parser.add_argument("--replicates", type=int, default=0, help="Streams of a cell; 0: 100 where nothing changes, 40 of a change.")
    parser.add_argument("--smoke", action="store_true", help="Two streams a cell, nothing kept.")
    parser.add_argument("--write", action="store_true", help=f"Write {RESULTS.name}.")
    asked = parser.parse_args()
    sites = {site.name: site for site in (real_streams.clinc150(asked.data), real_streams.banking77(asked.data)) if site}
    if "CLINC150" not in sites:
        print(f"skipped: no CLINC150 in {asked.data}; give its folder's parent with --data")
        return 0
    domain_of, parts = real_streams.domains(asked.data), dict[str, Any]()
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in asked.part:
        if name.startswith("quiet") and name.split()[1] not in sites:
            continue
        begun = time.process_time()
        found: dict[str, Any] = {}
        for seed in range(2 if asked.smoke else asked.replicates or (100 if name.startswith("quiet") or name == "nothing" else 40)):
            if name.startswith("quiet"):
                quiet(sites[name.split()[1]], seed, found)
            else:
                power(sites["CLINC150"], name, domain_of, seed, found)
            parts[name] = {"found": found, "replicates": seed + 1, "seconds": time.process_time() - begun}
            if not asked.smoke:  # kept as it goes: what is stopped leaves what it has
                (KEPT / f"input_drift {name}.json").write_text(json.dumps(parts[name]))
    if not asked.smoke:
        parts = {name: json.loads(p.read_text()) for name in names if (p := KEPT / f"input_drift {name}.json").exists()}
    page = composed(parts)
    print(page)
    if asked.write and not asked.smoke:
        RESULTS.write_text(page)
    return int(any("| CLINC150 |" in line and float(line.split("(")[1].split()[0]) > 1 for line in page.splitlines()))


if __name__ == "__main__":
    sys.exit(main())
