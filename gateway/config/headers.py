"""Which headers an operator may add to what goes upstream.

Refused: what frames the message or belongs to one connection (a second `content-length` is request smuggling), what
carries a credential (`api_key` is for that, and is kept out of logs), and our own `x-gateway-*`.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?\Z")
_MAX_VALUE: Final = 8192
CREDENTIALS: Final = frozenset(
    {"authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie"}
)
_CONNECTION: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_MESSAGE: Final = frozenset({"host", "content-length", "content-type", "content-encoding", "accept-encoding"})
_REFUSED: Final = (
    (_CONNECTION, "belongs to one connection and cannot be set: remove it"),
    (_MESSAGE, "is set by the gateway for every request: remove it"),
    (CREDENTIALS, "carries a credential: use the provider's `api_key`, or `credential: caller`"),
)
_OURS: Final = "x-gateway-"


def fault(name: str, value: str) -> str:
    """Why this header cannot be added, "" when it can. The value is never part of the answer."""
    if not _TOKEN.match(name):
        return "is not a header name: use letters, digits and `-`"
    lowered = name.lower()
    for names, why in _REFUSED:
        if lowered in names:
            return why
    if lowered.startswith(_OURS):
        return "is a header of the gateway itself: use another name"
    if len(value) > _MAX_VALUE or not _VALUE.match(value):
        return "has a value no header can carry: printable ASCII, not empty, no blanks at its ends"
    return ""
