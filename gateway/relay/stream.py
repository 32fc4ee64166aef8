"""The transfer of one answer: attempts until content, then the stream, untouched.

Models one exchange's upstream side. `run` walks the planned targets; everything between a request's last byte and the
answer's end happens in callbacks of the connection (`attempt.py`), so a chunk costs no task switch. Nothing goes
downstream before *content*: until then every failure is another attempt. From content on bytes are forwarded as they
arrive, and an answer that ends before it is complete is ended honestly.

On a stream that stays silent for `hold_s`, 200 goes out with keep-alive comments, and failover stays open all the same.

Invariants: one verdict per attempt; phases move only along `phases.TRANSITIONS`; the exchange is said to be over to
the caller exactly once. Left out: which targets there are (routing), how bytes reach the caller (`reply.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from gateway.errors import (
    GatewayError,
    NoTarget,
    Overloaded,
    Retry,
    StreamTruncated,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.record import CALLER_GONE, SLOW_READER, Attempt, Ending, Outcome, Usage
from gateway.relay.attempt import AttemptRun, Taking
from gateway.relay.outgoing import Outgoing, Target
from gateway.relay.phases import Happening, Phase, step
from gateway.relay.reply import AnswerHead, Reply
from gateway.relay.upstream import Connection
from gateway.routing.match import Terms
from gateway.units import NS_PER_MS, NS_PER_S, NS_PER_US
from gateway.wheel import Wheel

_DONE_GRACE_NS: Final = 1 * NS_PER_S  # between the completion mark and the end of the body
_COMMENT: Final = b": keep-alive\n\n"
_SSE_LINES: Final = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
_OK: Final = "ok"
_EVENTS: Final = Taking.EVENTS  # a member looked up in its enum takes 50 ns, a global 2
_FAILED: Final = Ending.FAILED
_CONNECTING: Final = Phase.CONNECTING
_AWAITING: Final = Phase.AWAITING
_CONNECTED: Final = Happening.CONNECTED
_CONTENT: Final = Happening.CONTENT
_ENDED: Final = Happening.ENDED
_SETTINGS: Final = {"first_byte": "first_byte_s", "first_content": "first_content_s", "idle": "idle_s"}
_ENDINGS: Final = {
    Phase.COMPLETE: Ending.COMPLETE,
    Phase.FAILED: Ending.FAILED,
    Phase.TRUNCATED: Ending.TRUNCATED,
    Phase.ABANDONED: Ending.ABANDONED,
}


class Digest(Protocol):
    """Is shown all that goes to the caller of a provider's answer."""

    def update(self, data: bytes) -> None:
        """More of it."""


Admit = Callable[[Target, Outcome], Awaitable[bool]]
"""Whether a target may be tried after attempts that failed, whose outcome this would be if none followed."""


