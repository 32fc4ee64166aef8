r"""One line of a chain: its bytes, its leaf hash, the head it leaves behind. This is the frozen part of the format.

    {"seq":N,<fields of a Record>,"hash":"<64 hex>"}\n

The *body* of a line is everything before `,"hash"`. Its *leaf* is SHA-256(body); the chain's *head* after it is
SHA-256(head before it ‖ leaf), and that is what `hash` says, in hex. A chain begins with a head that is bound to the
node and the chain's name, so one node's chain cannot be shown as another's. `seq` counts from 0 through the whole life
of a chain, over all of its segments.

A body starts with `{`, the inner nodes of a Merkle tree with 0x01 (RFC 6962), and a link is 64 bytes, shorter than any
body: no hash of one kind can be passed off as one of another. Anybody can check a line with `sha256sum`.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from gateway.record import Record

FORMAT: Final = 1
HASH_BYTES: Final = 32
MAX_LINE_BYTES: Final = 1024 * 1024
_MARK: Final = b',"hash":"'
_END: Final = b'"}\n'
MAX_SEQ_DIGITS: Final = 18  # no chain comes to them, and each such number fits 64 bits everywhere
TAIL_BYTES: Final = len(_MARK) + 2 * HASH_BYTES + len(_END)

_encode: Final = msgspec.json.Encoder().encode
_record_of: Final = msgspec.json.Decoder(Record).decode


class Malformed(ValueError):
    """These bytes are no line of a chain; the message says what is wrong with them."""


class Line(NamedTuple):
    """A line taken apart: nothing of it is checked against the chain yet."""

    body: bytes
    hash: bytes  # as it says, 32 bytes


def genesis(node: str, chain: str) -> bytes:
    """The head of a chain before its first line."""
    return sha256(b"gateway journal %d\n%b\n%b\n" % (FORMAT, node.encode(), chain.encode())).digest()


def content_of(record: Record) -> bytes:
    """A record as JSON, ready for `body_of`. Raises ValueError for one that still carries its personal part."""
    if record.personal is not None:
        raise ValueError("a personal part is written sealed, never as it is")
    return _encode(record)


def body_of(seq: int, content: bytes) -> bytes:
    """The body of line number `seq`; `content` is a JSON object with at least one field."""
    return b'{"seq":%d,%b' % (seq, content[1:-1])


def leaf_of(body: bytes) -> bytes:
    """The leaf hash of a body."""
    return sha256(body).digest()


def link(head: bytes, leaf: bytes) -> bytes:
    """The head of a chain after a leaf."""
    return sha256(head + leaf).digest()


def line_of(body: bytes, head: bytes) -> bytes:
    """The whole line, its newline included; `head` is the chain's head after it."""
    return b'%b,"hash":"%b"}\n' % (body, head.hex().encode())


def compose(contents: Iterable[bytes], seq: int, head: bytes) -> tuple[list[bytes], bytes]:
    """The lines of contents, the first with number `seq` behind `head`, and the head after the last.

    What `body_of`, `leaf_of`, `link` and `line_of` make of each, without the calls: it is on every request's path.
    """
    lines = []
    for content in contents:
        body = b'{"seq":%d,%b' % (seq, content[1:-1])
        head = sha256(head + sha256(body).digest()).digest()
        lines.append(b'%b,"hash":"%b"}\n' % (body, head.hex().encode()))
        seq += 1
    return lines, head


def parse(line: bytes) -> Line:
    """Take a line apart, its newline included. Raises Malformed."""
    at = len(line) - TAIL_BYTES
    if at <= 0 or line[at : at + len(_MARK)] != _MARK or line[-len(_END) :] != _END or line[:7] != b'{"seq":':
        raise Malformed("it is no line of a chain")
    given = line[at + len(_MARK) : -len(_END)]
    try:
        said = bytes.fromhex(given.decode("ascii"))
    except ValueError:
        raise Malformed("its hash is not hexadecimal") from None
    if said.hex().encode() != given:  # fromhex takes capitals and spaces: one line has one spelling
        raise Malformed("its hash is not written as 64 small hexadecimal digits")
    return Line(line[:at], said)


def seq_of(body: bytes) -> int:
    """The number of a line. Raises Malformed."""
    digits = body[7 : body.find(b",", 7)]
    if not digits.isdigit() or len(digits) > MAX_SEQ_DIGITS or (len(digits) > 1 and digits[:1] == b"0"):
        raise Malformed("its number is no number")
    return int(digits)


def record_of(body: bytes) -> Record:
    """The record of a body. Raises Malformed."""
    try:
        return _record_of(body + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"it holds no record: {error}") from None
