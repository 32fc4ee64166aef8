"""One attempt at one target: the request goes out, and its answer is taken in as the kind of answer it is.

An `AttemptRun` is the connection's sink. It knows what the provider has said so far and tells the transfer only what
matters to the exchange: content has come, bytes to forward, the answer is over, this attempt has failed.

How an answer is taken depends on its head:
  EVENTS   an event stream of a known dialect: the tap reads it and tells content, usage, completion and errors
  WHOLE    any other success: kept until it is complete or `WHOLE_BYTES` long, so that a cut one can fail over
  OPAQUE   passthrough, audio, or a WHOLE that outgrew its limit: forwarded unread
  REFUSAL  not a success: kept, then judged by the account: the caller's trouble, ours, or the provider's

Invariants: a verdict is given once; after it no callback acts. Left out: time limits, failover, phases (`stream.py`).
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from gateway.errors import (
    ProviderConfiguration,
    StreamTruncated,
    UpstreamEmpty,
    UpstreamError,
    UpstreamFailedInside,
    UpstreamProtocolError,
    UpstreamStatus,
)
from gateway.providers.base import Verdict
from gateway.record import Attempt, Usage
from gateway.relay import usage_tail
from gateway.relay.decode import DecodeError, Decoder, decode_events, decode_read, decoder
from gateway.relay.meter import Tap
from gateway.relay.outgoing import Encoded, Target
from gateway.relay.upstream import Connection, ResponseHead
from gateway.units import KIB, MIB, NS_PER_MS

if TYPE_CHECKING:
    from gateway.relay.stream import Transfer

WHOLE_BYTES: Final = 1 * MIB
REFUSAL_BYTES: Final = 256 * KIB
PRECONTENT_BYTES: Final = 1 * MIB
_EVENT_STREAM: Final = b"text/event-stream"
_JSON: Final = b"application/json"
_READABLE: Final = (_JSON, b"text/")


class Taking(IntEnum):
    """How an answer is taken; see the module's head."""

    NOTHING = 0
    EVENTS = 1
    WHOLE = 2
    OPAQUE = 3
    REFUSAL = 4


_NOTHING: Final = Taking.NOTHING  # a global is found faster than an enum's member
_EVENTS: Final = Taking.EVENTS
_WHOLE: Final = Taking.WHOLE
_OPAQUE: Final = Taking.OPAQUE
_REFUSAL: Final = Taking.REFUSAL


