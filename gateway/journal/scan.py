"""One chain, checked line by line, as fast as SHA-256 goes and in memory that does not grow.

Models a walker: it stands before line `seq` with the head of the chain before it, is told how far to go, and stops for
good at the first line that cannot be right. Each line costs two hashes (leaf and link) and two comparisons; it is
decoded only if it is a checkpoint, because only those say something about the chain itself.

Invariants: sizes are those of the moment the check began, so a journal that is written meanwhile reads as it was then;
at most one chunk of each chain is in memory. Left out: whether the records mean anything (a line that chains is what
its writer wrote), and what was signed (`verify.py`).
"""

import json
import time
from binascii import hexlify
from collections.abc import Callable, Mapping
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from gateway.journal import layout
from gateway.journal.findings import Fault, Finding
from gateway.journal.line import (
    FORMAT,
    MAX_LINE_BYTES,
    TAIL_BYTES,
    Malformed,
    leaf_of,
    link,
    parse,
    record_of,
    seq_of,
)
from gateway.journal.merkle import Tree
from gateway.record import Kind, Record

CHUNK_BYTES: Final = 256 * 1024  # of each chain; larger ones leave the cache and are slower
SEGMENT: Final = "segment"
REPAIRED: Final = "repaired"
_TAIL: Final = TAIL_BYTES - 1  # a line was split off at its newline
_KIND: Final = b'"kind":"'
_CHECKPOINT: Final = ord("c")  # no other kind begins like that
_PAUSES_S: Final = (0.0, 0.05, 0.15, 0.3)


class Start(NamedTuple):
    """Where a walk begins: the place of line `seq`, and the chain's head before it."""

    segment: int
    offset: int
    seq: int
    head: bytes


class Watch(Protocol):
    """Who is told what a walk comes across."""

    def found(self, finding: Finding) -> None:
        """Something is wrong."""

    def repaired(self, chain: str, segment: int, seq: int, record: Record) -> None:
        """A repair stands in the chain; whether its signature is right is for whoever has keys."""

    def progress(self, count: int) -> None:
        """So many bytes were read."""


