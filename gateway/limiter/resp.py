"""RESP2, as far as a client needs it: commands out, replies in, over any split of the bytes.

A reply is bytes (simple and bulk strings), int, None (null bulk or array), a list of replies, or a ReplyError, which is
a value here: an error answers one command and says nothing about the next. Source: the Redis serialization protocol
specification, version 2.

Invariants: replies come out in order, each once, whole; what follows the last whole reply stays for the next feed. A
reply larger than MAX_REPLY_BYTES, deeper than MAX_DEPTH or not RESP at all raises ProtocolViolation: the connection is
of no use any more. Left out: RESP3 and push messages, which a server sends only to those who ask.
"""

from typing import Final

MAX_REPLY_BYTES: Final = 1 << 20  # the longest answer of a script is some hundred bytes
MAX_DEPTH: Final = 8
_END: Final = b"\r\n"
_MAX_LINE: Final = 64 * 1024
_SIZES: Final = {b"$%d" % size: size for size in range(512)}
_BULK, _ARRAY, _INTEGER, _SIMPLE, _ERROR = b"$*:+-"


class ProtocolViolation(Exception):
    """What came is no reply: this is not a store, or bytes were lost."""


class ReplyError(Exception):
    """An error reply; `code` is its first word, such as NOSCRIPT."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


class _Incomplete(Exception):
    """The buffer ends before the reply does."""


def bulk(text: bytes) -> bytes:
    """One argument of a command."""
    return b"$%d\r\n%b\r\n" % (len(text), text)


def command(*arguments: bytes) -> bytes:
    """A whole command."""
    return b"*%d\r\n%b" % (len(arguments), b"".join(map(bulk, arguments)))


class Parser:
    """Takes replies out of a stream of bytes."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> list[object]:
        """All replies that are whole now. Raises ProtocolViolation."""
        if self._kept:
            data = self._kept + data
        elif data.startswith(b"$") and (strings := _only_short_strings(data)):
            return strings
        replies: list[object] = []
        at = 0
        try:
            while at < len(data):
                reply, at = _read(data, at, 0)
                replies.append(reply)
        except _Incomplete:
            pass
        self._kept = data[at:]
        if len(self._kept) > MAX_REPLY_BYTES:
            raise ProtocolViolation(f"a reply is longer than {MAX_REPLY_BYTES} bytes")
        return replies


def _only_short_strings(data: bytes) -> list[object]:
    """The replies, if all are whole bulk strings in one line each, which is what scripts answer; else nothing."""
    lines = data.split(_END)
    replies = lines[1::2]
    if len(lines) != 2 * len(replies) + 1 or lines[-1]:
        return []
    size_of = _SIZES.get
    for size, reply in zip(lines[::2], replies, strict=False):
        if size_of(size) != len(reply):  # a line end within a string shows as a wrong size, too
            return []
    return replies  # type: ignore[return-value]


def _read(data: bytes, at: int, depth: int) -> tuple[object, int]:
    """The reply that begins at `at`, and where it ends. Raises _Incomplete or ProtocolViolation."""
    end = data.find(_END, at)
    if end < 0:
        if len(data) - at > _MAX_LINE:
            raise ProtocolViolation("a line does not end")
        raise _Incomplete
    kind = data[at]
    after = end + 2
    if kind == _BULK:
        return _read_bulk(data, after, _number(data[at + 1 : end]))
    if kind == _SIMPLE:
        return data[at + 1 : end], after
    if kind == _INTEGER:
        return _number(data[at + 1 : end]), after
    if kind == _ERROR:
        return ReplyError(data[at + 1 : end].decode(errors="replace")), after
    if kind == _ARRAY:
        return _read_array(data, after, _number(data[at + 1 : end]), depth)
    raise ProtocolViolation(f"a reply begins with {data[at : at + 1]!r}")


def _read_bulk(data: bytes, at: int, size: int) -> tuple[bytes | None, int]:
    if size < 0:
        return None, at
    if size > MAX_REPLY_BYTES:
        raise ProtocolViolation(f"a reply is longer than {MAX_REPLY_BYTES} bytes")
    end = at + size
    if len(data) < end + 2:
        raise _Incomplete
    if data[end : end + 2] != _END:
        raise ProtocolViolation("a string is longer than it says")
    return data[at:end], end + 2


def _read_array(data: bytes, at: int, count: int, depth: int) -> tuple[list[object] | None, int]:
    if count < 0:
        return None, at
    if depth == MAX_DEPTH or count > MAX_REPLY_BYTES:
        raise ProtocolViolation("an array is too deep or too long")
    replies: list[object] = []
    for _ in range(count):
        reply, at = _read(data, at, depth + 1)
        replies.append(reply)
    return replies, at


def _number(digits: bytes) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ProtocolViolation(f"{digits!r} is not a number") from None
