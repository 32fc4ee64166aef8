"""Samples as py-spy writes them (`frame;frame;frame count`), and whose they are.

A sample belongs to the module and the function of its deepest frame inside gateway/: what a library or a C function
does is done for who called it. Samples without such a frame are the event loop's: polling, reading and writing that
nobody asked for. To which stage of a request's journey a sample belongs, `journey` says.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

LOOP: Final = "event loop, for all of them"
SERVING: Final = "run_worker"
"""The function that everything in the serving thread is called from."""
_FRAME: Final = re.compile(r"^(?P<function>.*) \((?P<path>[^()]*?)(?::\d+)?\)$")
_GATEWAY: Final = re.compile(r"(?:^|/)gateway/(?P<inside>.+\.py)$")


@dataclass(frozen=True)
class Frame:
    """A function, and the file it is in; `inside` is the path below gateway/, empty for anything else."""

    function: str
    path: str

    @property
    def inside(self) -> str:
        """Where in the gateway it is."""
        found = _GATEWAY.search(self.path)
        return found["inside"] if found else ""

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.function} ({self.inside or self.path.rpartition('/')[2]})"


@dataclass(frozen=True)
class Stack:
    """Frames from the outermost in, and how many samples had them."""

    frames: Sequence[Frame]
    count: int


def parse(text: str) -> list[Stack]:
    """Every line of py-spy's raw format; lines without a count are refused with ValueError."""
    stacks = []
    for line in text.splitlines():
        words, _, count = line.rpartition(" ")
        stacks.append(Stack([_frame(word) for word in words.split(";")], int(count)))
    return stacks


def serving(found: Iterable[Stack]) -> list[Stack]:
    """Those of the thread that serves."""
    return [stack for stack in found if any(frame.function == SERVING for frame in stack.frames)]


def _frame(word: str) -> Frame:
    found = _FRAME.match(word)
    return Frame(found["function"], found["path"]) if found else Frame(word, "")


def owner(stack: Stack) -> Frame | None:
    """The deepest frame of the gateway's own."""
    return next((frame for frame in reversed(stack.frames) if frame.inside), None)


def module(stack: Stack) -> str:
    """To which module."""
    own = owner(stack)
    return own.inside if own else LOOP


def function(stack: Stack) -> str:
    """To which function."""
    own = owner(stack)
    return own.label if own else LOOP


def shares(stacks: Iterable[Stack], of: Callable[[Stack], str]) -> list[tuple[str, float]]:
    """Shares of all samples by what `of` says, the largest first; empty without samples."""
    counts = Counter[str]()
    for stack in stacks:
        counts[of(stack)] += stack.count
    total = sum(counts.values())
    return [(name, count / total) for name, count in counts.most_common()]
