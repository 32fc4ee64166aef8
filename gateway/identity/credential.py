"""Where callers put their credential: the headers of four SDK families, and what to do when they disagree.

`Authorization: Bearer`, `x-api-key`, `api-key`, `x-goog-api-key`. Several that agree are one credential, since some
SDKs send two. Two different ones are refused and not ranked: a proxy in front, or a provider behind, might rank them
the other way, and then the one that was checked is not the one that is used.
"""

from collections.abc import Iterable
from typing import Final

from gateway.errors import InvalidCredential

MAX_CREDENTIAL_BYTES: Final = 4096
_BEARER: Final = b"bearer "
_AUTHORIZATION: Final = b"authorization"
_PLAIN: Final = frozenset({b"x-api-key", b"api-key", b"x-goog-api-key"})
_MAY_BE: Final = frozenset(len(name) for name in (*_PLAIN, _AUTHORIZATION))  # spares most headers a copy


def find(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The credential of a request, None when it has none. Raises InvalidCredential when it cannot be told which.

    Names compare case-folded. An empty value counts as absent: SDKs send empty headers for keys that were not set.
    """
    found: bytes | None = None
    for name, value in headers:
        if len(name) not in _MAY_BE:
            continue
        lowered = name.lower()
        if lowered in _PLAIN:
            credential = value.strip()
        elif lowered == _AUTHORIZATION:
            credential = _bearer(value)
        else:
            continue
        if not credential or credential == found:
            continue
        if found is not None:
            raise InvalidCredential(
                "The request carries two different API keys. Send one, in `Authorization: Bearer` or `x-api-key`."
            )
        found = credential
    if found is not None and len(found) > MAX_CREDENTIAL_BYTES:
        raise InvalidCredential("The API key is too long to be one of this gateway.")
    return found


def _bearer(value: bytes) -> bytes:
    value = value.strip()
    if value[: len(_BEARER)].lower() == _BEARER:
        return value[len(_BEARER) :].strip()
    if not value or value.lower() == _BEARER.strip():
        return b""
    raise InvalidCredential("The Authorization header is not `Bearer` followed by an API key.")
