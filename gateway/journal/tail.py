"""The end of a chain as it grows: new lines, checked one by one, and on the disk before anybody vouches for them.

Models a reader that trusts nobody. It goes on from a place that was signed, follows the chain hash line by line, so
that control checks what the workers write, and brings what it has read to the disk through a descriptor of its own
before giving it out. What it gives out counts once the caller says so (`advance`): until then it is read again.

Invariants: the place moves over whole, checked lines only, and never back. A chain that does not go on as it must (a
line that does not fit, a file cut below what was signed, a segment that is gone) stays where it was, with the reason
in `broken`, and is looked at again each time: put right, it goes on. An error of the disk is an OSError; after one,
the same bytes are read from the disk and not from memory, because the kernel tells of a lost write only once.
Lines are read and checked some at a time, and `breathe` is called in between.
"""

import os
from binascii import hexlify
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from gateway.journal import layout
from gateway.journal.line import MAX_LINE_BYTES, TAIL_BYTES, genesis
from gateway.journal.manifest import ChainEnd
from gateway.journal.read import Place

CHUNK_BYTES: Final = 64 * 1024  # some 80 lines, 0.15 ms: what is checked between two breaths stays in the cache
_TAIL: Final = TAIL_BYTES - 1  # what follows the body, its newline already split off


class Reached(NamedTuple):
    """A place between two lines: where the next begins, the number of the last, and the chain's head after it."""

    segment: int
    offset: int
    seq: int
    head: bytes

    @property
    def place(self) -> Place:
        """As readers name it."""
        return Place(self.segment, self.offset)

    def end_of(self, chain: str) -> ChainEnd:
        """As a manifest states it."""
        return ChainEnd(chain, self.segment, self.offset, self.seq, self.head.hex())


class Batch(NamedTuple):
    """New lines, all on the disk: their leaves in order, where they end, and whether more were left for later."""

    leaves: list[bytes]
    end: Reached
    more: bool


def _go_on() -> None:
    """Nobody waits."""


class _Broken(Exception):
    """The chain does not go on as it must."""