class Transfer:
    """One exchange's attempts and stream. Made per request, run once.

    `usage`: as the last attempt's provider said it. `text_bytes`: of an answer that ended early, the bytes of text that
    passed; -1 where that is not known.
    """

    __slots__ = (
        "_answer_bytes",
        "_attempt",
        "_attempt_ns",
        "_broken",
        "_comment_ns",
        "_content_ns",
        "_digest",
        "_done_ns",
        "_held",
        "_last_ns",
        "_request_bytes",
        "_started_ns",
        "_status",
        "_upstream_ns",
        "_verdict",
        "attempts",
        "error",
        "out",
        "phase",
        "reply",
        "streaming",
        "terms",
        "text_bytes",
        "usage",
        "wheel",
        "wheel_tick",
    )

    def __init__(self, out: Outgoing, reply: Reply, terms: Terms, wheel: Wheel, digest: Digest | None = None) -> None:
        self.out = out
        self.reply = reply
        self.terms = terms
        self.wheel = wheel
        self._digest = digest
        self.attempts: list[Attempt] = []
        self._started_ns = self._last_ns = time.monotonic_ns()
        self._comment_ns = self._started_ns + terms.hold_ns if out.streamed and not out.raw else 0
        self.wheel_tick = 0
        self.phase: Phase = _CONNECTING
        self.streaming = False
        self.error: GatewayError | None = None
        self.usage: Usage | None = None
        self.text_bytes = -1
        self._broken = False
        self._attempt: AttemptRun | None = None
        self._attempt_ns = 0
        self._content_ns = 0
        self._done_ns = 0  # when the completion mark came
        self._held = False  # 200 went out before any content, to keep the connection alive
        self._upstream_ns = 0
        self._request_bytes = 0
        self._answer_bytes = 0
        self._status = 0
        self._verdict: asyncio.Future[UpstreamError | None] | None = None

    @property
    def sent_bytes(self) -> int:
        """Bytes of the request that have gone to providers, by the attempts that are over."""
        return self._request_bytes

    # --- attempts ---------------------------------------------------------------------------------------------------

    async def run(self, targets: Sequence[Target], admit: Admit | None = None) -> Outcome:
        """Try the targets in order until one answers; returns how it ended, also when the caller left.

        `admit` is asked before each but the first. Being cancelled means that the caller has gone: the upstream is
        aborted at once.
        """
        try:
            last: UpstreamError | Overloaded | None = None
            for target in targets[: self.terms.max_attempts]:
                if last is not None:
                    if admit is not None and not await admit(target, self._outcome()):
                        continue
                    self._go_on()
                last = await self._try(target)
                if last is None or not self._may_go_on(last):
                    break
            if not targets:
                raise NoTarget("no provider of this model can serve this API")
            if last is not None:
                self._give_up(last)
        except asyncio.CancelledError:
            self._abandon(CALLER_GONE)
        finally:
            self.wheel.disarm(self)
        outcome = self._outcome()
        self._attempt = None  # attempt and transfer hold each other, and the body: see Exchange.release
        return outcome

    def _go_on(self) -> None:
        """To another target, of which nothing is known yet."""
        self.phase = step(self.phase, Happening.NEXT_TARGET)
        self.usage, self._broken = None, False

    async def _try(self, target: Target) -> UpstreamError | Overloaded | None:
        """One target. Returns None when the exchange is over (however it ended), else why to try another."""
        self._attempt_ns = time.monotonic_ns()
        self._attempt = None
        conn = target.pool.take()
        while True:
            if conn is None:
                try:
                    conn = await self._connect(target)
                except (UpstreamError, Overloaded) as error:
                    took_ns = time.monotonic_ns() - self._attempt_ns
                    self._upstream_ns += took_ns
                    self.attempts.append(Attempt(target.name(self.out.star), error.code, 0, took_ns // NS_PER_MS))
                    self.phase = step(self.phase, Happening.UPSTREAM_FAILED)
                    return error
            verdict: asyncio.Future[UpstreamError | None] = self.wheel.loop.create_future()
            self._verdict = verdict
            attempt = self._ask(target, conn)
            reason = await verdict
            if not (attempt.stale and reason is not None and self._may_resend()):
                return reason
            self.phase = step(step(self.phase, Happening.NEXT_TARGET), _CONNECTED)
            conn = self._attempt = None  # a pooled connection had died unseen: once more, on a fresh one

    async def _connect(self, target: Target) -> Connection:
        left_ns = self._started_ns + self.terms.total_ns - self._attempt_ns
        self.wheel.arm(self, self._next_deadline())
        return await target.pool.connect(max(1, min(self.terms.connect_ns, left_ns)) / NS_PER_S)

    def _ask(self, target: Target, conn: Connection) -> AttemptRun:
        out = self.out
        try:
            attempt = self._attempt = AttemptRun(self, target, conn)
        except BaseException:
            conn.abort()  # it was taken and will not be started
            raise
        if self.phase is _CONNECTING:
            self.phase = step(_CONNECTING, _CONNECTED)
        encoded, upload = attempt.encoded, out.upload
        conn.start(
            encoded.head, encoded.body, attempt, head_request=out.method == "HEAD", body_follows=upload is not None
        )
        self.wheel.arm(self, self._next_deadline())
        if upload is not None and attempt.conn is conn:
            upload.attach(self)
        return attempt

    def _may_resend(self) -> bool:
        return self.out.replayable and self.out.upload is None

    def _may_go_on(self, error: UpstreamError | Overloaded) -> bool:
        elsewhere = error.retry is Retry.ELSEWHERE or isinstance(error, Overloaded)  # its pool is full, not the others'
        if not elsewhere or (self._request_bytes and not self._may_resend()):
            return False
        return time.monotonic_ns() < self._started_ns + self.terms.total_ns

    def _give_up(self, error: UpstreamError | Overloaded) -> None:
        """Nothing more to try: the last provider's own refusal where it gave one, else our error."""
        self.phase = step(self.phase, Happening.NO_MORE_TARGETS)
        self.error = error
        attempt = self._attempt
        if type(error) is UpstreamStatus and not self._held and attempt is not None and attempt.body:
            self._send_whole(attempt, attempt.body)
        else:
            self._status = self._status or error.status
            self.reply.fail(error, self.attempts, self._upstream_ns)

    # --- what an attempt tells --------------------------------------------------------------------------------------

    def content(self, attempt: AttemptRun) -> None:
        """Content has come: the head goes out, and from here on the answer belongs to this target."""
        self.phase = step(self.phase, _CONTENT)
        self.streaming = True
        self._content_ns = self._last_ns = now_ns = time.monotonic_ns()
        if not self._held:
            took_ns = now_ns - self._attempt_ns
            told = [*self.attempts, attempt.row(_OK, took_ns)]
            self.reply.start(self._head(attempt, attempt.length, told, self._upstream_ns + took_ns))
        if self.reply.paused:  # by the answer before this one, so nobody will tell us
            self.pause()
        self.wheel.arm(self, self._next_deadline())

    def forward(self, data: bytes) -> None:
        """Bytes for the caller."""
        self._last_ns = time.monotonic_ns()
        self._answer_bytes += len(data)
        if self._digest is not None:
            self._digest.update(data)
        self.reply.data(data)

    def completion_seen(self) -> None:
        """The dialect's completion mark has come; the end of the body should follow at once."""
        self._done_ns = time.monotonic_ns()
        self.wheel.arm(self, self._done_ns + _DONE_GRACE_NS)

    def whole(self, attempt: AttemptRun, body: bytes, usage: Usage | None, cause: str) -> None:
        """A complete answer, or a refusal that is the caller's to read, which is no content."""
        now_ns = time.monotonic_ns()
        if cause == _OK:
            self._content_ns = now_ns
        self.usage = usage
        self._ended(attempt, cause, now_ns)
        self.phase = step(self.phase, _ENDED)
        try:
            self._send_whole(attempt, body)
        finally:
            self._give(None)

    def finished(self, attempt: AttemptRun, usage: Usage | None) -> None:
        """A streamed answer is complete."""
        self.usage = usage
        self._ended(attempt, _OK, time.monotonic_ns())
        self.phase = step(self.phase, _ENDED)
        try:
            self.reply.end()
        finally:
            self._give(None)

    def cut(self, attempt: AttemptRun, cause: str) -> None:
        """The answer ended incomplete, and the caller has been told by the provider itself."""
        self._end_early(attempt, cause)
        try:
            self.reply.cut()
        finally:
            self._give(None)

    def attempt_failed(self, attempt: AttemptRun, error: UpstreamError) -> None:
        """Another attempt if nothing has gone out, else the honest end."""
        if not self.streaming:
            if attempt.stale and self._may_resend():
                self._request_bytes += attempt.request_bytes
            else:
                self.usage, self._broken = attempt.usage, attempt.begun
                self._ended(attempt, error.code, time.monotonic_ns())
            self.phase = step(self.phase, Happening.UPSTREAM_FAILED)
            self._give(error)
            return
        truncated = error if isinstance(error, StreamTruncated) else _broke_off(error)
        self.error = truncated
        self._end_early(attempt, error.code)
        try:
            self.reply.fail(truncated, self.attempts, self._upstream_ns)
        finally:
            self._give(None)

    # --- what the caller's side tells -------------------------------------------------------------------------------

    def pause(self) -> None:
        """The caller reads too slowly: stop reading from the provider."""
        if self._attempt is not None and self._attempt.conn is not None:
            self._attempt.conn.pause()

    def resume(self) -> None:
        """The caller reads again."""
        if self._attempt is not None and self._attempt.conn is not None:
            self._last_ns = time.monotonic_ns()
            self._attempt.conn.resume()

    def upload_data(self, data: bytes) -> None:
        """More of the request body, framed as the head announced it."""
        conn = self._attempt.conn if self._attempt is not None else None
        if conn is not None and data:
            conn.write(data if self.out.length >= 0 else b"%x\r\n%b\r\n" % (len(data), data))

    def upload_end(self) -> None:
        """The request body is complete."""
        conn = self._attempt.conn if self._attempt is not None else None
        if conn is not None:
            if self.out.length < 0:
                conn.write(b"0\r\n\r\n")
            conn.finish()

    # --- time -------------------------------------------------------------------------------------------------------

    def on_deadline(self, now_ns: int) -> int:
        """The wheel's call: end what took too long, keep quiet streams alive, name the next deadline."""
        if self.phase in _ENDINGS:
            return 0
        if self._comment_ns and now_ns >= self._comment_ns and not self.streaming:
            self._send_comment(now_ns)
        late, attempt = self._too_late(now_ns), self._attempt
        if not late:
            return self._next_deadline()
        if attempt is None or self.phase is _CONNECTING:
            return 0  # `connect` has the same limit and says so itself
        if late == "done":
            attempt.grace_over()
        elif late == SLOW_READER:
            self._abandon(late)
            self._give(None)
        else:
            setting = _SETTINGS.get(late, "total_s")
            attempt.fail(UpstreamTimeout(f"the provider exceeded the time limit {setting}", which=late))
        return 0

    def _next_deadline(self) -> int:
        terms = self.terms
        deadline = self._started_ns + terms.total_ns
        if self.streaming:
            return min(deadline, self._last_ns + terms.idle_ns)
        if self._comment_ns and self._comment_ns < deadline:
            deadline = self._comment_ns
        if self.phase is _AWAITING:
            headed = self._attempt is not None and self._attempt.head is not None
            limit_ns = self._attempt_ns + (terms.first_content_ns if headed else terms.first_byte_ns)
            return limit_ns if limit_ns < deadline else deadline  # noqa: FURB136 - each request comes here
        return deadline

    def _too_late(self, now_ns: int) -> str:
        """Which limit has run out; "" for none."""
        terms = self.terms
        if self._done_ns and now_ns >= self._done_ns + _DONE_GRACE_NS:
            return "done"
        if now_ns >= self._started_ns + terms.total_ns:
            return "total"
        if self.streaming:
            late = now_ns >= self._last_ns + terms.idle_ns
            return (SLOW_READER if self.reply.paused else "idle") if late else ""
        if self.phase is not _AWAITING:
            return ""
        headed = self._attempt is not None and self._attempt.head is not None
        which, limit_ns = ("first_content", terms.first_content_ns) if headed else ("first_byte", terms.first_byte_ns)
        return which if now_ns >= self._attempt_ns + limit_ns else ""

    def _send_comment(self, now_ns: int) -> None:
        if not self._held:
            self._held = True
            self._status = 200
            waited_ns = self._upstream_ns + now_ns - self._attempt_ns
            self.reply.start(AnswerHead(200, _SSE_LINES, -1, "", self.attempts, (), waited_ns, sse=True))
        self.reply.data(_COMMENT)
        self._comment_ns = now_ns + self.terms.comment_ns

    # --- endings ----------------------------------------------------------------------------------------------------

    def _abandon(self, cause: str) -> None:
        """The caller has left, or does not read: stop the provider at once, remember what was used."""
        if self.phase in _ENDINGS:
            return
        attempt = self._attempt
        if attempt is not None and self.phase in (Phase.AWAITING, Phase.STREAMING):
            attempt.drop()
            self._keep_used(attempt)
            self._ended(attempt, cause, time.monotonic_ns())
        self.phase = step(self.phase, Happening.DOWNSTREAM_GONE)
        if cause != CALLER_GONE:
            self.reply.cut()

    def _end_early(self, attempt: AttemptRun, cause: str) -> None:
        self._keep_used(attempt)
        self._ended(attempt, cause, time.monotonic_ns())
        self.phase = step(self.phase, Happening.UPSTREAM_FAILED)

    def _keep_used(self, attempt: AttemptRun) -> None:
        self.usage = attempt.usage
        if attempt.tap is not None:
            self.text_bytes = attempt.tap.metered_bytes

    def _send_whole(self, attempt: AttemptRun, body: bytes) -> None:
        head = attempt.head
        length = head.content_length if self.out.method == "HEAD" and head is not None else len(body)
        if self._held:  # 200 and comments have gone out: only an event can still tell
            status = head.status if head is not None else 0
            self.reply.fail(
                self.error or UpstreamStatus(f"the provider answered {status}"), self.attempts, self._upstream_ns
            )
            return
        self._answer_bytes += len(body)
        if self._digest is not None:
            self._digest.update(body)
        self.reply.whole(self._head(attempt, length, self.attempts, self._upstream_ns), body)

    def _head(self, attempt: AttemptRun, length: int, attempts: Sequence[Attempt], upstream_ns: int) -> AnswerHead:
        status = self._status = attempt.head.status if attempt.head is not None else 0
        return AnswerHead(
            status,
            attempt.header_lines(),
            length,
            attempts[-1].target,
            attempts,
            attempt.encoded.changed,
            upstream_ns,
            attempt.taking is _EVENTS,
        )

    def _ended(self, attempt: AttemptRun, cause: str, now_ns: int) -> None:
        """This attempt is over: what it took, and its row."""
        took_ns = now_ns - self._attempt_ns
        self._request_bytes += attempt.request_bytes
        self._upstream_ns += took_ns
        self.attempts.append(attempt.row(cause, took_ns))

    def _give(self, error: UpstreamError | None) -> None:
        verdict = self._verdict
        if verdict is not None and not verdict.done():
            verdict.set_result(error)

    def _outcome(self) -> Outcome:
        attempt = self._attempt
        return Outcome(
            _ENDINGS.get(self.phase, _FAILED),
            self._status,
            tuple(self.attempts),
            self.usage,
            self.error.code if self.error is not None else "",
            attempt is not None and attempt.taking is _EVENTS,
            self._request_bytes,
            self._answer_bytes,
            (self._content_ns - self._started_ns) // NS_PER_US if self._content_ns else -1,
            self._upstream_ns // NS_PER_US,
            attempt.encoded.changed if attempt is not None else (),
            attempt is None or not attempt.request_bytes,
            self._broken,
        )


def _broke_off(error: UpstreamError) -> StreamTruncated:
    return StreamTruncated("the answer broke off: " + error.message, detail=error.code)
