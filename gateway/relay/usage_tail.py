"""Usage out of what is left of an answer: from the tail of one that was too long to keep, and a look for errors.

A JSON answer above a MiB (embeddings mostly) is forwarded unread; its `usage` stands near the end, so the last few
KiB are kept and searched. Numbers are read by the dialect itself, from a body rebuilt around the found object.
"""

from typing import Final

import msgspec

from gateway.dialects.base import Dialect, Surface
from gateway.record import Usage

BYTES: Final = 4096
_USAGE: Final = b'"usage"'
_ERROR_WITHIN: Final = 64


class _MaybeError(msgspec.Struct, gc=False):
    error: msgspec.Raw = msgspec.Raw()  # msgspec knows no `Raw | None`


_error_decoder: Final = msgspec.json.Decoder(_MaybeError)


def read(dialect: Dialect, surface: Surface, tail: bytes) -> Usage | None:
    """Usage found in the last bytes of an answer, None when there is none or it is cut."""
    at = tail.rfind(_USAGE)
    if at < 0:
        return None
    found = _object_behind(tail, at + len(_USAGE))
    return dialect.read_usage(surface, b'{"usage":' + found + b"}") if found else None


def looks_like_error(body: bytes) -> bool:
    """Whether a whole answer of a success status says that it is an error (`{"error": {…}}` and nothing above it)."""
    if body.find(b'"error"', 0, _ERROR_WITHIN) < 0:
        return False
    try:
        error = _error_decoder.decode(body).error
    except (msgspec.DecodeError, RecursionError):
        return False
    return bytes(error)[:1] in (b"{", b'"')


def _object_behind(tail: bytes, at: int) -> bytes:
    start = tail.find(b"{", at)
    if start < 0 or tail[at:start].strip() != b":":
        return b""
    depth = 0
    for index in range(start, len(tail)):
        depth += (tail[index] == ord("{")) - (tail[index] == ord("}"))
        if depth == 0:
            return tail[start : index + 1]
    return b""
