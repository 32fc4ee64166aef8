"""What is known about one request so far; each field has one writer, named beside it.

An exchange is born in the listener when a head is complete, walks through `pipeline.py`, and folds into one flat
Record at the end. Stages are handed the values they need, never the exchange.
"""

import time
from typing import Final, Protocol

from gateway.dialects.base import Dialect, RequestFacts, Surface
from gateway.errors import GatewayError
from gateway.identity.identify import Principal
from gateway.record import Attempt, Ending, Kind, Outcome, Personal, Record
from gateway.relay.outgoing import Upload
from gateway.relay.reply import Reply
from gateway.relay.stream import Transfer
from gateway.routing.match import Route
from gateway.units import NS_PER_US

_NO_PARAMS: Final[dict[str, str]] = {}
_REFUSED: Final = Outcome(ending=Ending.REFUSED, status=0)


class Intake(Protocol):
    """A request body as the listener holds it when the pipeline starts."""

    body: bytes  # all of it, or what has arrived when it goes on as an upload
    length: int  # in total, -1 unknown until its end
    encoding: bytes  # content-encoding still to be undone, b"" for none
    facts: RequestFacts | None  # read on the way in (multipart), None when the body has yet to be read
    upload: Upload | None


class Exchange:
    """One request and what became of it."""

    __slots__ = (
        "answer_head_ns",
        "answered_status",
        "client_ip",
        "connection",
        "credential",
        "dialect",
        "error",
        "exchange_id",
        "facts",
        "headers",
        "intake",
        "keep_alive",
        "method",
        "model",
        "outcome",
        "params",
        "path",
        "principal",
        "provider_credential",
        "query",
        "reply",
        "route",
        "span_id",
        "started_ns",
        "surface",
        "trace_id",
        "trace_lines",
        "traceparent",
        "tracestate",
        "transfer",
        "user_agent",
        "version_11",
    )

    def __init__(self, exchange_id: str, method: str, path: str, query: str) -> None:
        # the listener, when the head is complete
        self.exchange_id = exchange_id
        self.method = method
        self.path = path
        self.query = query
        self.headers: list[tuple[bytes, bytes]] = []
        self.client_ip = ""
        self.user_agent = ""
        self.credential: bytes = b""  # proves who the caller is to us
        self.provider_credential: bytes = b""  # forwarded where an account says `credential: caller`
        self.connection: bytes = b""
        self.traceparent: bytes = b""
        self.tracestate: bytes = b""
        self.keep_alive = False
        self.version_11 = True
        self.surface: Surface | None = None
        self.params: dict[str, str] = _NO_PARAMS
        self.dialect: Dialect | None = None
        self.reply: Reply | None = None
        # the listener, when the request is complete or its upload begins
        self.intake: Intake | None = None
        self.started_ns = time.monotonic_ns()
        # the listener's responder
        self.answered_status = 0
        self.answer_head_ns = 0
        # pipeline
        self.principal: Principal | None = None
        self.trace_id = ""
        self.span_id = ""
        self.trace_lines: bytes = b""
        self.facts: RequestFacts | None = None
        self.model = "unknown"  # the pattern in the config that matched, never the caller's word
        self.route: Route | None = None
        self.transfer: Transfer | None = None
        self.error: GatewayError | None = None
        self.outcome: Outcome = _REFUSED

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts of the finished exchange."""
        return self.outcome.attempts

    def fold(self, now_us: int, ended_ns: int) -> Record:
        """The outcome record. `now_us` is wall-clock time, `ended_ns` the monotonic end."""
        outcome, principal = self.outcome, self.principal
        duration_us = (ended_ns - self.started_ns) // NS_PER_US
        error = outcome.error or (self.error.code if self.error is not None else "")
        return Record(
            Kind.OUTCOME,
            self.exchange_id,
            now_us,
            trace_id=self.trace_id,
            span_id=self.span_id,
            org=principal.org if principal is not None else "",
            team=principal.team if principal is not None else "",
            key_id=principal.key_id if principal is not None else "",
            personal=Personal(
                user=principal.user if principal is not None else "",
                end_user=self.facts.end_user if self.facts is not None else "",
                client_ip=self.client_ip,
                user_agent=self.user_agent,
            ),
            surface=self.surface.name if self.surface is not None else "",
            route=self.route.name if self.route is not None else "",
            model=self.facts.model if self.facts is not None else "",
            target=outcome.attempts[-1].target if outcome.attempts else "",
            streamed=outcome.streamed,
            status=self.answered_status,
            ending=outcome.ending.value,
            error=error,
            attempts=outcome.attempts,
            usage=outcome.usage,
            duration_us=duration_us,
            overhead_us=max(0, duration_us - outcome.upstream_us),
            first_content_us=outcome.first_content_us,
            request_bytes=outcome.upstream_bytes,
            answer_bytes=outcome.downstream_bytes,
        )
