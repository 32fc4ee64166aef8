"""Control's work in small steps with pauses between them, so that nobody on the same core waits for it for long.

Control reads every line that the workers write: to sign it, to count what was used, to export it. On a core that it
shares with a worker each moment of that is a moment in which a request waits. A kernel that preempts lazily, as Linux
does by default since 6.13, lets a process compute on until it waits for something or until the next tick, 4 ms later,
whatever its nice value: then the requests of those milliseconds are the slowest there are. So who has many lines to
look at says `step` every few of them; a step that has lasted for STEP_S is followed by a pause, in which the kernel
runs whoever is waiting.

That bounds the work to a third of a core for each thread, some 60,000 lines a second for a reader. Who is far behind
says so (`hurried`), and works without a pause until it is not: a journal that is not read is the worse trouble. Used by
what runs beside workers; commands have no reason to be polite.

Invariants: a pace belongs to one thread at a time. Left out: calls that take longer than a step (a transaction, a
signature), and how far behind is too far: who works knows.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

STEP_S: Final = 0.00015  # what comes on top is the last few lines or the last piece, up to twice as much
PAUSE_S: Final = 0.0007
FEW: Final = 64  # lines between two looks at the clock, where each takes a microsecond


class Pace:
    """One piece of work's. `hurried`: there is no time for pauses."""

    def __init__(
        self,
        *,
        hurried: bool = False,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.hurried = hurried
        self._now_s = now_s
        self._sleep = sleep
        self._began_s = now_s()

    def step(self) -> None:
        """Some of the work is done: pause where this step has lasted long enough."""
        if not self.hurried and self._now_s() - self._began_s >= STEP_S:
            self._sleep(PAUSE_S)
            self._began_s = self._now_s()

    def over(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """All items, a few at a time, a step each."""
        for first in range(0, len(items), FEW):
            yield items[first : first + FEW]
            self.step()
