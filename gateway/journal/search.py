"""Lines of a journal that somebody asks for: by who, what, when, or by any words in them.

Models a question put to one chain, answered line by line in the order of the chain. Before a line is decoded it must
hold the bytes that the question cannot do without, and a whole block that lacks them is not even split, so looking for
one exchange in a long journal costs little more than reading it.

Invariants: nothing is checked against the chain (`verify.py` does that) and nothing is believed to be readable: a line
that cannot be decoded answers to its words, and where nothing is asked of what a record says, since it may be what is
looked for. Left out: what is sealed, which `show.py` opens.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gateway.journal import layout
from gateway.journal.line import MAX_LINE_BYTES, Malformed, parse, record_of, seq_of
from gateway.journal.read import START, Entry, Place
from gateway.journal.starts import header_of
from gateway.record import Kind, Record

_BLOCK_BYTES: Final = 1024 * 1024
_NOTHING: Final = Record(Kind.CHECKPOINT, "", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked for; what is empty asks for nothing. `model` is the one asked for or the target it went to."""

    exchange: str = ""
    org: str = ""
    team: str = ""
    key: str = ""
    model: str = ""
    decision: str = ""
    kind: str = ""
    error: str = ""
    since_us: int = 0
    until_us: int = 0
    pattern: re.Pattern[bytes] | None = None
    also: Callable[[Record], bool] | None = None

    @property
    def needle(self) -> bytes:
        """Bytes that every line asked for holds, b"" for none: of what is asked for, the rarest."""
        said = {"exchange_id": self.exchange, "key_id": self.key, "team": self.team, "org": self.org}
        said |= {"error": self.error, "decision": self.decision, "kind": self.kind}
        name, value = next(((name, value) for name, value in said.items() if value), ("", ""))
        return b'"%b":%b' % (name.encode(), msgspec.json.encode(value)) if name else b""

    def wants(self, entry: Entry) -> bool:
        """Whether this line is asked for."""
        if self.pattern is not None and not self.pattern.search(entry.raw):
            return False
        if entry.error:
            return self.pattern is not None or not (self.needle or self.model or self.also)
        return self._wants(entry.record)

    def _wants(self, record: Record) -> bool:
        asked = (self.exchange, self.org, self.team, self.key, self.decision, self.kind, self.error)
        said = (record.exchange_id, record.org, record.team, record.key_id, record.decision)
        if any(a not in {"", s} for a, s in zip(asked, (*said, record.kind.value, record.error), strict=True)):
            return False
        if self.model and self.model not in {record.model, record.target, record.target.partition("/")[2]}:
            return False
        if record.at_us < self.since_us or (self.until_us and record.at_us >= self.until_us):
            return False
        return self.also is None or self.also(record)


def search(journal: Path, chain: str, query: Query, start: Place = START, end: Place | None = None) -> Iterator[Entry]:
    """The lines of a chain that are asked for, in order, from one place on and before another. Raises OSError."""
    needle = query.needle
    for segment in layout.segments(journal, chain):
        if segment < start.segment or (end is not None and segment > end.segment):
            continue
        offset = start.offset if segment == start.segment else 0
        stop = end.offset if end is not None and segment == end.segment else -1
        for raw, after in _lines(layout.segment_path(journal, chain, segment), offset, stop, needle):
            entry = entry_of(chain, segment, raw, after)
            if query.wants(entry):
                yield entry


def entry_of(chain: str, segment: int, raw: bytes, after: int) -> Entry:
    """A line as an entry, with an error when it cannot be understood."""
    seq = -1
    try:
        body = parse(raw).body
        seq = seq_of(body)
        return Entry(chain, segment, seq, raw, record_of(body), Place(segment, after))
    except Malformed as error:
        return Entry(chain, segment, seq, raw, _NOTHING, Place(segment, after), str(error))


def start_for(journal: Path, chain: str, since_us: int) -> Place:
    """A place before which no line was written at this time or later: the newest segment begun by then.

    Raises OSError.
    """
    for segment in reversed(layout.segments(journal, chain) if since_us else []):
        header = header_of(journal, chain, segment)
        if header is not None and header[1].at_us <= since_us:
            return Place(segment, 0)
    return START


def end_of(journal: Path, chain: str) -> Place:
    """The place behind the last whole line there is now. Raises OSError."""
    for segment in reversed(layout.segments(journal, chain)):
        with layout.segment_path(journal, chain, segment).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MAX_LINE_BYTES))
            tail = file.read(min(size, MAX_LINE_BYTES))
        whole = tail.rfind(b"\n") + 1
        if whole:
            return Place(segment, size - len(tail) + whole)
    return START


def _lines(path: Path, offset: int, stop: int, needle: bytes) -> Iterator[tuple[bytes, int]]:
    """The whole lines that hold the needle, each with the offset after it; one too long comes in pieces."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        rest = b""
        while chunk := file.read(_BLOCK_BYTES if stop < 0 else min(_BLOCK_BYTES, max(0, stop - offset - len(rest)))):
            block = rest + chunk
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            if end and needle in block[:end]:
                yield from _holding(block[:end], offset, needle)
            offset += end
            if len(rest) > MAX_LINE_BYTES:
                offset += len(rest)
                if needle in rest:
                    yield rest, offset
                rest = b""


def _holding(block: bytes, offset: int, needle: bytes) -> Iterator[tuple[bytes, int]]:
    for line in block[:-1].split(b"\n"):
        offset += len(line) + 1
        if needle in line:
            yield line + b"\n", offset
