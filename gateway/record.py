"""The record of an exchange: what everything after the request reads, frozen from the first day.

Models one flat, versioned fact about a request. Kinds: `decision` (written before the first upstream byte),
`outcome` (when the exchange ended, however it ended), `admin`, `mode` (degraded in and out), `checkpoint`.

Invariants: a field, once published in a version, keeps its name, type and meaning; a new field gets a default, so
older records still decode; all amounts are integers. Personal data stands in `Personal` alone, because that part
is sealed with keys of its own and erased by destroying them. Left out: bodies. They never enter a record.
"""

from enum import Enum
from typing import Annotated, Final

import msgspec

RECORD_VERSION: Final = 1
_SAME_WRITER: Final = frozenset({"size", "time"})  # began a segment because its last one was full or old
CALLER_GONE: Final = "caller_gone"  # causes of attempts that no error ended: their caller left,
SLOW_READER: Final = "slow_reader"  # or would not read


class Kind(Enum):
    """What sort of fact a record states."""

    DECISION = "decision"
    OUTCOME = "outcome"
    ADMIN = "admin"
    MODE = "mode"
    CHECKPOINT = "checkpoint"


class Ending(Enum):
    """How an exchange ended; every exchange has exactly one."""

    COMPLETE = "complete"  # the answer was whole, whatever its status
    REFUSED = "refused"  # the gateway said no before any attempt
    FAILED = "failed"  # attempts were made and none produced an answer
    TRUNCATED = "truncated"  # the upstream broke off after content had gone out
    ABANDONED = "abandoned"  # the caller left


class UsageSource(Enum):
    """Where the numbers of a Usage come from."""

    PROVIDER = "provider"
    METERED = "metered"  # counted by the gateway from what passed through
    ESTIMATED = "estimated"


MAX_TOKENS: Final = 10**8  # of one kind in one answer; no context is within a tenth of it
TokenCount = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
"""Tokens as a provider says them; numbers that cannot be are not read, so that nothing counts with them."""


class Usage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Tokens of one answer. `input_tokens` includes cached ones, `output_tokens` includes reasoning.

    Dialects that report cached input apart (input without cache reads and writes) are normalised by their
    reader, so that the sum of two answers means something whatever served them.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    source: UsageSource = UsageSource.PROVIDER


class Attempt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One try at one target: what came of it and how long it took."""

    target: str  # provider/model as configured
    cause: str  # "ok", CALLER_GONE, SLOW_READER, or the code of the error that ended it
    status: int = 0  # the provider's HTTP status, 0 when none arrived
    took_ms: int = 0
    upstream_request_id: str = ""


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What the relay reports, for every ending alike."""

    ending: Ending
    status: int  # as sent downstream; 0 when nothing was
    attempts: tuple[Attempt, ...] = ()
    usage: Usage | None = None
    error: str = ""  # code of the error the caller saw, or would have seen
    streamed: bool = False
    upstream_bytes: int = 0  # request bytes handed to a provider: above zero, quota is charged
    downstream_bytes: int = 0  # body bytes handed to the caller's socket
    first_content_us: int = -1  # from the request's last byte to the first content event; -1: none came
    upstream_us: int = 0  # time spent waiting for the provider
    changed: tuple[str, ...] = ()  # what of the caller's request was changed for the last target
    unsent: bool = False  # no byte of the request went to the last target
    broken: bool = False  # failed within a whole answer, of which nothing had gone downstream yet


class Personal(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The fields that may identify a person; the journal seals this part as one blob."""

    user: str = ""
    end_user: str = ""
    client_ip: str = ""
    user_agent: str = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of the journal, flat, as the exchange folded into it; docs/journal.md tells every field.

    `at_us` is wall-clock microseconds since the epoch. Empty means not known or not built yet; a reader treats an
    absent field as empty. `personal` is never written: on a line it stands as `sealed`, under the key `sealed_by`.
    """

    kind: Kind
    exchange_id: str
    at_us: int
    v: int = RECORD_VERSION
    # ids
    session_id: str = ""
    parent_action: str = ""
    trace_id: str = ""
    span_id: str = ""
    # who: human -> agent -> key
    org: str = ""
    team: str = ""
    agent: str = ""
    key_id: str = ""
    role: str = ""
    personal: Personal | None = None
    sealed: str = ""
    sealed_by: str = ""
    # what
    surface: str = ""
    route: str = ""
    model: str = ""
    target: str = ""
    streamed: bool = False
    # decided on
    decision: str = ""  # "allow" or "refuse"
    policy_version: str = ""
    findings: dict[str, int] = {}
    data_class: str = ""
    limits_verdict: str = ""
    hold_id: str = ""
    hold_amounts: dict[str, int] = {}
    # how it went
    status: int = 0
    ending: str = ""
    error: str = ""
    attempts: tuple[Attempt, ...] = ()
    usage: Usage | None = None
    cost_microusd: int = 0
    changed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    duration_us: int = 0
    overhead_us: int = 0
    first_content_us: int = -1
    request_bytes: int = 0
    answer_bytes: int = 0
    # digests, keyed, so that a body can be matched by who holds the key and guessed by nobody
    prompt_digest: str = ""
    answer_digest: str = ""
    # where; node, region and chain stand once a segment, on its first line, and a reader adds them to the others
    node: str = ""
    region: str = ""
    chain: str = ""
    generation: int = 0
    # kinds admin, mode, checkpoint: what was done, entered, left or marked, and by whom
    action: str = ""
    subject: str = ""
    detail: str = ""
    actor: str = ""
    # how many exchanges this line stands for: above 1 where refusals are counted instead of told one by one
    count: int = 1
    # checkpoints: the segment that begins, the head of the chain before it, and a repair's signature
    segment: int = 0
    prev: str = ""
    signature: str = ""
    signed_by: str = ""
    # outcomes of a hold: what every bucket it was ever charged to has been charged in the end
    settled_amounts: dict[str, int] = {}
    # the entry of the config that a model matched, where that is a pattern: then the model's name is the caller's word
    entry: str = ""


class _Opened(msgspec.Struct, frozen=True):
    opened_by: str = ""


def begins_a_writer(record: Record) -> bool:
    """Whether a line is by another process than the lines before it: what those left open, nobody will close."""
    if record.kind is not Kind.CHECKPOINT or record.action != "segment":
        return record.kind is Kind.CHECKPOINT and record.action == "began"
    try:
        detail = msgspec.json.decode(record.detail or b"{}", type=_Opened)
    except (msgspec.DecodeError, RecursionError):
        return True
    return detail.opened_by not in _SAME_WRITER
