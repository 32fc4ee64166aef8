"""How the programs of the bench begin and end: words that make sense, room for the result, signals, exit statuses.

What can be told to be wrong is told before the first measurement, since a run may take an hour: a figure as it is read,
a folder before anything is started. Each program has its own statuses for what it found; two are everybody's, 2 for
wrong words (argparse's) and CANNOT_RUN.
"""

import argparse
import errno
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.speed.launch import CannotRun, end_on_signals

CANNOT_RUN: Final = 3
LEAST_FREE_BYTES: Final = 100_000_000  # where a result goes; the largest is a tenth of that
MOST: Final = 10**12
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # where logs and the gateway's state go meanwhile (TMPDIR)


def number(least: float, most: float = MOST) -> Callable[[str], float]:
    """For argparse: a number between the two."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {_within(least, most)}")
        return value

    return parse


def count(least: int = 1) -> Callable[[str], int]:
    """For argparse: a whole number, at least that."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= MOST:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole {_within(least, MOST)[2:]}")
        return int(text)

    return parse


def _within(least: float, most: float) -> str:
    return f"a number of at least {least:g}" if most == MOST else f"a number between {least:g} and {most:g}"


def names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """For argparse: some of the known names with commas between, in the order in which they are known."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return tuple(name for name in known if name in chosen)

    return parse


def require_writable(folder: Path) -> None:
    """CannotRun where a result could not be written into `folder`, which need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))  # or not to be seen
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise CannotRun(f"the result is to go to {folder}, and {there} is no folder that may be written to")
    if shutil.disk_usage(there).free < LEAST_FREE_BYTES:
        raise CannotRun(f"the result is to go to {folder}, and its disk is full")


@contextmanager
def writing(folder: Path) -> Generator[None, None, None]:
    """What the block writes goes to `folder`, and that is told; CannotRun when it cannot be written after all."""
    try:
        yield
    except OSError as error:
        raise CannotRun(f"the result could not be written to {folder}: {error}") from error
    print(f"written to {folder}", file=sys.stderr)


def ended(name: str, work: Callable[[], int]) -> int:
    """Do a program's work and return its exit status; what ends it early is said in a line, and undone as it began."""
    end_on_signals()
    try:
        return work()
    except CannotRun as problem:
        return _cannot_run(name, problem)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _cannot_run(name, error)
    except KeyboardInterrupt:
        print(f"\n{name}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT


def _cannot_run(name: str, problem: Exception) -> int:
    print(f"\n{name} cannot run: {problem}", file=sys.stderr)
    return CANNOT_RUN
