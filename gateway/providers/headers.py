"""Which headers cross the gateway, and which do not.

Towards the provider everything passes except what is about this connection, what proves who the caller is, what
another hop said about it, and what is ours to set. Towards the caller only a list passes: a provider's answer
carries account names, rate limits shared by all tenants, and cookies.

Invariant: a name in a `connection:` header is hop-by-hop for that message and never passes. Sources: RFC 9110 7.6.1
(hop-by-hop), RFC 9112.
"""

from collections.abc import Iterable
from typing import Final

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
CREDENTIALS: Final = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie"})
_OURS: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"expect",
        b"accept-encoding",
        b"traceparent",
        b"tracestate",
        b"forwarded",
        b"x-real-ip",
        b"via",
        b"x-request-id",
        b"openai-organization",  # they would choose among the accounts of the gateway's own key
        b"openai-project",
    }
)
_NEVER: Final = HOP_BY_HOP | CREDENTIALS | _OURS
_NEVER_PREFIXES: Final = (b"x-gateway-", b"x-forwarded-", b"sec-", b"cf-")

TO_CALLER: Final = frozenset(
    {
        b"content-type",
        b"content-disposition",
        b"content-language",
        b"cache-control",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
        b"openai-processing-ms",
        b"openai-version",
        b"openai-model",
    }
)

_MAX_REMEMBERED: Final = 1024


class Forwarded:
    """The caller's headers that go upstream: their names, and their lines as one block when nothing overrides.

    `heads` is for whoever makes request heads: one per target, as long as the caller's own head stays the same.
    """

    __slots__ = ("block", "heads", "names", "pairs")

    def __init__(self, pairs: tuple[tuple[bytes, bytes], ...]) -> None:
        self.names = frozenset([name for name, _ in pairs])
        self.pairs = pairs
        self.block = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
        self.heads: dict[object, bytes] = {}

    def without(self, names: frozenset[bytes]) -> bytes:
        """The block less these headers."""
        if self.names.isdisjoint(names):
            return self.block
        return b"".join(b"%b: %b\r\n" % pair for pair in self.pairs if pair[0] not in names)


_known_names: dict[bytes, bool] = {}


def passes(name: bytes) -> bool:
    """Whether a header of this lower-case name may go from the caller to a provider."""
    known = _known_names.get(name)
    if known is None:
        known = name not in _NEVER and not name.startswith(_NEVER_PREFIXES)
        if len(_known_names) < _MAX_REMEMBERED:  # names are chosen by callers: remember a bounded number
            _known_names[name] = known
    return known


def forwarded(headers: Iterable[tuple[bytes, bytes]], connection: bytes = b"") -> Forwarded:
    """What of the caller's headers goes upstream; `connection` is the value of its Connection header."""
    dropped = _named_by(connection) if connection else ()
    return Forwarded(tuple([pair for pair in headers if passes(pair[0]) and pair[0] not in dropped]))


def caller_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What of a provider's headers goes to the caller, as lines; how its body is framed is the relay's matter."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers if pair[0] in TO_CALLER])


def _named_by(connection: bytes) -> frozenset[bytes]:
    return frozenset(part.strip().lower() for part in connection.split(b","))
