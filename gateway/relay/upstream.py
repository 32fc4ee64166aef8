"""One connection to a provider, and the exchanges that pass over it one after another.

Everything is a callback of the event loop: an exchange on an idle connection makes no task and no future and awaits
nothing. `start` writes the request; the `Sink` hears the answer as it arrives.

Invariants
- At most one sink at a time. A sink hears on_head, then on_body any number of times, then on_end; or on_lost at any
  point instead of the rest; or nothing more, once it called `abort`. Nothing is called from inside `start`, except
  on_writable.
- The answer is handed over before the connection goes back to the pool: on_end comes first, so that nobody can start
  the next exchange on it while this one is being finished.
- A connection is reused only if the answer ended where it said, nothing followed, the request was sent whole and
  written out, and both sides keep alive. Bytes nobody asked for close it and are never delivered.
- A clean end of the connection ends a body of unknown length. Under TLS that takes a close_notify: a bare FIN is no
  `eof_received` there (gateway/tls.py), so a cut stream is a reset (RFC 9112 section 9.8).
- A sink that raises costs its own connection and nothing else; it hears on_lost, whatever it heard before, so that its
  exchange ends at once and not by a time limit.

Fairness: each readable connection has one read (up to 256 KiB in uvloop) a turn of the loop, and each read is one
on_body, so a fast stream cannot starve the others. The loop alone would read on, up to 32 times, for as long as a read
fills its buffer: after such a one the connection rests until the next turn. `pause` acts after the current read.

Left out: time limits (the pump has them), and choosing, opening and keeping connections (`pool.py`).
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from gateway.errors import UpstreamError, UpstreamProtocolError, UpstreamReset
from gateway.relay.answer import AnswerParser, ResponseHead

__all__ = ["Connection", "Home", "ResponseHead", "Sink"]

# Below this a request is joined into one buffer: one write and, under TLS, one record (16 KiB, RFC 8446 section 5.1).
JOIN_BYTES: Final = 16 * 1024

# A read from here on may have filled uvloop's buffer of 256,000 bytes; what TLS makes of one is somewhat less.
FULL_READ_BYTES: Final = 128 * 1024

_log: Final = logging.getLogger("gateway.relay")


class Sink(Protocol):
    """Hears the answer of one exchange. It may call `abort`, `pause` and `resume` from inside any of these."""

    def on_head(self, head: ResponseHead) -> None:
        """The final head; interim 1xx heads are not shown."""

    def on_body(self, data: bytes) -> None:
        """Body bytes of one socket read, without chunk framing; at most one call per read, never empty."""

    def on_end(self) -> None:
        """The body is complete. The connection is no longer the caller's: forget it, do not abort it later."""

    def on_lost(self, error: UpstreamError, *, stale: bool) -> None:
        """The answer will not complete; nothing more is called.

        `stale`: a reused connection died before any byte of this answer, as happens when a provider closes an idle
        connection in the moment it is taken. The request may or may not have been read.
        """

    def on_writable(self, writable: bool) -> None:  # noqa: FBT001 - it is the news itself, not an option
        """False: stop writing the request body; true: go on. Only while the request is open, also inside `write`."""


class Home(Protocol):
    """Where a connection goes back to."""

    def put(self, connection: "Connection") -> None:
        """The exchange ended well: keep the connection, or retire it."""

    def forget(self, connection: "Connection") -> None:
        """The connection is closed."""


