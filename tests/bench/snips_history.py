"""A dated history of SNIPS requests in which the world changes twice: four intents, then the three others alone with fields that nobody
knew, then all seven (the shuffled file goes on where the first four were taken out of it).

    python tests/bench/snips_history.py OUT.jsonl [--data FOLDER] [--before 1200] [--after 1600]
    holdfast backtest OUT.jsonl --kind extraction --warmup-share 0.3

Rows are real (the training file, shuffled under a seed); their dates and their order are made: one request every ten minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FIRST = ("BookRestaurant", "GetWeather", "PlayMusic", "RateBook")


def rows(data: Path, before: int, after: int) -> list[dict[str, Any]]:
    """``before`` requests of the first four intents, then ``after`` of what is left, in the order of the shuffled file."""
    lines = [json.loads(line) for line in (data / "snips_slots" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(1).shuffle(lines)
    old = [line for line in lines if line["intent"] in FIRST][:before]
    used = {line["text"] for line in old}
    new = [line for line in lines if line["text"] not in used][:after]
    began = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        {"text": one["text"], "spans": one["slots"], "at": (began + timedelta(minutes=10 * n)).isoformat()}
        for n, one in enumerate(old + new)
    ]


def main() -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--before", type=int, default=1_200)
    parser.add_argument("--after", type=int, default=1_600)
    asked = parser.parse_args()
    found = rows(asked.data, asked.before, asked.after)
    asked.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    print(f"{len(found)} rows, the change after {asked.before}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
