"""A head known by its bytes: a message that begins with them, and is all there, needs no parser.

Who keeps a connection open sends the same head again and again, callers with every request, providers for as long as
their `date` is the same; what differs is the length. A parser is a function of its state and of the bytes. Between two
messages, the first of which lets another follow, its state is always the same: bytes that it has read as one head it
would read as that head again. Only the digits of `content-length` may differ, and they mean nothing but a number.

Invariants: a head is remembered from a read that was one whole message, after the parser has accepted it and it was
judged; whatever is not that head with other digits, and exactly as many bytes behind it as they say, is left to the
parser. Left out: what the head means, and which are worth it (`listener/reader.py`, `relay/answer.py`).
"""

import re
from typing import Final, Generic, TypeVar

H = TypeVar("H")

MAX_BYTES: Final = 4096  # of a head that is remembered
_MAX_DIGITS: Final = 9
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ([0-9]{1,%d})\r\n" % _MAX_DIGITS, re.IGNORECASE)
_BLANK_LINE: Final = b"\r\n\r\n"


class Familiar(Generic[H]):
    """A head as it was read, and its bytes: before the digits of its length, and behind them, to its blank line."""

    __slots__ = ("_before", "_behind", "_behind_bytes", "_digits_at", "head")

    def __init__(self, head: H, before: bytes, behind: bytes) -> None:
        self.head = head
        self._before = before
        self._behind = behind
        self._digits_at = len(before)
        self._behind_bytes = len(behind)

    def body_of(self, data: bytes) -> bytes | None:
        """The body of the message that `data` is, None when it is not one of this head."""
        if not data.startswith(self._before):
            return None
        start = self._digits_at
        end = data.find(b"\r", start, start + _MAX_DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._behind, end):
            return None
        body = data[end + self._behind_bytes :]
        return body if len(body) == int(digits) else None


def learn(data: bytes, head: H, length: int) -> Familiar[H] | None:
    """Remember the head of the message that `data` is, read as this one; None where it is not, or not worth it."""
    end = len(data) - length
    lengths = list(_LENGTH.finditer(data, 0, end))
    if end > MAX_BYTES or data.find(_BLANK_LINE) + len(_BLANK_LINE) != end or len(lengths) != 1:
        return None
    digits_at, behind_at = lengths[0].span(1)
    return Familiar(head, data[:digits_at], data[behind_at:end])
