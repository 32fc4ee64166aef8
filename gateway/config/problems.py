"""What is wrong with a config, said so that it can be put right: where, what, and the fix.

A problem has a place (file, line, column; or the `--set` that caused it), the path of the setting, the value where
it may be shown, and a sentence with the fix. They are collected and raised together: an operator repairs a file
once, not once per mistake. Secrets never enter a problem; whoever reports one leaves the value out.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Final

import msgspec

Path = tuple[str | int, ...]
"""Where a setting stands: names of mappings and positions in lists, from the top."""

COMMAND_LINE: Final = "--set"
SHOWN_CHARACTERS: Final = 60
_BARE: Final = re.compile(r"[^\s.\[\]\"=]+\Z")


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A position in a source: lines and columns count from 1; line 0 is the source as a whole."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Problem(msgspec.Struct, frozen=True):
    """One thing to put right. `shown` is the value as written, "" where there is none or it must not be seen."""

    place: Place
    path: Path
    message: str
    shown: str = ""

    def __str__(self) -> str:
        where = f"{self.place}: {dotted(self.path)}" if self.path else str(self.place)
        return f"{where}: {self.message}{f' (is {self.shown})' if self.shown else ''}"


class ConfigProblems(Exception):
    """A config that cannot be used; `problems` has every reason, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Final = tuple(sorted(problems, key=_reading_order))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def dotted(path: Path) -> str:
    """The path as `--set` takes it: `models."gpt-4.1".targets[0].provider`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _BARE.match(step) else f'"{printable(step)}"')
    return text


def printable(text: str) -> str:
    """The text on one line, cut to a readable length, with nothing in it that a terminal would act upon."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or nothing when no known name is close."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _reading_order(problem: Problem) -> tuple[bool, int, int, str]:
    return (problem.place.source == COMMAND_LINE, problem.place.line, problem.place.column, dotted(problem.path))
