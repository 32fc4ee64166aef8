"""One caller's connection: requests in, one at a time and in order; answers out.

A request's head is judged as soon as it is complete (surface, credential), so nobody unknown makes us keep a body; its
body goes to a `Body`; when that is ready the pipeline runs as one task. While an exchange runs, further bytes are set
aside unparsed, up to 64 KiB: beyond that the connection closes, so that a caller's leaving is always noticed by a read.

Invariants: at most one exchange is open; an answer's bytes are written only by its Responder; after an error that
loses framing nothing more is parsed; a connection that is refused mid-body lingers (`linger.py`). Left out: bytes into
requests (`reader.py`), what a head means (`head.py`), what a request means (`pipeline.py`).
"""

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway import pipeline
from gateway.dialects.base import BodyMode
from gateway.errors import GatewayError, InternalError, InvalidRequest, MalformedHTTP, RequestTimeout
from gateway.exchange import Exchange
from gateway.listener.address import Preface
from gateway.listener.body import Body, Whole
from gateway.listener.head import Head
from gateway.listener.linger import LINGER_NS, Linger
from gateway.listener.reader import Fault, RequestReader, head_too_large
from gateway.listener.respond import CONTINUE, Responder
from gateway.listener.waiting import Aside, Queued
from gateway.listener.watch import Valve
from gateway.relay.upstream import FULL_READ_BYTES
from gateway.units import NS_PER_S

if TYPE_CHECKING:
    from gateway.listener.app import Listener

_FRESH_NS: Final = 1 * NS_PER_S
_NO_FAULT: Final = Fault.NONE
_NO_BODY, _BUFFERED, _RAW = BodyMode.NONE, BodyMode.BUFFERED, BodyMode.RAW
_log: Final = logging.getLogger("gateway.listener")


