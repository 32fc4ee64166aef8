"""What is known about one request so far; each field has one writer, named beside it.

An exchange is born in the listener when a head is complete, walks through `pipeline.py`, and folds into one flat
Record at the end. Stages are handed the values they need, never the exchange.
"""

import time
from typing import TYPE_CHECKING, Final, Protocol

from gateway.dialects.base import Dialect, RequestFacts, Surface
from gateway.identity.identify import Principal
from gateway.journal.scribe import REFUSE
from gateway.providers.headers import Forwarded
from gateway.record import RECORD_VERSION, Ending, Kind, Outcome, Personal, Record
from gateway.relay.outgoing import Upload
from gateway.relay.reply import Reply
from gateway.spending import UNPRICED
from gateway.units import NS_PER_US

if TYPE_CHECKING:
    from gateway.dialects.asked import Asked
    from gateway.errors import GatewayError
    from gateway.journal.scribe import Digest, Sealed
    from gateway.limiter.reservation import Hold
    from gateway.relay.stream import Transfer
    from gateway.routing.match import Route

_REFUSED: Final = Outcome(ending=Ending.REFUSED, status=0)
_OUTCOME: Final = Kind.OUTCOME  # a member that is looked up in its class costs 0.05 µs
_REFUSAL: Final = Ending.REFUSED
_NOBODY: Final = Principal("")


class Head(Protocol):
    """A request head as the listener has judged it; it does not change, and may serve several exchanges."""

    method: str
    path: str
    query: str
    version_11: bool
    surface: Surface | None
    dialect: Dialect
    params: dict[str, str]
    forwarded: Forwarded
    key_digest: bytes
    provider_credential: bytes
    tracestate: bytes
    user_agent: str


class Intake(Protocol):
    """A request body as the listener holds it when the pipeline starts."""

    body: bytes  # all of it, or what has arrived when it goes on as an upload
    length: int  # in total, -1 unknown until its end
    encoding: bytes  # content-encoding the pipeline undoes, b"" for none
    facts: RequestFacts | None  # read on the way in (multipart), None when the body has yet to be read

    @property
    def upload(self) -> Upload | None:
        """The rest of the body, when it goes on as it arrives."""


class Exchange:
    """One request and what became of it."""

    intake: Intake  # the listener, when the body is ready
    reply: Reply  # likewise

    def __init__(self, exchange_id: str, head: Head, client_ip: str, *, keep_alive: bool) -> None:
        # the listener, when the head is complete
        self.exchange_id = exchange_id
        self.head = head
        self.client_ip = client_ip
        self.keep_alive = keep_alive
        self.traceparent = b""
        self.started_ns = time.monotonic_ns()  # and anew when the body is complete or its upload begins
        # the listener's responder
        self.answered_status = 0
        self.error: GatewayError | None = None
        # pipeline
        self.principal = _NOBODY
        self.trace_id = ""
        self.span_id = ""
        self.facts: RequestFacts | None = None
        self.model = "unknown"  # the pattern in the config that matched, never the caller's word
        self.route: Route | None = None
        self.data_class = ""  # with the route
        self.tariff = UNPRICED
        self.asked: Asked | None = None  # where limits count by it
        self.hold: Hold | None = None  # what was taken from its limits, until it is settled and after
        self.limits_verdict = ""  # where it is counted, or the limit that refused
        self.cost_microusd = 0
        self.decision = ""  # ALLOW once it is
        self.sealed: Sealed | None = None  # once it is written what may identify a person
        self.answer: Digest | None = None  # of what goes to the caller
        self.transfer: Transfer | None = None
        self.outcome = _REFUSED

    def release(self) -> None:
        """The exchange is recorded: let go of what only serving it needed.

        Exchange, reply, transfer, and the frames an error has come through, hold each other: without this a body
        would stay until the collector comes by, and large ones come too seldom to bring it.
        """
        self.transfer = None
        error = self.error
        if error is not None:
            error.__traceback__ = error.__cause__ = error.__context__ = None

    def personal(self) -> Personal:
        """What may identify a person: it leaves this process sealed, or not at all."""
        facts = self.facts
        end_user = facts.end_user if facts is not None else ""
        return Personal(self.principal.user, end_user, self.client_ip, self.head.user_agent)

    def fold(self, now_us: int, ended_ns: int, generation: int) -> Record:
        """The outcome record. `now_us` is wall-clock time, `ended_ns` the monotonic end."""
        head, outcome, principal, facts, error = self.head, self.outcome, self.principal, self.facts, self.error
        duration_us = (ended_ns - self.started_ns) // NS_PER_US
        overhead_us = duration_us - outcome.upstream_us
        attempts, ending, model = outcome.attempts, outcome.ending, self.model
        surface, route, sealed, answer, hold = head.surface, self.route, self.sealed, self.answer, self.hold
        return Record(  # in the order of its fields: a name costs 0.05 µs, and a default as much as a value
            _OUTCOME,
            self.exchange_id,
            now_us,
            RECORD_VERSION,
            "",  # session_id
            "",  # parent_action
            self.trace_id,
            self.span_id,
            principal.org,
            principal.team,
            "",  # agent
            principal.key_id,
            principal.role,
            None,  # personal, which is sealed
            sealed.text if sealed is not None else "",
            sealed.key.id if sealed is not None else "",
            surface.name if surface is not None else "",
            route.name if route is not None else "",
            facts.model if facts is not None else "",
            attempts[-1].target if attempts else "",
            outcome.streamed,
            REFUSE if ending is _REFUSAL else self.decision,
            "",  # policy_version
            {},  # findings
            self.data_class,
            self.limits_verdict,
            hold.id if hold is not None else "",
            {},  # hold_amounts, which the decision has
            self.answered_status,
            ending._value_,  # `value` is a property in Python, and slow
            outcome.error or (error.code if error is not None else ""),
            attempts,
            outcome.usage,
            self.cost_microusd,
            outcome.changed,
            (),  # dropped
            duration_us,
            max(0, overhead_us),
            outcome.first_content_us,
            outcome.upstream_bytes,
            outcome.downstream_bytes,
            "",  # prompt_digest, which the decision has
            answer.hexdigest() if answer is not None and outcome.downstream_bytes else "",
            "",  # node, which stands once a segment, as region and chain do
            "",
            "",
            generation,
            "",  # action, subject, detail, actor: of other kinds
            "",
            "",
            "",
            1,  # count
            0,  # segment, prev, signature, signed_by: of checkpoints
            "",
            "",
            "",
            hold.settled_amounts if hold is not None else {},
            model if model[-1:] == "*" else "",
        )
