"""One connection to the store: the calls of one turn of the loop leave as one write, answers come back in order.

Models a queue of turns. A turn is what was called between two visits of the loop to the network: it is written at once,
and its calls have one deadline. Replies belong to the oldest call without one.

Invariants: every call is answered once: by its reply, as late, or as lost with the connection. A call given up as late
keeps its place, for its reply will still come. A turn is late only if the network was looked at after its deadline: a
loop that was busy must not blame the store. Without a byte for STALLED_S while replies are due, the connection is cut.
At most MAX_DUE calls should wait for replies; who sends looks at `due`.

Left out: what the bytes mean (`scripts.py`), whether the store is asked (`breaker.py`), reconnecting (`store.py`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from gateway.limiter.engine import Reason, Unavailable
from gateway.limiter.resp import Parser, ProtocolViolation, ReplyError

MAX_DUE: Final = 20_000
STALLED_S: Final = 1.0
SECOND_LOOK_S: Final = 0.001

# Who waits, what makes a value of the reply, the bytes, and whether they are sent for the second time.
Call = tuple[asyncio.Future[Any], Callable[[Any], Any], bytes, bool]


class Owner(Protocol):
    """Who is told how the wire fares."""

    def on_answers(self, calls: int) -> None:
        """So many calls have been answered in time."""

    def on_late(self, calls: int) -> None:
        """So many calls have been given up as late."""

    def on_refused(self, wire: "Wire", call: Call, error: ReplyError) -> None:
        """The store answered a call with an error; the owner answers whoever waits."""

    def on_lost(self, wire: "Wire", why: str) -> None:
        """The connection is gone, and all that waited have been told."""


class _Turn:
    """Calls that were written together, and which of them has the next reply."""

    __slots__ = ("calls", "deadline_s", "doubted", "late", "next")

    def __init__(self, calls: list[Call], deadline_s: float) -> None:
        self.calls = calls
        self.deadline_s = deadline_s
        self.next = 0
        self.doubted = False
        self.late = False


class Wire(asyncio.Protocol):
    """A connection; `send` may be called between connection_made and connection_lost."""

    def __init__(self, owner: Owner, *, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.due = 0  # calls without a reply
        self.gone = asyncio.Event()  # connection_lost has been called
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._parser = Parser()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[Call] = []
        self._turns: deque[_Turn] = deque()
        self._looking: asyncio.TimerHandle | None = None
        self._heard_s = 0.0
        self._why = ""

    @property
    def open(self) -> bool:
        """Whether calls can be sent."""
        return self._transport is not None

    def send(self, call: Call) -> None:
        """Write a call at the end of this turn of the loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(call)
        self.due += 1

    def hurry(self, deadline_s: float) -> None:
        """Have this deadline for the calls from now on."""
        self.deadline_s = deadline_s
        if self._looking is not None:  # it may have been set for a much later time
            self._looking.cancel()
            self._look()

    def close(self, why: str = "closed by us") -> None:
        """Cut the connection; whoever waits is told."""
        if self._transport is not None:
            self._why = self._why or why
            self._transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer those whose replies are whole."""
        self._heard_s = time.monotonic()
        try:
            answered = self._answer(self._parser.feed(data))
        except ProtocolViolation as error:
            self.close(f"it does not speak as a store does: {error}")
            return
        if answered:
            self._owner.on_answers(answered)

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everyone who waits."""
        self._transport = None
        if self._looking is not None:
            self._looking.cancel()
        why = self._why or (str(error) if error else "closed by the store")
        for turn in self._turns:
            for call in turn.calls[turn.next :]:
                fail(call[0], Unavailable(Reason.LOST, why))
        for call in self._unsent:
            fail(call[0], Unavailable(Reason.LOST, why))
        self._turns.clear()
        self._unsent.clear()
        self.due = 0
        self.gone.set()
        self._owner.on_lost(self, why)

    # --- replies ----------------------------------------------------------------------------------------------------

    def _answer(self, replies: list[object]) -> int:
        """Give each reply to the call it belongs to; returns how many were still waited for."""
        at = answered = 0
        while at < len(replies):
            if not self._turns:
                raise ProtocolViolation("a reply nobody asked for")
            turn = self._turns[0]
            now = replies[at : at + len(turn.calls) - turn.next]
            answered += self._answer_turn(turn, now)
            self.due -= len(now)
            at += len(now)
            if turn.next == len(turn.calls):
                self._turns.popleft()
        return answered

    def _answer_turn(self, turn: _Turn, replies: list[object]) -> int:
        answered = 0
        for call, reply in zip(turn.calls[turn.next :], replies, strict=False):
            turn.next += 1
            waiter, decode, _, _ = call
            if type(reply) is ReplyError:
                self._owner.on_refused(self, call, reply)
            elif not waiter.done():
                try:
                    waiter.set_result(decode(reply))
                except (ValueError, AttributeError, TypeError) as error:
                    fail(waiter, Unavailable(Reason.LOST, f"an answer made no sense: {error}"))
                    raise ProtocolViolation(f"{str(reply)[:80]!r} is no answer to what was asked") from None
                answered += 1
        return answered

    def _flush(self) -> None:
        calls = self._unsent
        if self._transport is None or not calls:
            return
        self._unsent = []
        now_s = time.monotonic()
        if not self._turns:
            self._heard_s = now_s  # nothing was due: the silence begins now
        self._turns.append(_Turn(calls, now_s + self.deadline_s))
        if self._looking is None:
            self._looking = self._loop.call_later(self.deadline_s, self._look)
        self._transport.write(b"".join([call[2] for call in calls]))

    # --- deadlines --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Give up what is late; a turn is only doubted at first, and given up at a second look."""
        self._looking = None
        now_s = time.monotonic()
        if self._turns and now_s - self._heard_s > STALLED_S:
            self.close(f"silent for {STALLED_S:g} s")
            return
        given_up = 0
        wait_s = self.deadline_s
        for turn in self._turns:
            if turn.deadline_s > now_s:
                wait_s = min(wait_s, turn.deadline_s - now_s)
                break
            if turn.doubted:
                given_up += self._give_up(turn)
            else:
                turn.doubted = True
                wait_s = SECOND_LOOK_S
        if self._turns:
            self._looking = self._loop.call_later(wait_s, self._look)
        if given_up:
            self._owner.on_late(given_up)

    def _give_up(self, turn: _Turn) -> int:
        if turn.late:
            return 0
        turn.late = True
        waiting = [call for call in turn.calls[turn.next :] if not call[0].done()]
        for call in waiting:
            fail(call[0], Unavailable(Reason.LATE, f"no answer within {self.deadline_s * 1000:g} ms"))
        return len(waiting)


def fail(waiter: asyncio.Future[Any], error: Exception) -> None:
    """End a wait with an error, which may go unseen: not everyone who settles waits for the answer."""
    if not waiter.done():
        waiter.set_exception(error)
        waiter.exception()