class DownstreamConnection(asyncio.Protocol):
    """One accepted connection."""

    __slots__ = (
        "_aside",
        "_body",
        "_body_done",
        "_broken",
        "_ex",
        "_linger",
        "_listener",
        "_peer_ip",
        "_preface",
        "_queue",
        "_reader",
        "_responder",
        "_serving",
        "_since_ns",
        "_task",
        "_transport",
        "_valve",
        "paused",
        "wheel_tick",
    )

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._reader = RequestReader(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._ex: Exchange | None = None
        self._body: Body | Whole | None = None
        self._body_done = True
        self._responder: Responder | None = None
        self._serving = False  # the task has taken its first step
        self._queue: deque[Queued] = deque()
        self._aside = Aside()
        self._broken = False
        self._linger: Linger | None = None
        self._valve = Valve(listener.watch, self.abort)
        self._preface: Preface | None = None
        self._peer_ip = ""
        self._since_ns = 0
        self.wheel_tick = 0
        self.paused = False

    # --- the transport's side ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller has connected."""
        self._transport = transport  # type: ignore[assignment] # uvloop's transports are duck-typed
        peer = transport.get_extra_info("peername")
        self._peer_ip = peer[0] if isinstance(peer, tuple) else ""
        self._since_ns = time.monotonic_ns()
        listener = self._listener
        if not listener.admit(self):
            self._transport.write(listener.full_answer)  # type: ignore[union-attr] # set above
            self._transport.close()  # type: ignore[union-attr]
            return
        if listener.proxy_protocol:
            self._preface = Preface(listener.trust, self._peer_ip)
        listener.wheel.arm(self, self._since_ns + listener.header_timeout_ns)

    def data_received(self, data: bytes) -> None:
        """Bytes from the caller."""
        if self._linger is not None:
            if not self._linger.drop(data):
                self._close()
        elif self._aside.size or (self._body_done and (self._ex is not None or self.paused)):
            if not self._aside.put(data):
                self.abort()
        elif self._preface is not None:
            self._read_preface(self._preface, data)
        elif not self._broken:
            self._parse(data)
        if len(data) >= FULL_READ_BYTES and self._transport is not None:
            self._valve.rest(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """The connection is gone."""
        listener = self._listener
        listener.wheel.disarm(self)
        listener.left(self)
        self._valve.forget()
        self._break()
        self._aside.take()
        self._queue.clear()
        if self._responder is not None:
            self._responder.forget()
        task, self._task = self._task, None
        if self._ex is not None:
            self._end_early(self._ex, task)
        self._release_body()

    def pause_writing(self) -> None:
        """The caller reads more slowly than we write."""
        self.paused = True
        if self._ex is not None and self._ex.transfer is not None:
            self._ex.transfer.pause()

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self.paused = False
        if self._ex is None:
            if self._queue or self._aside.size:
                asyncio.get_running_loop().call_soon(self._next)
        elif self._ex.transfer is not None:
            self._ex.transfer.resume()

    def on_deadline(self, now_ns: int) -> int:
        """The wheel's call: close what is idle or too slow; returns the next deadline."""
        if self._transport is None or self._transport.is_closing():
            self.abort()  # its last answer was not read in time
            return 0
        if self._linger is not None:
            self._close()
            return 0
        look_again_ns = now_ns + self._listener.look_ns
        if self._ex is not None and (self._body_done or self._valve.closed):
            return look_again_ns
        limit_ns = self._since() + self._limit_ns()
        if now_ns < limit_ns:
            return min(limit_ns, look_again_ns)
        if self._ex is not None:
            self._refuse_open(RequestTimeout("the request body did not arrive in time"))
        elif self._reader.in_head:
            self._refuse_new(RequestTimeout("the request head did not arrive in time"))
        else:
            self._close()
        return 0  # lingering and closing have deadlines of their own

    # --- the reader's side ------------------------------------------------------------------------------------------

    def head_read(self, head: Head, length: int, error: GatewayError | None) -> None:
        """A head is complete: open its exchange, now or when it is its turn."""
        ex = self._exchange_of(head)
        if self._ex is not None or self._queue:
            self._queue.append(Queued(ex, head, length, error))
        else:
            self._open(ex, head, length, error, None)

    def body_read(self, data: bytes) -> None:
        """A piece of a body."""
        if self._queue:
            self._queue[-1].chunks.append(data)
        else:
            self._feed_body(data)

    def request_read(self) -> None:
        """A request is complete."""
        if self._queue:
            self._queue[-1].complete = True
        else:
            self._finish_body()

    def whole_read(self, head: Head, body: bytes) -> None:
        """A request is complete at once."""
        if head.mode is _BUFFERED and self._ex is None and not self._queue:
            self._open(self._exchange_of(head), head, len(body), None, body)
        else:
            self.head_read(head, len(body), None)
            self.body_read(body)
            self.request_read()

    # --- the responder's side ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, unless the connection is closing: uvloop would raise, inside a callback of somebody else."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def answered(self, *, keep: bool) -> None:
        """The answer is out: the next request, or the end of the connection."""
        self._ex = None
        self._responder = None
        self._task = None
        self._since_ns = time.monotonic_ns()
        whole = self._body_done
        if self._body is not None:
            self._release_body()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not keep or not whole or self._broken:
            self._shut(linger=not whole or self._broken)
        elif self._queue or self._aside.size:
            asyncio.get_running_loop().call_soon(self._next)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        reader, listener = self._reader, self._listener
        fault = reader.feed(data, listener.max_header_bytes)
        if fault is _NO_FAULT:
            if (reader.in_head or not self._body_done) and not self._broken:
                self._expect_more(len(data))
        elif fault is Fault.UPGRADE:
            self._break()  # another protocol was asked for: this request is answered, no other follows
        elif fault is Fault.CRASHED:
            self._break()
            self._crashed(reader.error)
        elif not self._broken:
            self._break()
            self._malformed(reader.error)

    def _expect_more(self, size: int) -> None:
        """A read has ended inside of a request: more must come, within bounds and in time."""
        reader, listener = self._reader, self._listener
        if reader.bound(size, between=self._ex is None) is not _NO_FAULT:
            self._break()
            if reader.in_head and self._ex is None:
                self._refuse_new(head_too_large(listener.max_header_bytes))
            elif not self._body_done:
                self._refuse_open(head_too_large(listener.max_header_bytes))
        elif reader.in_head and self._transport is not None:
            listener.wheel.arm(self, self._since() + listener.header_timeout_ns)

    def _break(self) -> None:
        """Nothing more on this connection is read as a request."""
        self._broken = True
        self._reader.deafen()
        if self._responder is not None:
            self._responder.closing = True

    def _since(self) -> int:
        """When the caller last moved on: by a first byte, a piece of a body, or by reading an answer."""
        return max(self._since_ns, self._reader.since_ns)

    def _exchange_of(self, head: Head) -> Exchange:
        reader = self._reader
        ex = Exchange(self._listener.next_id(), head, self._peer_ip, keep_alive=reader.keep_alive)
        ex.traceparent = reader.traceparent
        return ex

    def _open(self, ex: Exchange, head: Head, length: int, error: GatewayError | None, whole: bytes | None) -> None:
        """This request's turn: identify the caller, or refuse before its body is read; `whole`: it is here already."""
        self._ex, self._body_done = ex, False
        listener, limits = self._listener, self._listener.limits
        if listener.draining:
            ex.keep_alive = False
        self._responder = responder = Responder(ex, self, head.dialect, listener.on_stream)
        try:
            if error is not None:
                raise error
            if head.surface is None:
                self._body_done = length == 0
                listener.answer_health(ex, responder, body_follows=length != 0)
                return
            listener.identify(ex, head)
            if head.mode is _NO_BODY and length:
                raise InvalidRequest(f"{head.path} takes no body")
            self._body = body = Body(head, length, limits, self) if whole is None else Whole(whole, head, limits)
        except GatewayError as refused:
            self._refuse_open(refused, body_follows=length != 0)
            return
        if head.expects_continue and length:
            self.write(CONTINUE)
        if isinstance(body, Whole):
            self._body_done = True
            self.start()
        elif head.mode is _RAW:
            body.begin()

    def _feed_body(self, data: bytes) -> None:
        self._since_ns = time.monotonic_ns()
        if isinstance(self._body, Body):
            try:
                self._body.feed(data)
            except GatewayError as error:
                self._refuse_open(error)

    def _finish_body(self) -> None:
        self._body_done = True
        if isinstance(self._body, Body):
            try:
                self._body.finish()
            except GatewayError as error:
                self._refuse_open(error)

    def start(self) -> None:
        """The body is ready for the pipeline: run it."""
        ex, body, responder = self._ex, self._body, self._responder
        if ex is None or body is None or responder is None:
            return
        ex.intake, ex.reply = body, responder
        ex.started_ns = time.monotonic_ns()
        self._serving = False
        served = self._serve(ex, responder)
        self._task = asyncio.Task(served, loop=self._listener.wheel.loop, name="exchange")  # a number costs 0.2 us

    async def _serve(self, ex: Exchange, responder: Responder) -> None:
        self._serving = True
        try:
            await pipeline.run(ex, self._listener.gateway)
            if not responder.finished:
                raise RuntimeError("the caller has not been answered")  # noqa: TRY301 - as any other defect
        except Exception:  # noqa: BLE001 - a defect ends its own exchange, said and logged, never the worker
            _log.exception("request %s crashed", ex.exchange_id)
            responder.fail(InternalError("the gateway failed to serve this request"), (), 0)
        finally:
            self._listener.finished(ex)

    def _next(self) -> None:
        """Take up what arrived while the last exchange was open."""
        if self._ex is not None or self._broken or self._linger is not None or self.paused:
            return
        if self._queue:
            queued = self._queue.popleft()
            self._open(queued.ex, queued.head, queued.length, queued.error, None)
            for data in queued.chunks:
                self._feed_body(data)
            if queued.complete:
                self._finish_body()
        if self._queue and not self.exchanging:
            asyncio.get_running_loop().call_soon(self._next)
        elif self._aside.size and not self._queue and not (self.exchanging and self._body_done):
            self._parse(self._aside.take())

    def _read_preface(self, preface: Preface, data: bytes) -> None:
        """The PROXY protocol header, before the first request."""
        try:
            found = preface.feed(data)
        except GatewayError as error:
            self._refuse_new(error)
            return
        if found is not None:
            self._preface = None
            self._peer_ip, rest = found
            if rest:
                self._parse(rest)

    # --- refusing and closing ---------------------------------------------------------------------------------------

    def _crashed(self, error: Exception | None) -> None:
        """A callback of ours has failed: a defect, which must not look like the caller's."""
        _log.error("reading a request crashed", exc_info=error)
        refused = InternalError("the gateway failed to read this request")
        if self._ex is None:
            self._refuse_new(refused)
        elif not self._body_done:
            self._refuse_open(refused)
        else:
            self.abort()

    def _malformed(self, error: Exception | None) -> None:
        refused = MalformedHTTP("the request is not valid HTTP/1.1", detail=str(error))
        if self._ex is None:
            self._refuse_new(refused)
        elif not self._body_done:  # else the open exchange is whole: it is answered, and no other
            self._refuse_open(refused)

    def _refuse_new(self, error: GatewayError) -> None:
        """Refuse a request whose head never became complete."""
        self._reader.in_head = False
        self._break()
        head = Head("", version_11=True)
        ex = Exchange(self._listener.next_id(), head, self._peer_ip, keep_alive=False)
        self._ex, self._body_done = ex, False
        self._responder = Responder(ex, self, head.dialect, self._listener.on_stream)
        self._refuse_open(error)

    def _refuse_open(self, error: GatewayError, *, body_follows: bool = True) -> None:
        """Refuse the open exchange, whose body may be incomplete, and whose pipeline may be running (an upload)."""
        ex, responder = self._ex, self._responder
        if ex is None or responder is None:
            return
        if body_follows and not self._body_done:
            responder.closing = True
        else:
            self._body_done = True
        if error.close:
            self._break()
        self._release_body()
        task, self._task = self._task, None
        responder.fail(error, (), 0)
        self._end_early(ex, task)

    def _end_early(self, ex: Exchange, task: asyncio.Task[None] | None) -> None:
        """End an exchange from outside of its pipeline, which records it itself once it has taken its first step."""
        if task is None or not self._serving:
            self._listener.finished(ex)
        if task is not None:
            task.cancel()

    def _shut(self, *, linger: bool) -> None:
        self._break()
        transport = self._transport
        if linger and transport is not None:
            self._linger = Linger(transport)
            self.resume_reading()
            self._listener.wheel.arm(self, time.monotonic_ns() + LINGER_NS)
        else:
            self._close()

    def _close(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            if transport.get_write_buffer_size():  # who does not read it in time will not read it at all
                self._listener.wheel.arm(self, time.monotonic_ns() + self._listener.keepalive_ns)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def close_after_answer(self) -> None:
        """A drain begins: an open exchange is the last on this connection, and its answer says so if it still can."""
        if self._responder is not None:
            self._responder.closing = True

    def close_if_idle(self) -> None:
        """End of drain: a connection between requests is closed, a busy or a brand-new one is left."""
        if not self.busy:
            self._close()

    @property
    def exchanging(self) -> bool:
        """Whether an exchange is open."""
        return self._ex is not None

    @property
    def busy(self) -> bool:
        """Whether an exchange is open, or about to be: a caller who has just connected is about to ask."""
        if self._ex is not None or self._queue or self._aside.size or self._reader.in_head:
            return True
        return not self._reader.asked and time.monotonic_ns() < self._since_ns + _FRESH_NS

    # --- flow control of uploads ------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Stop reading; the caller's leaving is then noticed by the watch."""
        if self._transport is not None:
            self._valve.close(self._transport)

    def resume_reading(self) -> None:
        """Read on."""
        if self._valve.closed and self._transport is not None:
            self._since_ns = time.monotonic_ns()
            self._valve.open(self._transport)

    def _release_body(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.release()
        if self._valve.closed:
            self.resume_reading()

    def _limit_ns(self) -> int:
        listener = self._listener
        if self._ex is not None:
            return listener.body_timeout_ns
        beginning = self._reader.in_head or self._preface is not None
        return listener.header_timeout_ns if beginning else listener.keepalive_ns