class Tail:
    """One chain, from a signed end on (None: its beginning). `broken` says why it does not go on, "" when it does."""

    def __init__(
        self,
        journal: Path,
        node: str,
        chain: str,
        end: ChainEnd | None,
        breathe: Callable[[], None] = _go_on,
    ) -> None:
        self.chain: Final = chain
        self.broken = ""
        self.at = Reached(0, 0, -1, genesis(node, chain))
        if end is not None:
            self.at = Reached(end.segment, end.offset, end.seq, bytes.fromhex(end.head))
        self._journal: Final = journal
        self._breathe: Final = breathe
        self._file: _File | None = None
        self._named = -1  # the newest segment whose name in the directory is on the disk
        self._doubtful = False  # the disk has failed: what memory holds may never have got there

    def read(self, budget_bytes: int, floor: int = 0) -> Batch:
        """What is new, as far as the budget goes, but one line at least. `floor`: the oldest segment retention keeps.

        Raises OSError: then nothing is given out, and the next call reads the same again.
        """
        walk = _Walk(self.at, budget_bytes, self._breathe)
        self.broken = ""
        try:
            self._follow(walk, floor)
        except _Broken as broken:
            self.broken = str(broken)
        except OSError:
            self._doubtful = True
            self.close()
            raise
        self._doubtful = False
        return Batch(walk.leaves, walk.end, walk.more)

    def advance(self, batch: Batch) -> None:
        """This batch was signed: go on behind it."""
        self.at = batch.end

    def close(self) -> None:
        """Let go of the file; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- segments ---------------------------------------------------------------------------------------------------

    def _follow(self, walk: "_Walk", floor: int) -> None:
        """Walk over the segments. Raises _Broken, OSError."""
        segments = layout.segments(self._journal, self.chain)
        if self.at.segment >= max(1, floor) and self.at.segment not in segments:
            raise _Broken(f"segment {self.at.segment} is gone")
        while True:
            following = self._next_with_lines(segments, walk.at.segment)  # before reading, or lines could be missed
            if walk.at.segment in segments:
                self._read_segment(walk, ended=following > 0)
            if walk.more or not following:
                return
            walk.enter(following)

    def _next_with_lines(self, segments: Iterable[int], segment: int) -> int:
        """The next segment that holds anything, 0 for none; empty ones are made ahead of need."""
        for number in segments:
            if number > segment and _size(layout.segment_path(self._journal, self.chain, number)):
                return number
        return 0

    def _read_segment(self, walk: "_Walk", *, ended: bool) -> None:
        """Walk to the end of a segment, and have it on the disk. `ended`: the chain has gone on to another."""
        file = self._opened(walk.at.segment)
        if file.size() < walk.at.offset:
            raise _Broken(f"segment {walk.at.segment} is cut to {file.size()} bytes, {walk.at.offset} were signed")
        if self._doubtful:
            file.forget()
        before = len(walk.leaves)
        try:
            rest = walk.over(file)
            if rest and ended and not walk.more:
                raise _Broken(f"{walk.where()}: the segment ends with {rest} bytes that are no line")
        finally:
            if len(walk.leaves) > before:
                file.sync()
                self._sync_names(walk.at.segment)

    def _opened(self, segment: int) -> "_File":
        """The file of a segment; held open between calls, so that no lost write goes untold."""
        path = layout.segment_path(self._journal, self.chain, segment)
        if self._file is None or not self._file.is_at(path):
            self.close()
            self._file = _File(path)
        return self._file

    def _sync_names(self, segment: int) -> None:
        """The first time lines of a segment count, its name must survive a power cut as well."""
        if segment > self._named:
            layout.sync_file(self._journal / self.chain)
            layout.sync_file(self._journal)
            self._named = segment


class _File:
    """A segment's file, open for reading; whoever reads may sync."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def is_at(self, path: Path) -> bool:
        """Whether this is still the file of that name."""
        return path == self._path and path.stat().st_ino == os.fstat(self._fd).st_ino

    def size(self) -> int:
        """Bytes it has now."""
        return os.fstat(self._fd).st_size

    def read(self, count: int, offset: int) -> bytes:
        """At most so many bytes; b"" at the end."""
        return os.pread(self._fd, count, offset)

    def sync(self) -> None:
        """Bring what was read to the disk."""
        os.fdatasync(self._fd)

    def forget(self) -> None:
        """Have the kernel drop what it holds in memory of it and believes to be on the disk."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._fd)


class _Walk:
    """Lines checked so far in one call; `at` moves over right lines only."""

    def __init__(self, at: Reached, budget_bytes: int, breathe: Callable[[], None]) -> None:
        self.at = at
        self.leaves: list[bytes] = []
        self.more = False
        self._left = at
        self._budget_bytes = budget_bytes
        self._breathe = breathe

    @property
    def end(self) -> Reached:
        """Behind the last right line: a segment of which no line is whole and right yet was not reached."""
        return self.at if self.at.offset else self._left

    def enter(self, segment: int) -> None:
        """Go on at the beginning of another segment."""
        self._left = self.end
        self.at = self.at._replace(segment=segment, offset=0)

    def where(self) -> str:
        """For a message."""
        return f"segment {self.at.segment}, byte {self.at.offset}, line {self.at.seq + 1}"

    def over(self, file: _File) -> int:
        """Check lines to the end of the file or of the budget; how many bytes are left that are no whole line.

        Raises _Broken at the first line that does not fit, after having passed those before it.
        """
        rest = b""
        while not self._spent():
            chunk = file.read(CHUNK_BYTES, self.at.offset + len(rest))
            if not chunk:
                return len(rest)
            self._budget_bytes -= len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            self._check(lines)
            if len(rest) > MAX_LINE_BYTES:
                raise _Broken(f"{self.where()}: it is longer than {MAX_LINE_BYTES} bytes")
            self._breathe()
        self.more = True
        return len(rest)

    def _spent(self) -> bool:
        return self._budget_bytes <= 0 and bool(self.leaves)

    def _check(self, lines: list[bytes]) -> None:
        """The loop that a turn spends its time in: two hashes a line, and two comparisons."""
        segment, offset, seq, head = self.at
        keep = self.leaves.append
        for line in lines:
            leaf = sha256(line[:-_TAIL]).digest()
            link = sha256(head + leaf).digest()
            if not line.endswith(b',"hash":"%b"}' % hexlify(link)) or not line.startswith(b'{"seq":%d,' % (seq + 1)):
                self.at = Reached(segment, offset, seq, head)
                raise _Broken(f"{self.where()}: it does not follow from the line before it")
            keep(leaf)
            head = link
            seq += 1
            offset += len(line) + 1
        self.at = Reached(segment, offset, seq, head)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # dropped a moment ago
        return 0
