"""A chain that is being written: its current segment, its number and head, and making lines of contents.

Models the end of one chain, held by the one process that has its lock. The writer owns the offset: bytes go where the
last complete line ends, so a write that failed half way is written over, never appended to.

Invariants: number and head move only with bytes that are in the file, so a failed write leaves nothing to undo; a
complete line is never taken back, because control may have signed it; a line that was cut short is cut off before
anything else is written; the first line of a segment tells where it stands in the chain. Bytes that are not on the
disk yet are kept in memory too, up to a bound: after a failed sync the kernel may have forgotten them.
Left out: when to write and what to do about a failure (`journal.py`), bringing it to the disk (`syncer.py`), and
finding the end of a chain (`recover.py`).
"""

import errno
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway import __version__
from gateway.journal import layout
from gateway.journal.disk import Disk
from gateway.journal.line import FORMAT, compose, content_of, parse
from gateway.record import Kind, Record
from gateway.units import NS_PER_US


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose lines these are, as the first line of every segment says."""

    node: str
    region: str
    chain: str


class NotWritten(Exception):
    """Not all of a batch was written. `lines` of it, from its beginning, were, and stand."""

    def __init__(self, lines: int, error: OSError) -> None:
        super().__init__(f"{lines} lines were written, then: {error}")
        self.lines = lines
        self.error = error


class SegmentFile:
    """A segment that is open for writing. The loop's thread moves `size`, who syncs it `synced`."""

    __slots__ = ("_kept", "fd", "header_bytes", "number", "opened_ns", "size", "synced")

    def __init__(self, fd: int, number: int, size: int = 0, header_bytes: int = 0) -> None:
        self.fd = fd
        self.number = number
        self.size = size  # the end of its last complete line
        self.synced = size  # up to here it is on the disk
        self.header_bytes = header_bytes  # length of its first line
        self.opened_ns = time.monotonic_ns()
        self._kept = deque[tuple[int, bytes]]()

    def wrote(self, data: bytes, keep_bytes: int) -> None:
        """Note whole lines that were written; they are kept until synced while no more than `keep_bytes` wait."""
        if self.size - self.synced <= keep_bytes:
            self._kept.append((self.size, data))
        self.size += len(data)  # last: who reads it finds what was kept up to there

    def synced_to(self, mark: int) -> None:
        """Note that everything before `mark`, once a value of `size`, is on the disk."""
        self.synced = mark
        while self._kept and self._kept[0][0] < mark:
            self._kept.popleft()

    def unsynced(self, disk: Disk, mark: int) -> Iterator[tuple[int, bytes]]:
        """What was written after `synced` and before `mark`; read back where it was too much to keep."""
        at = self.synced
        for offset, data in list(self._kept):
            if offset >= mark:
                break
            if at < offset:
                yield at, disk.pread(self.fd, offset - at, at)
            yield offset, data
            at = offset + len(data)
        if at < mark:
            yield at, disk.pread(self.fd, mark - at, at)


class Chain:
    """The end of a chain. `seq` is the number of the next line, `head` the chain's head before it."""

    def __init__(
        self, disk: Disk, journal: Path, origin: Origin, lock_fd: int, file: SegmentFile, seq: int, head: bytes
    ) -> None:
        self.disk = disk
        self.journal = journal
        self.origin = origin
        self.file = file
        self.seq = seq
        self.head = head
        self.torn = False  # part of a line stands behind the last complete one
        self.opened_by = "start"  # what the current segment was begun for
        self.keep_bytes = 0  # how much of what is not synced is kept in memory
        self.written_bytes = 0  # by this process, whole lines
        self._lock_fd = lock_fd

    @property
    def path(self) -> Path:
        """The current segment's file."""
        return layout.segment_path(self.journal, self.origin.chain, self.file.number)

    def write(self, contents: Sequence[bytes]) -> None:
        """Write contents as lines, in order, after the segment's own first line if that is missing.

        Raises NotWritten; what it does not count was cut off, or will be before the next line.
        """
        header = not self.file.size
        lines, head = compose([self._header(), *contents] if header else contents, self.seq, self.head)
        data = b"".join(lines)
        done = 0
        try:
            if self.torn:
                self._cut_back()
            while done < len(data):
                done += self._put(data[done:] if done else data, self.file.size + done)
        except OSError as error:
            raise NotWritten(max(0, self._keep_whole(lines, done) - header), error) from None
        self._wrote(lines, data, head)

    def roll(self, file: SegmentFile, opened_by: str) -> None:
        """Go on in the next segment, an empty file; the old one belongs to whoever syncs it."""
        file.opened_ns = time.monotonic_ns()
        self.file = file
        self.opened_by = opened_by

    def close(self) -> None:
        """Give back the current segment and the lock."""
        self.disk.close(self.file.fd)
        self.disk.close(self._lock_fd)

    def _header(self) -> bytes:
        detail = {"format": FORMAT, "opened_by": self.opened_by, "pid": os.getpid(), "version": __version__}
        return content_of(
            Record(
                Kind.CHECKPOINT,
                "",
                time.time_ns() // NS_PER_US,
                action="segment",
                node=self.origin.node,
                region=self.origin.region,
                chain=self.origin.chain,
                segment=self.file.number,
                prev=self.head.hex(),
                detail=json.dumps(detail),
            )
        )

    def _put(self, data: bytes, offset: int) -> int:
        taken = self.disk.pwrite(self.file.fd, data, offset)
        if not taken:
            raise OSError(errno.EIO, "the disk took no byte of a line")
        return taken

    def _wrote(self, lines: Sequence[bytes], data: bytes, head: bytes) -> None:
        if not self.file.size:
            self.file.header_bytes = len(lines[0])
        self.seq += len(lines)
        self.head = head
        self.file.wrote(data, self.keep_bytes)
        self.written_bytes += len(data)

    def _keep_whole(self, lines: Sequence[bytes], done: int) -> int:
        """After `done` bytes of `lines`: note the complete ones, and cut off the rest. Returns how many there are.

        What is behind them is cut off whatever `done` says: a write that failed may have left more than it told.
        """
        count = size = 0
        while count < len(lines) and size + len(lines[count]) <= done:
            size += len(lines[count])
            count += 1
        if count:
            self._wrote(lines[:count], b"".join(lines[:count]), parse(lines[count - 1]).hash)
        self.torn = True
        self._try_to_cut_back()
        return count

    def _try_to_cut_back(self) -> None:
        try:
            self._cut_back()
        except OSError:
            return  # `torn` stands: it is tried again before the next line is written

    def _cut_back(self) -> None:
        self.disk.truncate(self.file.fd, self.file.size)
        self.torn = False
