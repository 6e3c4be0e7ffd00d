"""``python -m holdfast.backends.lora.job WORK_FOLDER``: one training in a process of its own, as Ray starts it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Exit code 0 when the order ended with a result, 1 when it failed, 2 when no work folder was named."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m holdfast.backends.lora.job WORK_FOLDER (with order.json in it)\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from holdfast.backends.lora.orders import RESULT, run_order

    work = Path(arguments[0])
    run_order(work)
    return 0 if (work / RESULT).exists() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