class Connection(asyncio.Protocol):
    """A connection to a provider: `start` an exchange on it, hear its sink, and let it go back to the pool by itself.

    `reused`: an exchange went over it before. `request_bytes`: request bytes of this exchange handed to the socket.
    `closing()`: it is closed or about to be. `target_prefix`: what goes before the path in the request line; not empty
    for plain http through a proxy.
    A connection taken from a pool must be started or aborted.
    """

    __slots__ = (
        "_answered",
        "_headed",
        "_home",
        "_parser",
        "_paused",
        "_proxy_header",
        "_resting",
        "_sent",
        "_sink",
        "_transport",
        "closing",
        "request_bytes",
        "retire_at_ns",
        "reused",
        "target_prefix",
        "usable_until_ns",
    )

    _transport: asyncio.Transport
    closing: Callable[[], bool]

    def __init__(
        self, home: Home, *, target_prefix: bytes = b"", proxy_header: bytes = b"", retire_at_ns: int = 0
    ) -> None:
        self._home = home
        self._parser = AnswerParser()
        self._sink: Sink | None = None
        self._answered = False  # a byte of this exchange's answer has arrived
        self._headed = False  # on_head has been called
        self._sent = True  # the request is complete
        self._paused = False
        self._resting = False  # paused, but not by the sink
        self._proxy_header = proxy_header
        self.target_prefix = target_prefix
        self.request_bytes = 0
        self.reused = False
        self.retire_at_ns = retire_at_ns  # the pool's: end of life, and end of life or idleness, whichever is sooner
        self.usable_until_ns = retire_at_ns

    # --- the caller's side ------------------------------------------------------------------------------------------

    def start(
        self, head: bytes, body: bytes, sink: Sink, *, head_request: bool = False, body_follows: bool = False
    ) -> None:
        """Send a request, whose answer `sink` hears.

        `head` is the whole header block with its empty line, `body` what is known of the body, framed as the head
        says; with `body_follows` the rest comes by `write` and then `finish`. `head_request`: the method is HEAD.
        If the connection has died already, the sink hears on_lost on the loop's next turn.
        """
        if self._sink is not None:
            raise RuntimeError("an exchange is already on this connection")
        self._sink = sink
        self._answered = self._headed = False
        self._sent = not body_follows
        if self.closing():  # uvloop raises from write(), inside whoever calls us
            self.request_bytes = 0
            asyncio.get_running_loop().call_soon(self._closed_before_start, sink)
            return
        self._parser.begin(bodiless=head_request)
        if self._proxy_header:
            head = head.replace(b"\r\n", b"\r\n" + self._proxy_header, 1)
        self.request_bytes = len(head) + len(body)
        if len(body) <= JOIN_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def write(self, data: bytes) -> None:
        """Send more of the request body, framed by the caller; dropped when the connection is closing."""
        if self._sink is None or self.closing():
            return
        self.request_bytes += len(data)
        self._transport.write(data)

    def finish(self) -> None:
        """The request body is complete; without this the connection is not used again."""
        self._sent = True

    def pause(self) -> None:
        """Stop reading the answer after the current read; nothing is noticed meanwhile, not even a lost connection."""
        self._resting = False
        if not self._paused and self._sink is not None and not self.closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self.closing():
                self._transport.resume_reading()

    def abort(self) -> None:
        """Give the exchange up: close at once, never reuse, call the sink no more. Safe at any time, and twice."""
        self._sink = None
        self._transport.abort()

    @property
    def ended(self) -> bool:
        """Whether the exchange that was started is over; of meaning to its own caller only, up to and in on_end."""
        return self._sink is None

    # --- the pool's side --------------------------------------------------------------------------------------------

    def retire(self) -> None:
        """Close an idle connection politely, with TLS's goodbye; if the provider is not reading, at once."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()

    # --- the event loop's side --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and TLS is up."""
        self._transport = transport  # type: ignore[assignment] # uvloop's transports are duck-typed
        self.closing = transport.is_closing  # the bound C method: asked before each reuse and each write

    def data_received(self, data: bytes) -> None:
        """One socket read: parse it, then tell the sink what it brought."""
        sink = self._sink
        if sink is None:
            self._unasked(data)
            return
        self._answered = True
        parser = self._parser
        fault = parser.feed(data)
        try:
            if not self._headed and parser.head is not None:
                self._headed = True
                sink.on_head(parser.head)
            if parser.pieces and self._sink is sink:
                sink.on_body(parser.take())
            if self._sink is not sink:  # it aborted
                return
            if parser.ended:
                self._end(sink, clean=not fault)
            elif fault:
                message = "The provider's answer is not valid HTTP/1.1."
                self._lose(sink, UpstreamProtocolError(message, detail=fault))
            elif len(data) >= FULL_READ_BYTES and not self._paused:
                self._rest()
        except Exception:  # noqa: BLE001 - as in _guarded, without its call
            self._sink_raised(sink)

    def eof_received(self) -> bool:
        """The provider ended its side properly."""
        sink = self._sink
        if sink is not None:
            if self._parser.ends_at_eof:
                self._guarded(sink, partial(self._end, sink, clean=False))
            else:
                self._lose(sink, UpstreamReset(self._cut_off()))
        return False  # nobody half-closes towards us on purpose: close

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        sink = self._sink
        self._home.forget(self)
        self._parser.drop()
        if sink is None:
            return
        message = self._cut_off()
        if isinstance(exc, ssl.SSLError) and not self._answered:  # TLS 1.3 learns of a refused certificate only here
            message = "The provider ended TLS: if it asks for a client certificate, set `client_cert` and `client_key`."
        self._lose(sink, UpstreamReset(message, detail=f"{type(exc).__name__}: {exc}" if exc else ""))

    def pause_writing(self) -> None:
        """The socket's write buffer is full."""
        self._tell_writable(writable=False)

    def resume_writing(self) -> None:
        """The socket's write buffer has drained."""
        self._tell_writable(writable=True)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        """Read on in the next turn of the loop, unless the sink pauses until then."""
        self.pause()
        self._resting = True
        asyncio.get_running_loop().call_soon(self._rested)

    def _rested(self) -> None:
        if self._resting:
            self._resting = False
            self.resume()

    def _end(self, sink: Sink, *, clean: bool) -> None:
        """Hand the end over, then keep the connection if everything about it is in order."""
        self._sink = None
        sink.on_end()
        transport = self._transport
        if self.closing():
            return
        parser = self._parser
        keep = clean and self._sent and parser.head is not None and parser.head.keep_alive
        if not keep or transport.get_write_buffer_size():
            self.retire()
            return
        if self._paused:
            self.resume()  # an idle connection must notice its end
        self.reused = True
        self._home.put(self)

    def _lose(self, sink: Sink, error: UpstreamError) -> None:
        self._sink = None
        self._transport.abort()
        self._tell_lost(sink, error, stale=self.reused and not self._answered)

    def _tell_lost(self, sink: Sink, error: UpstreamError, *, stale: bool) -> None:
        try:
            sink.on_lost(error, stale=stale)
        except Exception:  # noqa: BLE001 - as in _guarded
            _log.exception("a relay callback raised while it heard that its connection is lost")

    def _closed_before_start(self, sink: Sink) -> None:
        if self._sink is sink:  # else it was aborted meanwhile
            self._lose(sink, UpstreamReset(self._cut_off()))

    def _tell_writable(self, *, writable: bool) -> None:
        sink = self._sink
        if sink is not None and not self._sent:
            self._guarded(sink, partial(sink.on_writable, writable))

    def _guarded(self, sink: Sink, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 - whatever it is, it stays with this connection
            self._sink_raised(sink)

    def _sink_raised(self, sink: Sink) -> None:
        """Contain a defect of the sink: its exchange is over, and the sink hears it; all other connections go on."""
        _log.exception("a relay callback raised; its connection is closed")
        self.abort()
        self._tell_lost(sink, UpstreamError("The provider's answer could not be taken in."), stale=False)

    def _unasked(self, data: bytes) -> None:
        if not self.closing():
            _log.debug("an idle connection is closed: %d bytes arrived that nobody asked for", len(data))
            self._transport.abort()

    def _cut_off(self) -> str:
        when = "before its answer was complete" if self._answered else "without answering"
        return f"The provider closed the connection {when}."
