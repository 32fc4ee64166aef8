"""A monotonic clock that moves when it is told to, for everything that asks `time.monotonic_ns`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from gateway.units import NS_PER_S
from gateway.wheel import Wheel


class Clock:
    """`advance` moves the time and lets a wheel fire what is due then."""

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns()

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float, wheel: Wheel | None = None) -> None:
        """Let time pass in steps that no deadline of a test is shorter than."""
        until_ns = self.now_ns + int(seconds * NS_PER_S)
        while self.now_ns < until_ns:
            self.now_ns = min(until_ns, self.now_ns + NS_PER_S)
            if wheel is not None:
                wheel.advance(self.now_ns)


@contextmanager
def stopped_clock() -> Iterator[Clock]:
    """Stop the clock for a while."""
    clock = Clock()
    with mock.patch.object(time, "monotonic_ns", clock):
        yield clock
