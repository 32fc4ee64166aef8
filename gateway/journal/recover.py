"""Opening a chain: take its lock, set aside what does not chain, say so under a signature, and be ready to go on.

Invariants: every step can be cut short and done again. Bytes that are cut are kept beside the segments as
`torn-<segment>-<offset>`, under that name and `.new` until their `repaired` record is on the disk: a crash in between
tells a cut twice, never not at all. Nothing is unlinked and no segment changes its file, so a reader that has one open
reads on. What control had signed as synced and is gone is said loudly, here and in the record (`signed_lost`); the
chain then goes on in a segment behind all that were signed, so that readers who had read further find what comes.
Left out: where the good part ends (`end.py`), and judging a journal (`verify.py`).
"""

import hashlib
import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from gateway.journal import layout
from gateway.journal.chain import Chain, NotWritten, Origin, SegmentFile
from gateway.journal.disk import Disk
from gateway.journal.end import End, Signed, find_end, header_of, size_of, with_lines
from gateway.journal.line import content_of
from gateway.journal.read import Place
from gateway.record import Kind, Record
from gateway.units import NS_PER_US

_log: Final = logging.getLogger("gateway.journal")
_CHUNK_BYTES: Final = 1024 * 1024
_UNTOLD: Final = re.compile(r"torn-([0-9]+)-([0-9]+)(\.[0-9]+)?\.new")


class Signer(Protocol):
    """Who signs a repair."""

    @property
    def key_id(self) -> str:
        """Which key signs."""

    def sign(self, data: bytes) -> bytes:
        """The signature of these bytes."""


class NoFreeChain(Exception):
    """Every chain that this process may write is being written by another one; the message names them."""


class _Cut(NamedTuple):
    """Bytes that were cut and whose repair is not told yet; `path` None: bytes that were signed are simply gone."""

    segment: int
    offset: int
    path: Path | None


def lock_chain(disk: Disk, journal: Path, names: Sequence[str]) -> tuple[str, int]:
    """The first of these chains that nobody writes, and its lock. Raises NoFreeChain, OSError."""
    for name in names:
        disk.make_dir(journal / name)
        disk.sync_dir(journal)
        fd = disk.create(journal / name / "lock")
        try:
            disk.lock(fd)
        except BlockingIOError:
            disk.close(fd)
        except BaseException:
            disk.close(fd)
            raise
        else:
            return name, fd
    raise NoFreeChain(
        f"another process writes {' and '.join(names)} in {journal}: stop it, or give this one a state_dir of its own"
    )


def open_chain(
    disk: Disk, journal: Path, origin: Origin, lock_fd: int, signed: Signed | None, sign: Callable[[], Signer]
) -> Chain:
    """A chain ready to be written, for who holds its lock; `sign` is called when something was cut.

    Raises OSError and ForeignChain; the lock stays the caller's then, and trying again loses nothing.
    """
    recovery = _Recovery(disk, journal, origin)
    start, end = find_end(journal, origin, signed)
    lost = 0 if signed is None else max(0, signed.seq + 1 - end.seq)
    recovery.set_aside(end)
    recovery.sync(start)
    number = recovery.current(end, signed.place.segment if signed is not None and lost else 0)
    file = recovery.open_segment(number)
    chain = Chain(disk, journal, origin, lock_fd, file, end.seq, end.head)
    try:
        recovery.tell(chain, sign, end, lost)
    except NotWritten as failed:
        disk.close(file.fd)
        raise failed.error from None
    except BaseException:
        disk.close(file.fd)
        raise
    return chain


