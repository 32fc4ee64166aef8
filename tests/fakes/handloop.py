"""An event loop that is turned by hand: callbacks run when the test says so, and time passes when the test says so.

What is done elsewhere, by a thread or by the kernel, is done when the test says so, too, one thing after the other.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")
Callback = tuple[Callable[..., object], tuple[Any, ...]]


class HandHandle:
    """A timer that may be called off."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """What the code under test uses of a loop."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._ready = deque[Callback]()
        self._elsewhere = deque[Callable[[], object]]()
        self._timers: list[tuple[float, int, HandHandle, Callback]] = []
        self._count = itertools.count()

    def real(self) -> asyncio.AbstractEventLoop:
        """Itself, for whoever asks for a loop by its type."""
        return cast("asyncio.AbstractEventLoop", self)

    def get_debug(self) -> bool:
        return False

    def call_soon(self, what: Callable[..., object], *args: object, context: object = None) -> None:
        del context
        self._ready.append((what, args))

    call_soon_threadsafe = call_soon

    def call_later(self, delay_s: float, what: Callable[..., object], *args: object) -> HandHandle:
        handle = HandHandle()
        heapq.heappush(self._timers, (self.now_s + delay_s, next(self._count), handle, (what, args)))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self.real())

    def run_in_executor(self, _executor: object, what: Callable[[], object]) -> "asyncio.Future[Any]":
        future = self.create_future()
        self.begin_elsewhere(lambda: _outcome(future, what))
        return future

    def begin_elsewhere(self, what: Callable[[], object]) -> None:
        """Something goes on beside the loop, until `elsewhere` ends it."""
        self._elsewhere.append(what)

    def elsewhere(self) -> bool:
        """Do the first thing that goes on elsewhere, and let the loop not hear of it yet; False when there is none."""
        if not self._elsewhere:
            return False
        self._elsewhere.popleft()()
        return True

    def turn(self) -> None:
        """Run what is ready now, and not what that makes ready."""
        for _ in range(len(self._ready)):
            what, args = self._ready.popleft()
            what(*args)

    def settle(self) -> None:
        """Turn until nothing is ready."""
        while self._ready:
            self.turn()

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due runs at its time."""
        until_s = self.now_s + seconds
        self.settle()
        while self._timers and self._timers[0][0] <= until_s:
            self.now_s, _, handle, (what, args) = heapq.heappop(self._timers)
            if not handle.cancelled:
                what(*args)
            self.settle()
        self.now_s = until_s

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that waits for nothing but the loop and what goes on elsewhere."""
        asyncio.events._set_running_loop(self.real())
        try:
            while True:
                awaited = work.send(None)
                while not awaited.done():
                    assert self._ready or self.elsewhere(), "it waits for something"
                    self.settle()
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            asyncio.events._set_running_loop(None)


def _outcome(future: "asyncio.Future[Any]", what: Callable[[], object]) -> None:
    try:
        future.set_result(what())
    except Exception as error:  # noqa: BLE001 - as an executor does
        future.set_exception(error)