class AttemptRun:
    """One attempt, from its request to its verdict. Implements `upstream.Sink`."""

    __slots__ = (
        "_decoder",
        "_kept",
        "_kept_bytes",
        "_over",
        "_tail",
        "_transfer",
        "conn",
        "encoded",
        "head",
        "request_bytes",
        "stale",
        "taking",
        "tap",
        "target",
    )

    def __init__(self, transfer: "Transfer", target: Target, conn: Connection) -> None:
        self.target = target
        self.encoded: Encoded = target.encode(transfer.out)
        self.conn: Connection | None = conn
        self._transfer = transfer
        self._kept: list[bytes] = []
        self.head: ResponseHead | None = None
        self.tap: Tap | None = None
        self.taking: Taking = _NOTHING
        self.stale = False  # the pooled connection had died before it heard us: the attempt may be made again
        self.request_bytes = 0
        self._decoder: Decoder | None = None
        self._tail = b""
        self._kept_bytes = 0
        self._over = False

    # --- what the connection tells ----------------------------------------------------------------------------------

    def on_head(self, head: ResponseHead) -> None:
        """The answer's head has arrived: decide how to take its body."""
        self.head = head
        if self._transfer.out.raw:
            self.taking = _OPAQUE
            return
        encoding = head.first.get(b"content-encoding", b"")
        if encoding:
            self._decoder = decoder(encoding)
            encoding = b"" if encoding == b"identity" else encoding
        content_type = head.first.get(b"content-type", b"")
        if not 200 <= head.status < 300:  # noqa: PLR2004 - the success class
            self.taking = _REFUSAL
        elif content_type == _JSON and not encoding:  # nearly every answer that is no stream
            self.taking = _WHOLE
        elif content_type.startswith(_EVENT_STREAM):
            self._take_events(encoding)
        elif (encoding and self._decoder is None) or not content_type.startswith(_READABLE):
            self.taking = _OPAQUE if content_type or encoding else _WHOLE
        else:
            self.taking = _WHOLE

    def on_body(self, data: bytes) -> None:
        """Bytes of the answer's body."""
        if self._decoder is not None:
            data = self._decoded(self._decoder, data)
            if not data:
                return
        taking = self.taking
        if taking is _EVENTS:
            self._take_event_bytes(data)
        elif self._transfer.streaming:
            self._forward(data)
        elif taking is _OPAQUE:
            self._transfer.content(self)
            self._forward(data)
        else:
            self._kept.append(data)
            self._kept_bytes += len(data)
            if self._kept_bytes > REFUSAL_BYTES:
                self._overgrown()

    def on_end(self) -> None:
        """The answer's body is complete as far as HTTP can tell; the connection is no longer ours."""
        if self._over:
            return
        if self._decoder is not None and not self._finish_decoding(self._decoder):
            return
        self._let_go()
        taking = self.taking
        if taking is _EVENTS:
            self._events_ended(clean=True)
        elif taking is _REFUSAL:
            self._judge()
        elif self._transfer.streaming:
            out = self._transfer.out
            self._finished(usage_tail.read(out.dialect, out.surface, self._tail))
        else:
            self._whole_ended()

    def on_lost(self, error: UpstreamError, *, stale: bool) -> None:
        """The connection is gone; nothing more will come from it."""
        self._let_go()
        if self._over:
            return
        if self.taking is _EVENTS and self.tap is not None and self.tap.done:
            self._events_ended(clean=False)  # the completion mark was there: how the socket closed is no matter
            return
        self.stale = stale
        self.fail(error)

    def on_writable(self, writable: bool) -> None:  # noqa: FBT001 - the transport's own word
        """Flow control of an upload."""
        upload = self._transfer.out.upload
        if upload is not None:
            if writable:
                upload.resume()
            else:
                upload.pause()

    # --- what the transfer asks -------------------------------------------------------------------------------------

    def fail(self, error: UpstreamError) -> None:
        """Give this attempt up for this reason."""
        if not self._over:
            self._over = True
            self.drop()
            self._transfer.attempt_failed(self, error)

    def drop(self) -> None:
        """Let go of the connection, closing it if it is still ours; no callback acts from here on."""
        self._over = True
        conn = self.conn
        if conn is not None:
            self._let_go()
            conn.abort()

    def grace_over(self) -> None:
        """The completion mark came, and the end of the body did not follow: the answer is complete all the same."""
        self._events_ended(clean=False)

    @property
    def usage(self) -> Usage | None:
        """What the provider has said of usage so far, also beside an error."""
        if self.tap is not None:
            return self.tap.usage
        out = self._transfer.out
        return out.dialect.read_usage(out.surface, self.body) if self._kept else None

    @property
    def begun(self) -> bool:
        """Whether some of a whole answer has come, of which nothing has gone downstream yet."""
        return self.taking is _WHOLE and bool(self._kept)

    @property
    def body(self) -> bytes:
        """The body of a refusal, b"" when it was too long to keep."""
        kept = self._kept
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def row(self, cause: str, took_ns: int) -> Attempt:
        """This attempt as records and headers tell it."""
        head, target = self.head, self.target
        name, took_ms = target.name(self._transfer.out.star), took_ns // NS_PER_MS
        if head is None:
            return Attempt(name, cause, 0, took_ms)
        upstream_id = head.first.get(target.request_id_header)
        return Attempt(name, cause, head.status, took_ms, upstream_id.decode("latin-1") if upstream_id else "")

    def header_lines(self) -> bytes:
        """The answer's headers that go to the caller."""
        head = self.head
        if head is None:
            return b""
        lines = head.to_caller
        encoding = head.first.get(b"content-encoding")
        if encoding and self._decoder is None:
            lines += b"content-encoding: %b\r\n" % encoding
        upstream_id = head.first.get(self.target.request_id_header)
        if upstream_id:
            lines += b"x-gateway-upstream-request-id: %b\r\n" % upstream_id
        return lines

    @property
    def length(self) -> int:
        """The body's length as the caller will see it, -1 when only its end will tell."""
        if self.head is None or self.taking is _EVENTS or self._decoder is not None:
            return -1
        return self.head.content_length

    # --- event streams ----------------------------------------------------------------------------------------------

    def _take_events(self, encoding: bytes) -> None:
        if encoding and self._decoder is None:
            self.fail(UpstreamProtocolError("the provider encoded its event stream in a way the gateway does not read"))
            return
        self.taking = _EVENTS
        out = self._transfer.out
        self.tap = Tap(out.dialect.stream_reader(out.surface), withhold_usage=self.encoded.withhold_usage)

    def _take_event_bytes(self, data: bytes) -> None:
        tap, transfer = self.tap, self._transfer
        if tap is None or self._over:
            return
        was_done = tap.done
        try:
            forward = tap.feed(data)
        except UpstreamError as error:
            self.fail(error)
            return
        if transfer.streaming:
            if forward:
                transfer.forward(forward)
        elif tap.error and not tap.content:
            self._fail_inside(tap.error)
            return
        else:
            self._kept.append(forward)
            self._kept_bytes += len(forward)
            if tap.content or self._kept_bytes > PRECONTENT_BYTES:
                transfer.content(self)
                self._forward_kept()
        if tap.done and not was_done:
            transfer.completion_seen()

    def _events_ended(self, *, clean: bool) -> None:
        tap, transfer = self.tap, self._transfer
        if tap is None or self._over:
            return
        complete = tap.complete(clean)
        rest = tap.flush()
        if not transfer.streaming:
            if not complete:
                self.fail(UpstreamEmpty("the provider ended its answer without any content"))
                return
            transfer.content(self)
            self._forward_kept()
        if rest:
            transfer.forward(rest)
        if complete:
            self._finished(tap.usage)
        elif tap.error:
            self._cut_by_provider()
        else:
            self.fail(StreamTruncated("the provider ended its answer before it was complete"))

    def _cut_by_provider(self) -> None:
        """Its own error event has gone out as the last word: a second one would only confuse."""
        self._over = True
        self.drop()
        self._transfer.cut(self, UpstreamFailedInside.code)

    def _fail_inside(self, body: bytes) -> None:
        said = self._transfer.out.dialect.read_error(body)
        self.fail(UpstreamFailedInside(said or "the provider reported an error inside its answer"))

    # --- whole answers and refusals ---------------------------------------------------------------------------------

    def _overgrown(self) -> None:
        """More is kept than of any refusal: of an answer that is too much later."""
        if self.taking is _REFUSAL:
            self._kept = []
            self._judge()
        elif self.taking is _WHOLE and self._kept_bytes > WHOLE_BYTES:
            self._transfer.content(self)
            self._forward_kept()

    def _whole_ended(self) -> None:
        out = self._transfer.out
        body = self.body
        usage = None
        if self.taking is _WHOLE:
            if usage_tail.looks_like_error(body):
                self.taking = _REFUSAL
                self._fail_inside(body)
                return
            usage = out.dialect.read_usage(out.surface, body)
        self._over = True
        self._transfer.whole(self, body, usage, "ok")

    def _judge(self) -> None:
        head = self.head
        if head is None or self._over:
            return
        body, account = self.body, self.target.account
        verdict = account.judge(head.status, body)
        if verdict is Verdict.CALLER:
            self.drop()
            self._transfer.whole(self, body, self.usage, f"status_{head.status}")
        elif verdict is Verdict.OURS:
            message = f"the gateway's account at provider {account.name!r} was refused: tell its operator"
            self.fail(ProviderConfiguration(message, detail=f"status {head.status}: {body[:200]!r}"))
        else:
            said = self._transfer.out.dialect.read_error(body)
            self.fail(UpstreamStatus(said or f"the provider answered {head.status}", detail=f"status {head.status}"))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _forward(self, data: bytes) -> None:
        if self.taking is _WHOLE:
            self._tail = (self._tail + data)[-usage_tail.BYTES :]
        self._transfer.forward(data)

    def _forward_kept(self) -> None:
        kept, self._kept = self._kept, []
        for data in kept:
            if data:
                self._forward(data)

    def _finished(self, usage: Usage | None) -> None:
        self._over = True
        self.drop()
        self._transfer.finished(self, usage)

    def _let_go(self) -> None:
        conn, self.conn = self.conn, None
        if conn is not None:
            self.request_bytes = conn.request_bytes

    def _decoded(self, reader: Decoder, data: bytes) -> bytes:
        try:
            return decode_events(reader, data) if self.taking is _EVENTS else decode_read(reader, data)
        except DecodeError as error:
            self.fail(UpstreamProtocolError("the provider's answer cannot be decoded", detail=str(error)))
            return b""

    def _finish_decoding(self, reader: Decoder) -> bool:
        try:
            reader.finish()
        except DecodeError as error:
            self._let_go()
            self.fail(UpstreamProtocolError("the provider's answer is cut", detail=str(error)))
            return False
        return True