class _Wrong(Exception):
    """A line cannot be right."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class ChainScan:
    """A walk along one chain. `seq`, `head`, `segment`, `offset`: of the next line; `broken`: it ended at a finding."""

    def __init__(
        self,
        journal: Path,
        node: str,
        chain: str,
        start: Start,
        sizes: Mapping[int, int],
        watch: Watch,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`sizes`: the bytes of every segment that holds any; those before the start are not read."""
        self._journal, self._node, self.chain = journal, node, chain
        self.segment, self.offset, self.seq, self.head = start
        self.begun, self.first = start.segment, start.seq
        self.size_bytes = 0  # of lines that were right
        self.broken = False
        self.last = b""  # the newest line that was right, without its newline
        self._sizes, self._watch, self._pause = sizes, watch, pause
        self._file: FileIO | None = None
        self._unread = 0
        self._lines: list[bytes] = []
        self._at = 0
        self._rest = b""
        self._passed = range(0)  # numbers between the segment before and this one that hold no line
        self._ended = start.segment not in sizes

    def advance(self, until: int, tree: Tree | None = None) -> None:
        """Check lines up to number `until`, which is not among them; their leaves go into the tree. Raises OSError."""
        while self.seq < until and not self.broken:
            if self._at == len(self._lines) and not self._refill():
                return
            self._check(min(len(self._lines), self._at + until - self.seq), tree)

    def finding(self, fault: Fault, message: str) -> Finding:
        """Something that is wrong at the next line."""
        return Finding(
            fault=fault, message=message, chain=self.chain, segment=self.segment, seq=self.seq, offset=self.offset
        )

    def close(self) -> None:
        """Hold no file open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- lines ------------------------------------------------------------------------------------------------------

    def _check(self, stop: int, tree: Tree | None) -> None:
        """Check the lines at hand up to index `stop`, until one is wrong."""
        leaves = list[bytes]()
        while self._at < stop:
            self._pass(self._plain(self._lines[self._at : stop], leaves))
            if self._at < stop and not self._judged(self._lines[self._at], leaves):
                break
        if tree is not None:
            tree.extend(leaves)

    def _pass(self, count: int) -> None:
        """Stand behind `count` more of the lines at hand."""
        if count:
            done = self._lines[self._at : self._at + count]
            self._at += count
            self.last = done[-1]
            length = sum(map(len, done)) + count
            self.offset += length
            self.size_bytes += length

    def _plain(self, lines: list[bytes], leaves: list[bytes]) -> int:
        """How many of these lines are right and no checkpoints: the loop that a check spends its time in."""
        if not self.offset:
            return 0  # a segment begins: its first line must be judged
        head, seq, keep = self.head, self.seq, leaves.append
        for line in lines:
            leaf = sha256(line[:-_TAIL]).digest()
            after = sha256(head + leaf).digest()
            begin = b'{"seq":%d,"kind":"' % seq
            if (
                line[-_TAIL:] != b',"hash":"' + hexlify(after) + b'"}'
                or not line.startswith(begin)
                or line[len(begin)] == _CHECKPOINT
            ):
                break
            head = after
            keep(leaf)
            seq += 1
        count = seq - self.seq
        self.head, self.seq = head, seq
        return count

    def _judged(self, line: bytes, leaves: list[bytes]) -> bool:
        """Check one line slowly, with words for what is wrong with it; whether it is right."""
        try:
            leaves.append(self._judge(line, first=not self.offset))
        except _Wrong as wrong:
            self._fail(wrong.fault, str(wrong))
        except Malformed as malformed:
            self._fail(Fault.LINE, str(malformed))
        else:
            self._pass(1)
        return not self.broken

    def _judge(self, line: bytes, *, first: bool) -> bytes:
        """The leaf of a line that is right. Raises _Wrong, Malformed."""
        body, said = parse(line + b"\n")
        seq, leaf = seq_of(body), leaf_of(body)
        begin = body[body.find(b",") + 1 :][: len(_KIND) + 1]
        if not begin.startswith(_KIND):
            raise _Wrong(Fault.LINE, "its record does not begin with its kind")
        record = record_of(body) if first or begin[-1] == _CHECKPOINT else None
        if first:
            self._whose(record)
        if seq != self.seq:
            raise self._misnumbered(seq, first=first)
        after = link(self.head, leaf)
        if after != said:
            raise _Wrong(Fault.LINK, "its hash does not follow from the line before it and its own bytes")
        if record is not None:
            self._checkpoint(record, first=first)
        self.head, self.seq = after, seq + 1
        return leaf

    def _whose(self, header: Record | None) -> None:
        """Whether the first line of this segment says that it is this segment. Raises _Wrong."""
        if header is None or header.kind is not Kind.CHECKPOINT or header.action != SEGMENT:
            raise _Wrong(Fault.HEADER, "the segment does not begin with its header")
        said, here = (header.node, header.chain, header.segment), (self._node, self.chain, self.segment)
        if said != here:
            raise _Wrong(
                Fault.HEADER,
                f"its header says node {said[0]}, chain {said[1]}, segment {said[2]}; it stands as "
                f"node {here[0]}, chain {here[1]}, segment {here[2]}",
            )
        if _format_of(header.detail) != FORMAT:
            raise _Wrong(Fault.HEADER, f"its header names no format that can be read here: {header.detail[:80]}")

    def _misnumbered(self, said: int, *, first: bool) -> _Wrong:
        wrong = f"line {self.seq:,} should stand here, and {said:,} {'does' if said > self.seq else 'comes again'}"
        if not (first and said > self.seq and self._passed):
            return _Wrong(Fault.NUMBER, wrong)
        return _Wrong(Fault.SEGMENT, f"{wrong}: {_segments(self._passed)} missing or empty")

    def _checkpoint(self, record: Record, *, first: bool) -> None:
        """What a checkpoint says of the chain. Raises _Wrong."""
        if record.action == SEGMENT and not first:
            raise _Wrong(Fault.HEADER, "a segment's header stands in the middle of a segment")
        if record.action in {SEGMENT, REPAIRED} and record.prev != self.head.hex():
            fault = Fault.HEADER if record.action == SEGMENT else Fault.REPAIR
            raise _Wrong(fault, "it names another line before it than the one that is there")
        if record.action == REPAIRED:
            self._watch.repaired(self.chain, self.segment, self.seq, record)

    def _fail(self, fault: Fault, message: str) -> None:
        self.broken = True
        self._watch.found(self.finding(fault, message))
        self.close()

    # --- chunks -----------------------------------------------------------------------------------------------------

    def _refill(self) -> bool:
        """Have lines at hand; False when there are none left, or the walk broke."""
        self._lines, self._at = [], 0
        while not (self._lines or self._ended or self.broken):
            chunk = self._read()
            if chunk:
                *self._lines, self._rest = (self._rest + chunk).split(b"\n")
                if len(self._rest) > MAX_LINE_BYTES and not self._lines:
                    self._fail(Fault.LINE, f"it is longer than {MAX_LINE_BYTES:,} bytes")
            else:
                self._turn()
        return bool(self._lines)

    def _read(self) -> bytes:
        """The next bytes of the segment; b"" when it is read as far as it went when the check began."""
        if self._file is None:
            self._file = FileIO(layout.segment_path(self._journal, self.chain, self.segment))
            self._file.seek(self.offset)
            self._unread = max(0, self._sizes.get(self.segment, 0) - self.offset)
        chunk = self._file.read(min(CHUNK_BYTES, self._unread)) or b""
        self._unread -= len(chunk)
        self._watch.progress(len(chunk))
        return chunk

    def _turn(self) -> None:
        """The segment is read: go on to the next one, if there is one."""
        following = min((segment for segment in self._sizes if segment > self.segment), default=0)
        if self._rest and not following:
            self._complete()
        elif self._rest:
            self._fail(Fault.LINE, f"the segment ends with {len(self._rest):,} bytes that are no whole line")
        elif not following:
            self._ended = True
        else:
            self.close()
            self._passed = range(self.segment + 1, following)
            self.segment, self.offset = following, 0

    def _complete(self) -> None:
        """The chain ends within a line: a write under way, of which the rest comes at once, or bytes that stay so."""
        self._rest += rest_of_line(self._file, self._pause) if self._file else b""
        if self._rest.endswith(b"\n"):
            self._lines, self._rest, self._ended = [self._rest[:-1]], b"", True
        else:
            self._fail(Fault.INCOMPLETE, f"the chain ends with {len(self._rest):,} bytes that are no whole line")


def rest_of_line(file: FileIO, pause: Callable[[float], None]) -> bytes:
    """What is written of a line behind the place the file stands at; it ends with a newline once the line is whole.

    Waits for it as long as a write can be under way, which is microseconds, and much longer to be sure. Raises OSError.
    """
    rest = b""
    for pause_s in _PAUSES_S:
        pause(pause_s)
        line, newline, _ = (rest + (file.read(MAX_LINE_BYTES) or b"")).partition(b"\n")
        rest = line + newline
        if newline:
            break
    return rest


def _segments(passed: range) -> str:
    one = len(passed) == 1
    return f"segment {passed[0]} before it is" if one else f"segments {passed[0]}–{passed[-1]} before it are"


def _format_of(detail: str) -> object:
    try:
        decoded = json.loads(detail)
    except ValueError:
        return None
    return decoded.get("format") if isinstance(decoded, dict) else None
