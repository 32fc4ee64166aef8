"""What goes to a provider: the caller's request, and the few bytes each target must change in it.

`Outgoing` is the request as every attempt sees it; `Target` is one provider account and model with its connection
pool, compiled at load; `Target.encode` joins the two into a request head and body. The caller's bytes pass as they
came, and every change of them is named in the result, for `x-gateway-changed`.

Invariant: the cost of encoding does not grow with the size of the body, but for one copy where something changes.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gateway.dialects import splice
from gateway.dialects.base import Dialect, Edit, RequestFacts, Surface
from gateway.ledger.prices import Price
from gateway.providers.base import Account
from gateway.providers.headers import Forwarded
from gateway.relay.pool import Pool


class Upload(Protocol):
    """A request body that is still arriving: relayed as it comes, so it can be sent only once."""

    def attach(self, sink: "UploadSink") -> None:
        """Deliver everything behind the prefix to `sink`, from now on and as fast as it takes it."""

    def pause(self) -> None:
        """Stop taking bytes from the caller."""

    def resume(self) -> None:
        """Take bytes from the caller again."""


class UploadSink(Protocol):
    """Where an upload goes."""

    def upload_data(self, data: bytes) -> None:
        """More bytes of the body, as the caller sent them, without transfer coding."""

    def upload_end(self) -> None:
        """The body is complete."""


class Outgoing(msgspec.Struct, gc=False):
    """One request, independent of where it goes.

    `length` is the body's total length, -1 when it is not known before its end (then it goes up chunked). `body` is
    the whole body, or with `upload` the part that has arrived. `replayable` is false where a second sending might
    create something twice.
    """

    surface: Surface
    dialect: Dialect
    method: str
    path: str  # the upstream path, joined behind an account's base path
    query: str
    headers: Forwarded
    body: bytes
    length: int
    facts: RequestFacts | None = None
    upload: Upload | None = None
    credential: bytes = b""
    trace_lines: bytes = b""
    replayable: bool = True
    streamed: bool = False  # the caller asked for a stream
    raw: bool = False  # passthrough: nothing is read or changed
    star: str = ""


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """Bytes for one attempt. `withhold_usage`: usage was asked for by us, so its event is not the caller's."""

    head: bytes
    body: bytes
    changed: tuple[str, ...]
    withhold_usage: bool


_MAX_HEADS: Final = 16  # remembered per caller's head
_BODYLESS: Final = frozenset({"GET", "HEAD", "DELETE"})
_NO_CHANGE: Final[tuple[str, ...]] = ()
_MODEL_CHANGED: Final = ("model",)
_STREAM_OPTIONS: Final = "stream_options"
_USAGE_FIELD: Final = f"{_STREAM_OPTIONS}.include_usage"


def _unknown(_model: str) -> Price | None:
    return None


