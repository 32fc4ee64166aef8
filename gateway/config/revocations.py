"""Revoked keys: one append-only file that every process reads for itself, so that revoking depends on nobody.

`gateway keys revoke` appends a line and syncs it; a worker looks at the file's size on its tick and reads what is
new. So a revocation acts within one tick of every worker with the database down, with control dead, and, when the
gateway is not running, from its first request on. The truth is this file; no snapshot copies it.

Invariants: writers hold a lock and never change what is written; a line counts once its newline is there, so a torn
write revokes nothing and is repaired by the next writer; an id once seen stays revoked in a running process even if
the file vanishes. A revoked id is revoked for good: a new secret needs a new id.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.files import FILE_MODE, private_directory, sync_directory

FILE_NAME: Final = "revocations"


class Revocation(msgspec.Struct, frozen=True):
    """One line: which key, and when (wall-clock milliseconds since the epoch)."""

    key: str
    at_ms: int


_DECODER: Final = msgspec.json.Decoder(Revocation)


class Revocations:
    """The revocations of a node. `ids` is the live set: `poll` adds to it and nothing takes away from it."""

    def __init__(self, state_dir: str | os.PathLike[str]) -> None:
        self.path: Final = Path(state_dir) / FILE_NAME
        self.ids: Final[set[str]] = set()
        self.unreadable = 0  # lines that say nothing we understand
        self._seen = (0, 0, 0)
        self._read_to = 0

    def add(self, key_id: str, at_ms: int) -> None:
        """Revoke a key, durably: when this returns, a power cut cannot undo it. Raises OSError."""
        private_directory(self.path.parent)
        fresh = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            line = msgspec.json.encode(Revocation(key_id, at_ms)) + b"\n"
            left = line if _ends_whole(file.fileno(), os.fstat(file.fileno()).st_size) else b"\n" + line
            while left:  # a disk that is nearly full takes a part
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        if fresh:
            sync_directory(self.path.parent)

    def changed(self) -> bool:
        """Whether there is something to read; one `stat`, about 2 µs. Raises OSError except for a missing file."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return _identity(found) != self._seen

    def read(self) -> set[str]:
        """Read what is new and return all revoked ids. Raises OSError except for a missing file."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return self.ids
        with file:
            self._find_start(file.fileno())
            file.seek(self._read_to)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._read_to += len(whole) + 1
            self._take(whole.split(b"\n"))
        return self.ids

    def times_ms(self) -> dict[str, int]:
        """When each key was revoked first, of those that stand in the file now. Raises OSError except for no file."""
        try:
            whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        except FileNotFoundError:
            return {}
        return {found.key: found.at_ms for found in reversed(list(_understood(whole.split(b"\n"))))}

    def poll(self) -> bool:
        """Take in what was revoked since the last look; True when that was anything."""
        before = len(self.ids)
        if self.changed():
            self.read()
        return len(self.ids) != before

    def _find_start(self, descriptor: int) -> None:
        """Go on where the last read ended, unless this is visibly not the file it was, plus something."""
        found = os.fstat(descriptor)
        grown = found.st_ino == self._seen[0] and found.st_size > self._read_to
        if not grown or not _ends_whole(descriptor, self._read_to):
            self._read_to = 0
            self.unreadable = 0
        self._seen = _identity(found)

    def _take(self, lines: Sequence[bytes]) -> None:
        found = [revocation.key for revocation in _understood(lines)]
        self.ids.update(found)
        self.unreadable += len(lines) - len(found)


def _understood(lines: Iterable[bytes]) -> Iterator[Revocation]:
    for line in lines:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield _DECODER.decode(line)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _ends_whole(descriptor: int, at: int) -> bool:
    """Whether a line ends just before that position."""
    return at == 0 or os.pread(descriptor, 1, at - 1) == b"\n"
