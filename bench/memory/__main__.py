"""`python -m bench.memory`: millions of requests through one worker, and whether its memory stays flat.

Exit status: 0 flat, 1 it grows (or answers were wrong, or descriptors were gained), 2 too few requests to tell, 3 it
could not be run.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import program
from bench.memory import drive, judge, report
from bench.memory.drive import Drive, Driven
from bench.memory.judge import Word
from bench.memory.report import Result
from bench.speed import conditions, native, targets
from bench.speed.progress import Progress
from bench.speed.report import fresh_folder
from bench.speed.sections import CLIENT_CORE

FLAT, GROWS, TOO_SHORT = 0, 1, 2
RESULTS: Final = targets.ROOT / "bench" / "results"
REQUESTS: Final = 10_000_000


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser(
        "python -m bench.memory",
        description="Whether memory stays flat over millions of requests: a quarter of an hour.",
    )
    add = parsed.add_argument
    add("--requests", type=program.count(), default=REQUESTS, help=f"how many ({REQUESTS:,})")
    bound = f"MB gained in a million requests that are still flat ({judge.MAX_SLOPE_MB:g})"
    add("--max-slope", type=program.number(1e-6), default=judge.MAX_SLOPE_MB, metavar="MB", help=bound)
    add("--out", type=Path, metavar="DIR", help="folder of the result (bench/results/<date>-<machine>-memory)")
    return parsed


def measure(requests: int, folder: Path) -> Driven:
    """A gateway, asked so often. CannotRun where the disk has no room for its journal."""
    drive.require_room(folder)
    progress = Progress(requests / drive.EXPECTED_RPS)
    with native.upstream(CLIENT_CORE, folder / "upstream.log") as port, drive.gateway(port, folder) as running:
        found = Drive(running, requests, folder, progress).run()
    progress.close()
    return found


def exit_status(result: Result) -> int:
    """What grows comes before what cannot be told."""
    said = result.words.values()
    broken = [finding for finding in result.findings if not finding.holds]
    if Word.GROWS in said or len(broken) > sum(word is Word.TOO_SHORT for word in said):
        return GROWS
    return TOO_SHORT if Word.TOO_SHORT in said else FLAT


def carry_out(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measure, report, write; CannotRun when something is missing."""
    program.require_writable(options.out or RESULTS)
    native.build()
    told = conditions.gather(arguments, "bench.memory")
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        found = measure(options.requests, Path(folder))
    result = Result(found, options.max_slope, told)
    out = options.out or fresh_folder(RESULTS / conditions.folder_name(told["date"], "memory"))
    print(report.markdown(result))
    with program.writing(out):
        report.write(result, out)
    return exit_status(result)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    return program.ended("bench.memory", lambda: carry_out(options, arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