class Target:
    """One provider account and model that can serve a request. `model` "" keeps the name the caller asked for."""

    def __init__(  # noqa: PLR0913 - all that the config says of a target, by name
        self,
        *,
        account: Account,
        pool: Pool,
        model: str,
        star: str = "",
        ask_usage: bool = False,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        defaults: dict[str, object] | None = None,
        price: Callable[[str], Price | None] = _unknown,
        context_tokens: int | None = None,
    ) -> None:
        self.account = account
        self.pool = pool
        self.context_tokens = context_tokens  # what the config says of it
        self._price = price
        self._pattern = model
        self._star = star
        self._ask_usage = ask_usage
        self._headers = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        self._overrides = account.overrides | {name for name, _ in headers}
        self._header_names = tuple(f"header:{name.decode()}" for name, _ in headers)
        self._defaults = {name: msgspec.json.encode(value) for name, value in (defaults or {}).items()}
        self.request_id_header = account.vendor.request_id_header
        self._fixed_model = "" if "*" in model and not star else self._name(star)
        self._fixed_name = f"{account.name}/{self._fixed_model}" if self._fixed_model else ""
        self._fixed_json = msgspec.json.encode(self._fixed_model) if self._fixed_model else b""
        self._renames = bool(self._fixed_json) and not (self._defaults or self._header_names)  # and does no more

    def name(self, star: str = "") -> str:
        """provider/model, as headers and records show it."""
        return self._fixed_name or f"{self.account.name}/{self._name(star)}"

    def model(self, star: str = "") -> str:
        """The provider's name of the model."""
        return self._fixed_model or self._name(star)

    def price(self, star: str = "") -> Price | None:
        """What the provider charges for the model, None where that is not known."""
        return self._price(self.model(star))

    def encode(self, out: Outgoing) -> Encoded:
        """Head and body of one attempt."""
        facts = out.facts
        if out.raw or facts is None:
            return Encoded(self._head(out, out.length), _framed(out, out.body), _NO_CHANGE, withhold_usage=False)
        if self._renames and facts.model_start >= 0 and not (facts.stream or facts.form or out.length < 0):
            return self._renamed(out, facts)
        edits, changed, withhold = self._edits(out, facts)
        body = splice.apply(out.body, edits) if edits else out.body
        length = out.length + len(body) - len(out.body) if out.length >= 0 else -1
        return Encoded(self._head(out, length), _framed(out, body), changed, withhold)

    def _renamed(self, out: Outgoing, facts: RequestFacts) -> Encoded:
        """What most requests come to: the model has another name here, and nothing else changes."""
        body = out.body
        if facts.model == self._fixed_model:
            return Encoded(self._head(out, out.length), body, _NO_CHANGE, withhold_usage=False)
        body = splice.replace(body, facts.model_start, facts.model_end, self._fixed_json)
        length = out.length + len(body) - len(out.body)
        return Encoded(self._head(out, length), body, _MODEL_CHANGED, withhold_usage=False)

    def _edits(self, out: Outgoing, facts: RequestFacts) -> tuple[list[Edit], tuple[str, ...], bool]:
        edits: list[Edit] = []
        added: dict[str, bytes] = {}
        changed = _NO_CHANGE
        model = self.model(self._star or out.star)
        if model != facts.model:
            changed = _MODEL_CHANGED
            if facts.model_start < 0:  # the body names none: the API's documented default was asked for
                added["model"] = msgspec.json.encode(model)
            else:
                edits.append(splice.set_model(facts, model))
        withhold = self._ask_usage and out.surface.usage_flag and facts.stream and not facts.usage_asked
        if _STREAM_OPTIONS in self._defaults and facts.stream_options is None:
            withhold = False  # the operator has decided
        if withhold:
            edits.append(splice.ask_usage(out.body, facts))
            changed = (*changed, _USAGE_FIELD)
        if self._defaults and not facts.form:
            missing = {name: value for name, value in self._defaults.items() if name not in facts.names}
            added.update(missing)
            changed = (*changed, *missing)
        if added:
            edits.append(splice.insert_members(facts, added))
        if self._header_names:
            changed += self._header_names
        return edits, changed, withhold

    def _head(self, out: Outgoing, length: int) -> bytes:
        heads = out.headers.heads
        head = heads.get(self)
        if head is None:
            if len(heads) >= _MAX_HEADS:
                heads.clear()
            head = heads[self] = self._constant_head(out)
        if length > 0:
            return b"%b%bcontent-length: %d\r\n\r\n" % (head, out.trace_lines, length)
        if length < 0:
            return b"%b%btransfer-encoding: chunked\r\n\r\n" % (head, out.trace_lines)
        return head + out.trace_lines + (b"\r\n" if out.method in _BODYLESS else b"content-length: 0\r\n\r\n")

    def _constant_head(self, out: Outgoing) -> bytes:
        """All of the head that stays the same while the caller's own head does."""
        account, headers = self.account, out.headers
        return b"".join(
            (
                self._start_line(out),
                self._headers,
                account.caller_lines(out.credential),
                headers.without(self._overrides),
                account.default_lines(headers.names),
            )
        )

    def _start_line(self, out: Outgoing) -> bytes:
        base = self.account.raw_path if out.raw else self.account.base_path
        path = out.path
        if out.raw and base.endswith("/v1") and path.startswith("/v1/"):
            path = path[3:]  # both spellings of a passthrough path mean the same place
        query = f"?{out.query}" if out.query else ""
        prefix = self.pool.origin.target_prefix
        return (
            self.account.start_line(out.method, base + path + query, prefix=prefix) + b"accept-encoding: identity\r\n"
        )

    def _name(self, star: str) -> str:
        return self._pattern.replace("*", star) if star else self._pattern

    def __repr__(self) -> str:
        return f"Target({self.account.name}/{self._pattern})"


def _framed(out: Outgoing, body: bytes) -> bytes:
    """The body as the head announces it: what is here of an upload of unknown length is its first chunk."""
    return b"%x\r\n%b\r\n" % (len(body), body) if out.length < 0 and body else body
