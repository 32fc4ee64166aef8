"""The transfer of one answer: attempts until content, then the stream, untouched.

Models one exchange's upstream side. `run` walks the planned targets; everything between a request's last byte and the
answer's end happens in callbacks of the connection (`on_head`, `on_body`, `on_end`, `on_lost`), so a chunk costs no
task switch. Nothing goes downstream before *content*: until then every failure is another attempt. From content on
bytes are forwarded as they arrive, and an answer that ends before it is complete is ended honestly.

How an answer is taken depends on its head:
  EVENTS   an event stream of a known dialect: the tap reads it and tells content, usage, completion and errors
  WHOLE    any other success: kept until it is complete or `_WHOLE_BYTES` long, so that a cut one can fail over
  OPAQUE   passthrough, audio, or a WHOLE that outgrew its limit: forwarded unread
  REFUSAL  not a success: kept, then judged by the account: the caller's trouble, ours, or the provider's

Invariants: one verdict per attempt, given once; no callback of an attempt acts after its verdict; phases move only
along `phases.TRANSITIONS`. Left out: which targets there are (routing), how bytes reach the caller (`reply.py`).
"""

import asyncio
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from gateway.errors import (
    GatewayError,
    NoTarget,
    ProviderConfiguration,
    Retry,
    StreamTruncated,
    UpstreamEmpty,
    UpstreamError,
    UpstreamFailedInside,
    UpstreamProtocolError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.providers.base import Verdict
from gateway.providers.headers import to_caller
from gateway.record import Attempt, Ending, Outcome, Usage
from gateway.relay import usage_tail
from gateway.relay.decode import DecodeError, Decoder, decoder
from gateway.relay.meter import Tap
from gateway.relay.outgoing import Encoded, Outgoing, Target
from gateway.relay.phases import Happening, Phase, step
from gateway.relay.reply import AnswerHead, Reply
from gateway.relay.upstream import Connection, ResponseHead
from gateway.routing.match import Terms
from gateway.units import KIB, MIB, NS_PER_MS, NS_PER_S, NS_PER_US
from gateway.wheel import Wheel

_WHOLE_BYTES: Final = 1 * MIB
_REFUSAL_BYTES: Final = 256 * KIB
_PRECONTENT_BYTES: Final = 1 * MIB
_DONE_GRACE_NS: Final = 1 * NS_PER_S  # between the completion mark and the end of the body
_COMMENT: Final = b": keep-alive\n\n"
_SSE_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_SUCCESS: Final = range(200, 300)
_ENDINGS: Final = {
    Phase.COMPLETE: Ending.COMPLETE,
    Phase.FAILED: Ending.FAILED,
    Phase.TRUNCATED: Ending.TRUNCATED,
    Phase.ABANDONED: Ending.ABANDONED,
}


class _Taking(IntEnum):
    """How the current answer is taken; see the module's head."""

    NOTHING = 0
    EVENTS = 1
    WHOLE = 2
    OPAQUE = 3
    REFUSAL = 4


class Transfer:
    """One exchange's attempts and stream. Made per request, run once."""

    def __init__(self, out: Outgoing, reply: Reply, terms: Terms, wheel: Wheel) -> None:
        self.out = out
        self.reply = reply
        self.terms = terms
        self.wheel = wheel
        self.wheel_tick = 0
        self.phase = Phase.CONNECTING
        self.attempts: list[Attempt] = []
        self.error: GatewayError | None = None
        self.usage: Usage | None = None
        self.target: Target | None = None
        self._started_ns = time.monotonic_ns()
        self._attempt_ns = 0
        self._head_ns = 0
        self._last_ns = 0
        self._comment_ns = self._started_ns + terms.hold_ns if out.streamed and not out.raw else 0
        self._held = False  # 200 went out before any content, to keep the connection alive
        self._content_ns = 0
        self._upstream_ns = 0
        self._request_bytes = 0
        self._answer_bytes = 0
        self._status = 0
        self._conn: Connection | None = None
        self._verdict: asyncio.Future[UpstreamError | None] | None = None
        self._retry_stale = False
        self._encoded: Encoded | None = None
        self._changed: tuple[str, ...] = ()
        self._taking = _Taking.NOTHING
        self._head: ResponseHead | None = None
        self._tap: Tap | None = None
        self._decoder: Decoder | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._tail = b""

    # --- attempts ---------------------------------------------------------------------------------------------------

    async def run(self, targets: Sequence[Target]) -> Outcome:
        """Try the targets in order until one answers; returns how it ended, also when the caller left.

        Being cancelled means that the caller has gone: the upstream is aborted at once.
        """
        try:
            await self._walk(targets)
        except asyncio.CancelledError:
            self._abandon("caller_gone")
        finally:
            self.wheel.disarm(self)
        return self._outcome()

    async def _walk(self, targets: Sequence[Target]) -> None:
        last: UpstreamError | None = None
        for target in targets[: self.terms.max_attempts]:
            if last is not None:
                self.phase = step(self.phase, Happening.NEXT_TARGET)
            last = await self._attempt(target)
            if last is None:
                return
            if not self._may_go_on(last):
                break
        if last is None:
            raise NoTarget("no provider of this model can serve this API")
        self.phase = step(self.phase, Happening.NO_MORE_TARGETS)
        self._say_failure(last)

    def _may_go_on(self, error: UpstreamError) -> bool:
        if error.retry is not Retry.ELSEWHERE or (self._request_bytes and not self.out.replayable):
            return False
        if self.out.upload is not None and self._request_bytes:
            return False
        return time.monotonic_ns() < self._started_ns + self.terms.total_ns

    async def _attempt(self, target: Target) -> UpstreamError | None:
        """One target. Returns None when the exchange is over (however it ended), else why to try another."""
        self.target = target
        self._attempt_ns = time.monotonic_ns()
        conn = target.pool.take()
        while True:
            if conn is None:
                try:
                    conn = await self._connect(target)
                except UpstreamError as error:
                    self._close_attempt(error)
                    self.phase = step(self.phase, Happening.UPSTREAM_FAILED)
                    return error
            error = await self._ask(target, conn)
            if not self._retry_stale:
                return error
            self._retry_stale = False  # a pooled connection had died unseen: once more, on a fresh one
            conn = None

    async def _connect(self, target: Target) -> Connection:
        left_ns = self._started_ns + self.terms.total_ns - self._attempt_ns
        self.wheel.arm(self, self._next_deadline())
        return await target.pool.connect(min(self.terms.connect_ns, left_ns) / NS_PER_S)

    async def _ask(self, target: Target, conn: Connection) -> UpstreamError | None:
        self._reset()
        self._encoded = encoded = target.encode(self.out)
        self._verdict = asyncio.get_running_loop().create_future()
        self._conn = conn
        self._last_ns = time.monotonic_ns()
        self.phase = step(self.phase, Happening.CONNECTED) if self.phase is Phase.CONNECTING else self.phase
        upload = self.out.upload
        head_request = self.out.method == "HEAD"
        conn.start(encoded.head, encoded.body, self, head_request=head_request, body_follows=upload is not None)
        if upload is not None and self._conn is conn:
            upload.attach(self)
        if self._verdict is not None and not self._verdict.done():
            self.wheel.arm(self, self._next_deadline())
        return await self._verdict

    def _reset(self) -> None:
        self._taking = _Taking.NOTHING
        self._head = self._tap = self._decoder = None
        self._kept = []
        self._kept_bytes = 0
        self._tail = b""
        self._head_ns = 0

    # --- what the connection tells ----------------------------------------------------------------------------------

    def on_head(self, head: ResponseHead) -> None:
        """The answer's head has arrived: decide how to take its body."""
        self._last_ns = self._head_ns = time.monotonic_ns()
        self._head = head
        self._status = head.status
        encoding = head.get(b"content-encoding")
        if self.out.raw:
            self._taking = _Taking.OPAQUE
            return
        if encoding and encoding != b"identity":
            self._decoder = decoder(encoding)
        if head.status not in _SUCCESS:
            self._taking = _Taking.REFUSAL
        elif head.get(b"content-type").startswith(b"text/event-stream"):
            self._take_events(encoding)
        elif self._is_opaque(head):
            self._taking = _Taking.OPAQUE
        else:
            self._taking = _Taking.WHOLE

    def on_body(self, data: bytes) -> None:
        """Bytes of the answer's body."""
        self._last_ns = time.monotonic_ns()
        if self._decoder is not None:
            try:
                data = self._decoder.feed(data)
            except DecodeError as error:
                self._failed(UpstreamProtocolError("the provider's answer cannot be decoded", detail=str(error)))
                return
            if not data:
                return
        if self._taking is _Taking.EVENTS:
            self._take_event_bytes(data)
        elif self.phase is Phase.STREAMING:
            self._forward(data)
        elif self._taking is _Taking.OPAQUE:
            self._commit()
            self._forward(data)
        else:
            self._keep(data)

    def on_end(self) -> None:
        """The answer's body is complete as far as HTTP can tell."""
        self._last_ns = time.monotonic_ns()
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except DecodeError as error:
                self._failed(UpstreamProtocolError("the provider's answer is cut", detail=str(error)))
                return
        if self._taking is _Taking.EVENTS:
            self._events_ended(clean=True)
        elif self.phase is Phase.STREAMING:
            self.usage = usage_tail.read(self.out.dialect, self.out.surface, self._tail)
            self.reply.end()
            self._over(Happening.ENDED)
        elif self._taking is _Taking.REFUSAL:
            self._judge()
        else:
            self._whole_ended()

    def on_lost(self, error: UpstreamError, *, stale: bool) -> None:
        """The connection is gone; nothing more will come from it."""
        self._count_request()
        self._conn = None
        if stale and self.out.replayable and self.out.upload is None:
            self._retry_stale = True
            self._give(None)
        elif self._taking is _Taking.EVENTS and self._tap is not None and self._tap.done:
            self._events_ended(clean=False)  # the completion mark was there: how the socket closed is no matter
        else:
            self._failed(error)

    def on_writable(self, writable: bool) -> None:  # noqa: FBT001 - the transport's own word
        """Flow control of an upload."""
        if self.out.upload is not None:
            if writable:
                self.out.upload.resume()
            else:
                self.out.upload.pause()

    # --- what the caller's side tells -------------------------------------------------------------------------------

    def pause(self) -> None:
        """The caller reads too slowly: stop reading from the provider."""
        if self._conn is not None:
            self._conn.pause()

    def resume(self) -> None:
        """The caller reads again."""
        self._last_ns = time.monotonic_ns()
        if self._conn is not None:
            self._conn.resume()

    def upload_data(self, data: bytes) -> None:
        """More of the request body, framed as the head announced it."""
        if self._conn is not None and data:
            self._conn.write(data if self.out.length >= 0 else b"%x\r\n%b\r\n" % (len(data), data))

    def upload_end(self) -> None:
        """The request body is complete."""
        if self._conn is not None:
            if self.out.length < 0:
                self._conn.write(b"0\r\n\r\n")
            self._conn.finish()

    def on_deadline(self, now_ns: int) -> int:
        """The wheel's call: end what took too long, keep quiet streams alive, name the next deadline."""
        if self.phase in _ENDINGS:
            return 0
        if self._comment_due(now_ns):
            self._send_comment(now_ns)
        late = self._too_late(now_ns)
        if late == "done":
            self._events_ended(clean=True)
        elif late == "slow_reader":
            self._abandon(late)
            self._give(None)
        elif late and self.phase is not Phase.CONNECTING:
            limits = {"first_byte": "first_byte_s", "first_content": "first_content_s", "idle": "idle_s"}
            setting = limits.get(late, "total_s")
            self._failed(UpstreamTimeout(f"the provider exceeded the time limit {setting}", which=late))
        return 0 if self.phase in _ENDINGS or late else self._next_deadline()

    # --- event streams ----------------------------------------------------------------------------------------------

    def _take_events(self, encoding: bytes) -> None:
        if encoding and encoding != b"identity" and self._decoder is None:
            self._failed(UpstreamProtocolError("the provider encoded its event stream in a way we do not read"))
            return
        self._taking = _Taking.EVENTS
        withhold = self._encoded is not None and self._encoded.withhold_usage
        self._tap = Tap(self.out.dialect.stream_reader(self.out.surface), withhold_usage=withhold)

    def _take_event_bytes(self, data: bytes) -> None:
        tap = self._tap
        if tap is None:
            return
        try:
            forward = tap.feed(data)
        except UpstreamError as error:
            self._failed(error)
            return
        if self.phase is Phase.STREAMING:
            if forward:
                self._forward(forward)
        elif tap.error and not tap.content:
            self._failed_inside(tap.error)
            return
        else:
            self._kept.append(forward)
            self._kept_bytes += len(forward)
            if tap.content or self._kept_bytes > _PRECONTENT_BYTES:
                self._commit()
        if tap.done:
            self.wheel.arm(self, self._last_ns + _DONE_GRACE_NS)

    def _events_ended(self, *, clean: bool) -> None:
        tap = self._tap
        if tap is None:
            return
        rest = tap.flush()
        self.usage = tap.usage
        if self.phase is not Phase.STREAMING:
            self._kept.append(rest)
            if not tap.complete(clean):
                self._failed(UpstreamEmpty("the provider ended its answer without any content"))
                return
            self._commit()
        elif rest:
            self._forward(rest)
        if tap.complete(clean):
            self.reply.end()
            self._over(Happening.ENDED)
        elif tap.error:
            self.reply.cut()  # the provider's own error event has gone out: a second one would only confuse
            self._over(Happening.UPSTREAM_FAILED, "upstream_error_in_stream")
        else:
            self._truncated(StreamTruncated("the provider ended its answer before it was complete"))

    def _failed_inside(self, body: bytes) -> None:
        said = self.out.dialect.read_error(body)
        self._failed(UpstreamFailedInside(said or "the provider reported an error inside its answer"))

    # --- whole answers and refusals ---------------------------------------------------------------------------------

    def _is_opaque(self, head: ResponseHead) -> bool:
        content_type = head.get(b"content-type")
        encoded = bool(head.get(b"content-encoding")) and self._decoder is None
        return encoded or (content_type != b"" and not content_type.startswith((b"application/json", b"text/")))

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._taking is _Taking.WHOLE and self._kept_bytes > _WHOLE_BYTES:
            self._commit()
        elif self._taking is _Taking.REFUSAL and self._kept_bytes > _REFUSAL_BYTES:
            self._judge()

    def _whole_ended(self) -> None:
        body = self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
        out = self.out
        if self._taking is _Taking.WHOLE:
            if usage_tail.looks_like_error(body):
                self._failed_inside(body)
                return
            self.usage = out.dialect.read_usage(out.surface, body)
        self._content_ns = self._last_ns
        self._answer_whole(body)
        self._over(Happening.ENDED)

    def _judge(self) -> None:
        head, target = self._head, self.target
        if head is None or target is None:
            return
        body = b"".join(self._kept)
        verdict = target.account.judge(head.status, body)
        if verdict is Verdict.CALLER:
            self._answer_whole(body)
            self._over(Happening.ENDED, f"status_{head.status}")
        elif verdict is Verdict.OURS:
            message = f"the gateway's account at provider {target.account.name!r} was refused: tell its operator"
            self._failed(ProviderConfiguration(message, detail=f"status {head.status}: {body[:200]!r}"))
        else:
            said = self.out.dialect.read_error(body)
            self._failed(UpstreamStatus(said or f"the provider answered {head.status}", detail=f"status {head.status}"))

    def _say_failure(self, error: UpstreamError) -> None:
        """Nothing more to try: the last provider's own refusal where it gave one, else our error."""
        self.error = error
        if type(error) is UpstreamStatus and not self._held and self._kept_bytes <= _REFUSAL_BYTES:
            self._answer_whole(b"".join(self._kept))
        else:
            self.reply.fail(error, self.attempts, self._upstream_ns)

    # --- downstream -------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Content has come: the head goes out, and from here on the answer belongs to this target."""
        self.phase = step(self.phase, Happening.CONTENT)
        self._content_ns = self._last_ns
        if not self._held:
            self.reply.start(self._answer_head(self._length()))
        kept, self._kept = self._kept, []
        for data in kept:
            if data:
                self._forward(data)
        self.wheel.arm(self, self._next_deadline())

    def _length(self) -> int:
        if self._head is None or self._taking is _Taking.EVENTS or self._decoder is not None:
            return -1
        return self._head.content_length

    def _forward(self, data: bytes) -> None:
        self._answer_bytes += len(data)
        if self._taking is _Taking.WHOLE:
            self._tail = (self._tail + data)[-usage_tail.BYTES :]
        self.reply.data(data)

    def _answer_whole(self, body: bytes) -> None:
        self._answer_bytes += len(body)
        length = self._head.content_length if self.out.method == "HEAD" and self._head is not None else len(body)
        head = self._answer_head(length)
        if self._held:
            self.reply.fail(UpstreamStatus(f"the provider answered {head.status}"), self.attempts, self._upstream_ns)
        else:
            self.reply.whole(head, body)

    def _answer_head(self, length: int) -> AnswerHead:
        head, target, encoded = self._head, self.target, self._encoded
        headers = to_caller(head.headers) if head is not None else []
        if head is not None and self._decoder is None and head.get(b"content-encoding"):
            headers.append((b"content-encoding", head.get(b"content-encoding")))
        if head is not None and target is not None:
            upstream_id = head.get(target.account.vendor.request_id_header)
            if upstream_id:
                headers.append((b"x-gateway-upstream-request-id", upstream_id))
        waited_ns = self._upstream_ns + (time.monotonic_ns() - self._attempt_ns if self._conn is not None else 0)
        name = target.name(self.out.star) if target is not None else ""
        attempts = self.attempts
        if self._conn is not None:
            attempts = [*attempts, self._attempt_row("ok")]
        changed = encoded.changed if encoded is not None else ()
        sse = self._taking is _Taking.EVENTS
        return AnswerHead(self._status, headers, length, name, attempts, changed, waited_ns, sse)

    def _comment_due(self, now_ns: int) -> bool:
        waiting = self.phase in (Phase.CONNECTING, Phase.AWAITING, Phase.FAILOVER)
        return waiting and bool(self._comment_ns) and now_ns >= self._comment_ns

    def _send_comment(self, now_ns: int) -> None:
        if not self._held:
            self._held = True
            waited_ns = self._upstream_ns + now_ns - self._attempt_ns
            head = AnswerHead(200, list(_SSE_HEADERS), -1, "", self.attempts, (), waited_ns, sse=True)
            self.reply.start(head)
        self.reply.data(_COMMENT)
        self._comment_ns = now_ns + self.terms.comment_ns

    # --- time -------------------------------------------------------------------------------------------------------

    def _next_deadline(self) -> int:
        terms = self.terms
        deadline = self._started_ns + terms.total_ns
        if self.phase is Phase.STREAMING:
            return min(deadline, self._last_ns + terms.idle_ns)
        if self.phase is Phase.AWAITING:
            limit = terms.first_content_ns if self._head_ns else terms.first_byte_ns
            deadline = min(deadline, self._attempt_ns + limit)
        return min(deadline, self._comment_ns) if self._comment_ns else deadline

    def _too_late(self, now_ns: int) -> str:
        terms = self.terms
        if self._tap is not None and self._tap.done and now_ns >= self._last_ns + _DONE_GRACE_NS:
            return "done"
        if now_ns >= self._started_ns + terms.total_ns:
            return "total"
        if self.phase is Phase.STREAMING:
            if now_ns < self._last_ns + terms.idle_ns:
                return ""
            return "slow_reader" if self.reply.paused else "idle"
        if self.phase is not Phase.AWAITING:
            return ""
        if not self._head_ns:
            return "first_byte" if now_ns >= self._attempt_ns + terms.first_byte_ns else ""
        return "first_content" if now_ns >= self._attempt_ns + terms.first_content_ns else ""

    # --- endings ----------------------------------------------------------------------------------------------------

    def _failed(self, error: UpstreamError) -> None:
        """This attempt has failed: another one if nothing has gone out, else the honest end."""
        if self.phase is Phase.STREAMING:
            self._truncated(StreamTruncated("the answer broke off: " + error.message, detail=error.code))
            return
        self._release(error)
        self.phase = step(self.phase, Happening.UPSTREAM_FAILED)
        self._give(error)

    def _truncated(self, error: StreamTruncated) -> None:
        if self._tap is not None:
            self.usage = self._tap.usage
        self.error = error
        self._release(error)
        self.phase = step(self.phase, Happening.UPSTREAM_FAILED)
        self.reply.fail(error, self.attempts, self._upstream_ns)
        self._give(None)

    def _over(self, happening: Happening, cause: str = "ok") -> None:
        """The exchange has ended by itself."""
        self.phase = step(self.phase, happening)
        conn, self._conn = self._conn, None
        if conn is not None:
            self._request_bytes += conn.request_bytes
            if self._tap is not None and self._last_ns and not conn.ended:
                conn.abort()  # complete by its mark, but the body was never ended
        self._log_attempt(cause)
        self._give(None)

    def _abandon(self, cause: str) -> None:
        """The caller has left: stop the provider at once, remember what was used."""
        if self.phase in _ENDINGS:
            return
        if self._tap is not None:
            self.usage = self._tap.usage
        if self._attempt_ns:
            self._release(None, cause)
        self.phase = step(self.phase, Happening.DOWNSTREAM_GONE)
        if cause != "caller_gone":
            self.reply.cut()

    def _release(self, error: UpstreamError | None, cause: str = "") -> None:
        self._count_request()
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.abort()
        self._log_attempt(cause or (error.code if error is not None else "ok"))

    def _close_attempt(self, error: UpstreamError) -> None:
        self._status = 0
        self._log_attempt(error.code)

    def _count_request(self) -> None:
        if self._conn is not None:
            self._request_bytes += self._conn.request_bytes

    def _log_attempt(self, cause: str) -> None:
        self.attempts.append(self._attempt_row(cause))
        self._upstream_ns += time.monotonic_ns() - self._attempt_ns

    def _attempt_row(self, cause: str) -> Attempt:
        target, head = self.target, self._head
        upstream_id = head.get(target.account.vendor.request_id_header) if head is not None and target else b""
        return Attempt(
            target=target.name(self.out.star) if target is not None else "",
            cause=cause,
            status=head.status if head is not None else 0,
            took_ms=(time.monotonic_ns() - self._attempt_ns) // NS_PER_MS,
            upstream_request_id=upstream_id.decode("latin-1"),
        )

    def _give(self, error: UpstreamError | None) -> None:
        verdict = self._verdict
        if verdict is not None and not verdict.done():
            verdict.set_result(error)

    def _outcome(self) -> Outcome:
        first_us = (self._content_ns - self._started_ns) // NS_PER_US if self._content_ns else -1
        return Outcome(
            ending=_ENDINGS.get(self.phase, Ending.FAILED),
            status=self._status,
            attempts=tuple(self.attempts),
            usage=self.usage,
            error=self.error.code if self.error is not None else "",
            streamed=self._taking is _Taking.EVENTS,
            upstream_bytes=self._request_bytes,
            downstream_bytes=self._answer_bytes,
            first_content_us=first_us,
            upstream_us=self._upstream_ns // NS_PER_US,
        )
