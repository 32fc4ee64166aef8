"""An answer and its behaviour, played onto a transport: pacing, framing, and the faults of a connection.

One Player per answer, no task: every wait is a `loop.call_later`, so ten thousand paced streams cost ten thousand
timers. Pacing follows a schedule (start + N × gap), not a chain of sleeps, so it does not drift. Nothing is
produced ahead of the peer: when the transport asks for a pause, the event iterator simply is not advanced.

A Player ends exactly once, telling its owner whether the connection may carry another request. The faults end
otherwise: a reset and a truncation close the connection, a stall waits for the peer to leave.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING

from bench.sim.shape import events_of, reached
from bench.sim.wire import Event, Headers, Kind, Reply, head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.sim.faults import Behaviour
    from bench.sim.log import Entry

TURN_BYTES = 64 * 1024  # at most this much in one turn of the loop, so that one fast stream starves nobody
RESET_DELAY_S = 0.02  # what was written is let out of the kernel before the RST overtakes it
RANDOM_SPLIT_BYTES = 40
LINGER_ZERO = struct.pack("ii", 1, 0)


class Pipe:
    """Bytes to the peer: as the transport takes them, or in pieces of a chosen size, one per turn of the loop.

    While `blocked`, a writer should wait for `on_ready`; what it writes all the same is kept in order.
    """

    def __init__(self, transport: asyncio.Transport, split: int | str | None, on_ready: Callable[[], None]) -> None:
        self._transport, self._split, self._on_ready = transport, split, on_ready
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._paused = False
        self.bytes_sent = 0

    @property
    def blocked(self) -> bool:
        """Whether bytes are waiting for a turn, or the peer is not reading."""
        return self._paused or bool(self._pieces)

    def write(self, data: bytes) -> None:
        """Send, or queue behind what is queued. A connection that is closing swallows it."""
        if not data or self._transport.is_closing():
            return
        self.bytes_sent += len(data)
        if self._split is None:
            self._transport.write(data)
            return
        idle = not self._pieces
        self._pieces.extend(self._cut(data))
        if idle:
            self._next()

    def pause(self) -> None:
        """The transport's buffer is full."""
        self._paused = True

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self._paused = False
        if self._pieces:
            self._next()
        else:
            self._on_ready()

    def _cut(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            size = self._split if isinstance(self._split, int) else random.randint(1, RANDOM_SPLIT_BYTES)
            yield data[at : at + size]
            at += size

    def _next(self) -> None:
        """One piece now, the next in another turn: two writes in one turn would leave in one send."""
        if self._paused or not self._pieces or self._transport.is_closing():
            return
        self._transport.write(self._pieces[0])
        self._loop.call_soon(self._sent)

    def _sent(self) -> None:
        self._pieces.popleft()
        if self._pieces:
            self._next()
        elif not self._paused:
            self._on_ready()


class Player:
    """Plays one reply. `on_done(keep)` is called once, unless the connection ends first (then call `abandon`)."""

    def __init__(
        self,
        transport: asyncio.Transport,
        reply: Reply,
        behaviour: Behaviour,
        entry: Entry,
        on_done: Callable[[bool], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport, self._reply, self._behaviour, self._entry = transport, reply, behaviour, entry
        self._on_done = on_done
        self.pipe = Pipe(transport, behaviour.split, self._ready)
        self._resume: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._events: Iterator[Event] = iter(())
        self._pending: Event | None = None
        self._chunked = self._keep = False
        self._content_sent = 0
        self._due_s = 0.0
        self._thought = False

    def start(self) -> None:
        """Begin; returns at once, having written what can be written without waiting."""
        if not self._struck_before():
            self._after(self._behaviour.ttft_ms, self._open)

    def abandon(self) -> None:
        """The peer is gone: stop every timer and say so in the log."""
        if self._timer is not None:
            self._timer.cancel()
        self._resume = None
        self._finish("aborted")

    def _after(self, delay_ms: float, then: Callable[[], None]) -> None:
        if delay_ms > 0:
            self._timer = self._loop.call_later(delay_ms / 1000, then)
        else:
            then()

    def _when_writable(self, then: Callable[[], None]) -> None:
        if self.pipe.blocked:
            self._resume = then
        else:
            then()

    def _ready(self) -> None:
        then, self._resume = self._resume, None
        if then is not None:
            then()

    def _struck_before(self) -> bool:
        behaviour = self._behaviour
        if behaviour.stall == "before":
            return True
        if behaviour.reset == "before":
            self._reset()
        elif behaviour.truncate == "before":
            self._close()
        return bool(self._entry.ended)

    def _open(self) -> None:
        behaviour = self._behaviour
        if behaviour.garbage == "head":
            self.pipe.write(b"\x16\x03this is no status line\r\n\r\n")
            self._when_writable(self._close)
            return
        self._events, length = self._body()
        if self._reply.raw:
            self._when_writable(self._begin)
            return
        if behaviour.interim is not None:
            self.pipe.write(head(behaviour.interim, [("link", "</sim>; rel=preload")]))
        opening = head(self._reply.status, self._framed(length), http10=behaviour.http10)
        if behaviour.slow_headers_ms:
            self._trickle(opening, 0, self._loop.time())
        else:
            self.pipe.write(opening)
            self._when_writable(self._begin)

    def _body(self) -> tuple[Iterator[Event], int | None]:
        """The events, and their length where it has to be known before the first."""
        events = events_of(self._reply, self._behaviour)
        whole = isinstance(self._reply.body, bytes) and not self._behaviour.chunked
        if not (whole or self._behaviour.content_length_lie):
            return events, None
        kept = list(events)
        return iter(kept), sum(len(data) for _, data in kept)

    def _framed(self, length: int | None) -> Headers:
        """The reply's headers with those of its framing; also decides chunking and keep-alive."""
        behaviour, headers = self._behaviour, list(self._reply.headers)
        self._chunked = (length is None and not behaviour.http10) or behaviour.garbage == "chunk"
        if self._chunked:
            headers.append(("transfer-encoding", "chunked"))
        elif length is not None:
            headers.append(("content-length", str(length + behaviour.content_length_lie)))
        if behaviour.gzip:
            headers.append(("content-encoding", "gzip"))
        self._keep = not (behaviour.close or behaviour.http10 or behaviour.content_length_lie)
        headers.append(("connection", "keep-alive" if self._keep else "close"))
        return headers

    def _trickle(self, opening: bytes, sent: int, started_s: float) -> None:
        """The head, byte by byte, as many as are due by now: timers are no finer than a millisecond."""
        gap_s = self._behaviour.slow_headers_ms / 1000 / len(opening)
        due = min(len(opening), int((self._loop.time() - started_s) / gap_s) + 1)
        self.pipe.write(opening[sent:due])
        if due == len(opening):
            self._when_writable(self._begin)
        else:
            self._timer = self._loop.call_later(max(gap_s, 0.001), self._trickle, opening, due, started_s)

    def _begin(self) -> None:
        if self._struck():
            return
        if self._behaviour.garbage == "chunk":
            self.pipe.write(b"zz-not-a-size\r\nhello\r\n")
            self._when_writable(self._close)
            return
        self._after(self._behaviour.silence_ms, self._flow)

    def _flow(self) -> None:
        """Send events until one has to wait: for its time, for the peer, for a turn of its own."""
        self._due_s = max(self._due_s, self._loop.time())
        budget = TURN_BYTES
        while not self._transport.is_closing():
            if self.pipe.blocked:
                self._resume = self._flow
                return
            event = self._pending or next(self._events, None)
            if event is None:
                self._end()
                return
            self._pending = event
            if self._must_think(event):
                return
            self._send(event)
            if self._struck() or self._paced():
                return
            budget -= len(event.data)
            if budget < 0:
                self._timer = self._loop.call_soon(self._flow)
                return

    def _must_think(self, event: Event) -> bool:
        if self._thought or not self._behaviour.think_ms or event.kind is Kind.OPENING:
            return False
        self._thought = True
        self._after(self._behaviour.think_ms, self._flow)
        return True

    def _send(self, event: Event) -> None:
        self._pending = None
        data = event.data
        self.pipe.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data)
        self._entry.events_sent += 1
        self._entry.bytes_sent = self.pipe.bytes_sent
        self._content_sent += event.kind is Kind.CONTENT

    def _paced(self) -> bool:
        if not self._behaviour.token_ms:
            return False
        self._due_s += self._behaviour.token_ms / 1000
        delay_s = self._due_s - self._loop.time()
        if delay_s <= 0:
            return False
        self._timer = self._loop.call_later(delay_s, self._flow)
        return True

    def _struck(self) -> bool:
        """Whether a fault of the connection takes place here. Stalling is: nothing more happens."""
        behaviour, at = self._behaviour, (self._entry.events_sent, self._content_sent)
        if reached(behaviour.reset, *at):
            self._when_writable(lambda: self._after(RESET_DELAY_S * 1000, self._reset))
        elif reached(behaviour.truncate, *at):
            self._when_writable(self._close)
        else:
            return reached(behaviour.stall, *at)
        return True

    def _end(self) -> None:
        if self._chunked:
            self.pipe.write(b"0\r\n\r\n")
        if self._keep:
            self._when_writable(self._complete)
        else:
            self._when_writable(self._close)

    def _complete(self) -> None:
        self._finish("complete")
        self._on_done(True)  # noqa: FBT003 - the callback's one argument is whether to keep the connection

    def _close(self) -> None:
        self._finish("closed")
        self._transport.close()
        self._on_done(False)  # noqa: FBT003

    def _reset(self) -> None:
        self._finish("reset")
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        self._transport.abort()
        self._on_done(False)  # noqa: FBT003

    def _finish(self, how: str) -> None:
        self._entry.bytes_sent = self.pipe.bytes_sent
        self._entry.finish(how, time.monotonic())  # uvloop's own clock stands still within a turn