class _Recovery:
    """The steps of one opening, in order."""

    def __init__(self, disk: Disk, journal: Path, origin: Origin) -> None:
        self.disk = disk
        self.journal = journal
        self.origin = origin
        self.directory = journal / origin.chain

    # --- setting aside ----------------------------------------------------------------------------------------------

    def set_aside(self, end: End) -> None:
        """Keep what stands behind the end elsewhere, and cut it."""
        for segment in reversed(with_lines(self.journal, self.origin.chain)):
            offset = end.offset if segment == end.segment else 0
            if segment >= end.segment and size_of(self.journal, self.origin.chain, segment) > offset:
                with self._opened(self._path(segment)) as fd:
                    self._keep(fd, segment, offset)
                    self.disk.truncate(fd, offset)
                    self.disk.sync(fd)

    def _keep(self, fd: int, segment: int, offset: int) -> None:
        """Copy what is behind `offset`, under a name that no other repair has."""
        for number in itertools.count():
            path = self.directory / f"torn-{segment}-{offset}{f'.{number}' if number else ''}"
            untold = path.with_name(path.name + ".new")
            if path.exists():
                continue
            if not untold.exists():
                self._copy(fd, offset, untold)
                return
            if _same(self._chunks(fd, offset), _read(untold)):  # kept by an opening that came no further
                return

    def _copy(self, fd: int, offset: int, target: Path) -> None:
        draft = self.directory / "torn.draft"
        with self._opened(draft) as copy:
            self.disk.truncate(copy, 0)
            at = 0
            for chunk in self._chunks(fd, offset):
                at += self._put(copy, chunk, at)
            self.disk.sync(copy)
        self.disk.rename(draft, target)
        self.disk.sync_dir(self.directory)

    def _put(self, fd: int, data: bytes, offset: int) -> int:
        done = 0
        while done < len(data):
            done += self.disk.pwrite(fd, data[done:], offset + done)
        return done

    def _chunks(self, fd: int, offset: int) -> Iterator[bytes]:
        while chunk := self.disk.pread(fd, _CHUNK_BYTES, offset):
            yield chunk
            offset += len(chunk)

    def sync(self, start: Place) -> None:
        """Bring to the disk what a killed process had written, or named, and not synced yet.

        It is written again first: the kernel may have failed to write it, told that process, and forgotten about it.
        """
        for segment in with_lines(self.journal, self.origin.chain):
            if segment >= start.segment:
                offset = start.offset if segment == start.segment else 0
                with self._opened(self._path(segment)) as fd:
                    for chunk in self._chunks(fd, offset):
                        offset += self._put(fd, chunk, offset)
                    self.disk.sync(fd)
        self.disk.sync_dir(self.directory)

    # --- going on ---------------------------------------------------------------------------------------------------

    def current(self, end: End, signed_segment: int) -> int:
        """The segment to go on in: the end's, or an empty one behind it; behind the signed one when that was lost."""
        if signed_segment:
            return max(end.segment, signed_segment) + 1
        if not end.segment:
            return min(layout.segments(self.journal, self.origin.chain), default=1)
        return end.segment + 1 if self._path(end.segment + 1).exists() else end.segment

    def open_segment(self, number: int) -> SegmentFile:
        """Open a segment at its end; it is as old as its first line says."""
        made = not self._path(number).exists()
        fd = self.disk.create(self._path(number))
        try:
            if made:
                self.disk.sync_dir(self.directory)
            size = self.disk.size(fd)
            header = header_of(self.journal, self.origin, number) if size else None
        except BaseException:
            self.disk.close(fd)
            raise
        file = SegmentFile(fd, number, size)
        if header is not None:
            file.header_bytes = header.length
            file.opened_ns -= max(0, time.time_ns() - header.record.at_us * NS_PER_US)
        return file

    # --- telling ----------------------------------------------------------------------------------------------------

    def tell(self, chain: Chain, sign: Callable[[], Signer], end: End, lost: int) -> None:
        """Write a repaired record for all that was set aside and not told yet, and one for what is gone."""
        cuts = self._untold()
        if lost:
            _log.error(
                "journal %s: %d lines that control had signed as synced are gone; it ends after line %d now. The disk "
                "lost what it said it had kept, or the files were changed: `gateway audit verify` tells which",
                self.directory, lost, end.seq - 1,
            )  # fmt: skip
            cuts = cuts or [_Cut(end.segment, end.offset, None)]
        if not cuts:
            return
        signer = sign()
        if not chain.file.size:
            chain.opened_by = "repair"
            chain.write([])  # the segment's first line, so that the head below is the one before the record
        for cut in cuts:
            chain.write([self._repaired(chain, signer, cut, lost)])
        self.disk.sync(chain.file.fd)
        chain.file.synced_to(chain.file.size)
        self._told(cuts)

    def _untold(self) -> list[_Cut]:
        found = [(path, _UNTOLD.fullmatch(path.name)) for path in sorted(self.directory.iterdir())]
        cuts = [_Cut(int(name[1]), int(name[2]), path) for path, name in found if name]
        return sorted(cuts, key=lambda cut: (cut.segment, cut.offset))

    def _repaired(self, chain: Chain, signer: Signer, cut: _Cut, lost: int) -> bytes:
        digest, size = hashlib.sha256(), 0
        for chunk in _read(cut.path) if cut.path is not None else ():
            digest.update(chunk)
            size += len(chunk)
        said = {"cut_bytes": size, "cut_sha256": digest.hexdigest(), "after_seq": chain.seq - 1, "offset": cut.offset}
        detail = json.dumps(said | {"signed_lost": lost} if lost else said)
        _log.warning("journal %s: %d bytes behind line %d did not chain", self.directory, size, chain.seq - 1)
        prev = chain.head.hex()
        signature = signer.sign(
            b"gateway repair 1\n%b\n%b\n%b\n%b"
            % (self.origin.node.encode(), self.origin.chain.encode(), prev.encode(), detail.encode())
        )
        return content_of(
            Record(
                Kind.CHECKPOINT,
                "",
                time.time_ns() // NS_PER_US,
                action="repaired",
                subject=f"{self.origin.chain}/{cut.segment}",
                detail=detail,
                prev=prev,
                signature=signature.hex(),
                signed_by=signer.key_id,
            )
        )

    def _told(self, cuts: Sequence[_Cut]) -> None:
        for cut in cuts:
            if cut.path is not None:
                self.disk.rename(cut.path, cut.path.with_suffix(""))
        self.disk.sync_dir(self.directory)

    def _path(self, segment: int) -> Path:
        return layout.segment_path(self.journal, self.origin.chain, segment)

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        fd = self.disk.create(path)
        try:
            yield fd
        finally:
            self.disk.close(fd)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _same(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    return all(a == b for a, b in itertools.zip_longest(one, other))
