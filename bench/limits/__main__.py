"""`python -m bench.limits cost`: what limits cost.

Exit status: 0 all goals are met, 1 one is missed, 2 the words are wrong, 3 it could not be run.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from bench.limits import cost
from bench.speed import conditions, procfs
from bench.speed.launch import CannotRun
from bench.speed.sections import CLIENT_CORE, TARGET_CORE

HOLDS, MISSED, CANNOT_RUN = 0, 1, 3
CORES: Final = (TARGET_CORE, CLIENT_CORE)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser("python -m bench.limits", description="What limits cost, and whether they hold.")
    verbs = parsed.add_subparsers(dest="verb", required=True)
    costs = verbs.add_parser("cost", help="µs of a worker for reserve and settle; a minute on a quiet machine")
    costs.add_argument("--requests", type=int, default=20_000, help="in each repeat of each figure (20,000)")
    costs.add_argument("--repeats", type=int, default=5, help="repeats, each of which visits every figure (5)")
    costs.add_argument("--out", type=Path, metavar="DIR", help="where cost.md and cost.json go (nowhere)")
    return parsed


def tell(words: str) -> None:
    """What is being done, for who waits."""
    print(f"… {words}", file=sys.stderr)


def run_cost(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measure, print, write."""
    found = conditions.gather(arguments, "bench.limits")
    with procfs.pinned(TARGET_CORE):
        figures = cost.measure(options.requests, options.repeats, tell, cores=CORES)
    found["load after"] = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    report = cost.markdown(figures, found)
    print(report)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        raw = {"conditions": found, "figures": [figure.summary() for figure in figures]}
        (options.out / "cost.json").write_text(json.dumps(raw, indent=1) + "\n")
        (options.out / "cost.md").write_text(report)
    return MISSED if cost.misses(figures) else HOLDS


def _end_on_sigterm(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parsed = parser()
    options = parsed.parse_args(arguments)
    if options.requests < 1 or options.repeats < 1:
        parsed.error("--requests and --repeats must be above zero")
    signal.signal(signal.SIGTERM, _end_on_sigterm)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_cost(options, arguments)
    except CannotRun as problem:
        print(f"The bench cannot run: {problem}", file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("\nstopped; nothing written", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
