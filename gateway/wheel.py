"""Deadlines for many things at once: a timing wheel with one timer per worker, not one per request.

Models deadlines in ticks of 50 ms. A member waits in the slot of its next deadline; when the slot's time comes,
`on_deadline(now_ns)` looks at what really happened and returns the next deadline, or 0 for none. A stream of
chunks therefore costs nothing here: it only notes when its last chunk came.

Invariants: a member stands in at most one slot, named by its `wheel_tick` (0: in none); a deadline fires late by
at most one tick plus the loop's own delay, never early. Left out: precision under 50 ms, which no timeout needs.
Single-threaded: everything happens on one loop.
"""

import asyncio
import time
from collections import defaultdict
from typing import Final, Protocol

from gateway.units import NS_PER_S

TICK_NS: Final = 50_000_000


class Member(Protocol):
    """Something with deadlines; `wheel_tick` belongs to the wheel."""

    wheel_tick: int

    def on_deadline(self, now_ns: int) -> int:
        """The time has come; returns the next deadline on the monotonic clock, 0 for none."""


class Wheel:
    """All deadlines of one worker."""

    loop: asyncio.AbstractEventLoop  # once started

    def __init__(self) -> None:
        self._slots: defaultdict[int, set[Member]] = defaultdict(set)
        self._done = time.monotonic_ns() // TICK_NS
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tick on the running loop."""
        self.loop = asyncio.get_running_loop()
        self._timer = self.loop.call_later(TICK_NS / NS_PER_S, self._tick)

    def stop(self) -> None:
        """Stop ticking; members stay where they are and fire no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def arm(self, member: Member, deadline_ns: int) -> None:
        """Call `member.on_deadline` at the first tick not before `deadline_ns`; replaces its earlier deadline."""
        tick = deadline_ns // TICK_NS + 1
        if tick <= self._done:
            tick = self._done + 1
        if member.wheel_tick == tick:
            return
        if member.wheel_tick:
            self.disarm(member)
        member.wheel_tick = tick
        self._slots[tick].add(member)

    def disarm(self, member: Member) -> None:
        """Forget the member's deadline; nothing happens when it has none."""
        tick = member.wheel_tick
        if tick:
            member.wheel_tick = 0
            slot = self._slots.get(tick)  # None: its time has come, and others of it are being told
            if slot is not None:
                slot.discard(member)

    def advance(self, now_ns: int) -> None:
        """Fire everything due at `now_ns`."""
        until = now_ns // TICK_NS
        if until - self._done > len(self._slots):  # after a long stop, visit the slots there are, not every tick
            due = sorted(tick for tick in self._slots if tick <= until)
        else:
            due = [tick for tick in range(self._done + 1, until + 1) if tick in self._slots]
        self._done = max(self._done, until)
        for tick in due:
            for member in tuple(self._slots.pop(tick)):
                if member.wheel_tick == tick:
                    member.wheel_tick = 0
                    again_ns = member.on_deadline(now_ns)
                    if again_ns:
                        self.arm(member, again_ns)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_NS / NS_PER_S, self._tick)
        self.advance(time.monotonic_ns())
