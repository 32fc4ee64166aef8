"""What a dialect is: a wire format, read and spoken without knowing a socket, a clock or a vendor's account.

A dialect answers four questions. What does this request ask (`read_request`)? What does this event mean
(`StreamReader.read`)? What was used (`read_usage`)? How is an error said (`error_body`, `error_event`)?

Invariants: reading never changes bytes; every change of a body is an `Edit` on the caller's own bytes, so unknown
fields and spelling survive. Flags returned by a reader are facts about one event and never guesses: an event that
cannot be read is content of unknown kind, passed on, with no flag set but `UNREADABLE`.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, IntFlag
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.errors import GatewayError
from gateway.record import Usage


class BodyMode(Enum):
    """How a surface takes its request body."""

    NONE = "none"  # GET: a body is refused
    BUFFERED = "buffered"  # JSON, whole in memory up to max_body_bytes
    MULTIPART = "multipart"  # spooled until the `model` part is found, then streamed on
    RAW = "raw"  # streamed through unread (passthrough)


class Reply(Enum):
    """Who answers a surface."""

    RELAYED = "relayed"  # a provider
    LOCAL = "local"  # the gateway itself, from its config


class Surface(msgspec.Struct, frozen=True):
    """One API path callers may use: how it is recognised, read and answered."""

    name: str  # chat.completions: the name in routes, logs and metrics
    dialect: str
    method: str  # "*" on passthrough
    path: str  # /v1/chat/completions, {name} for one segment, {name...} for the rest
    body: BodyMode
    upstream_path: str = ""  # joined to the provider's base_url; may name the path's parameters
    reply: Reply = Reply.RELAYED
    usage_flag: bool = False  # stream usage must be asked for in the body (stream_options.include_usage)
    json_or_multipart: bool = False  # the content-type decides between BUFFERED and MULTIPART
    default_model: str = ""  # what the API documents for a body that names no model; "" where one must


class Edit(NamedTuple):
    """Replace body[start:end] with `put`; start == end inserts."""

    start: int
    end: int
    put: bytes


Talk = tuple[Sequence[Any], Mapping[str, bytes]]


class RequestFacts(msgspec.Struct, gc=False):
    """What decisions need to know of a request body, and where the model name stands in it.

    `model_start:model_end` spans the JSON string including its quotes; both are -1 where the body names no model and
    `model` is the surface's documented default. `stored` lists fields that name objects
    stored at a provider ("previous_response_id"). `members_at` is the offset just behind the opening brace, where
    a member can be inserted (`empty` tells whether a comma must follow). `usage_asked` is what the caller said on
    stream usage; `stream_options` spans its value when present. `talk` is what was decoded of a chat that holds nothing
    but text, pictures and tool calls: its messages, and the JSON of members that decisions are made by. Whoever
    measures it, or need not, lets go of it: it is as large as the body.
    """

    model: str
    stream: bool = False
    model_start: int = 0
    model_end: int = 0
    members_at: int = 1
    empty: bool = False
    names: frozenset[str] = frozenset()
    usage_asked: bool = False
    stream_options: tuple[int, int] | None = None
    stored: tuple[str, ...] = ()
    end_user: str = ""
    stores: bool = False  # the provider keeps the answer as an object of its own (`store` not false)
    form: bool = False  # multipart: the model's span is the bare value, not a JSON string
    n: int = 1  # answers that a form asks for; `measure.py` reads those of JSON
    talk: Talk | None = None


class Seen(IntFlag):
    """What one event showed."""

    NOTHING = 0
    CONTENT = 1  # text, reasoning, refusal, tool call, audio or a finish reason: failover ends here
    USAGE = 2  # `StreamReader.usage` was updated
    USAGE_ONLY = 4  # the event exists only because usage was asked for: it can be withheld
    DONE = 8  # the dialect's completion mark: what follows is not part of the answer
    ERROR = 16  # an error inside a 200; `StreamReader.error` has the provider's JSON
    UNREADABLE = 32  # not an event of this dialect


class StreamReader(Protocol):
    """Reads the events of one streamed answer, in order, and remembers what it must."""

    usage: Usage | None
    error: bytes
    text_bytes: int  # delta text seen so far, as JSON spells it: what an abandoned stream is metered by

    def read(self, event: bytes) -> int:
        """Seen flags of one whole SSE event, given with its line ends; comments are NOTHING."""

    def complete_at_eof(self) -> bool:
        """Whether a clean end of the body now would make the answer complete (every choice finished)."""


class Dialect(Protocol):
    """One wire format. Implementations are modules' singletons; they hold no state of a request."""

    name: str

    def read_request(self, surface: Surface, body: bytes) -> RequestFacts:
        """Facts of a JSON body. Raises InvalidRequest (400) naming the field and the fix."""

    def stream_reader(self, surface: Surface) -> StreamReader:
        """A fresh reader for one streamed answer."""

    def read_usage(self, surface: Surface, body: bytes) -> Usage | None:
        """Usage of a whole (not streamed) answer, None where it says none."""

    def read_error(self, body: bytes) -> str:
        """The provider's own message from an error answer, "" when there is none to be read."""

    def error_body(self, error: GatewayError, request_id: str) -> bytes:
        """The error as this dialect's JSON answer."""

    def error_event(self, surface: Surface, error: GatewayError, request_id: str) -> bytes:
        """The error as this surface's SSE event, with its final blank line."""

    def models_body(self, names: tuple[str, ...], created_s: int) -> bytes:
        """The list of models as this dialect's JSON answer."""

    def model_body(self, name: str, created_s: int) -> bytes:
        """One model as this dialect's JSON answer."""
