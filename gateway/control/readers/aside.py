"""Records that a reader could not take: kept in a file, told about, and out of the way of those after them.

    <state_dir>/poison/<reader>.jsonl     {"at_us","id","segment","end","reason","raw"} one line each, owner only

`raw` is the journal's line as it stands there (`raw_base64` where it is no text), `end` the offset after it. A record
is in the file, and on the disk, before the reader's cursor passes over it; after a crash in between it may be there
twice. Above MAX_BYTES the file says which and why, and the line itself is in the journal alone.
"""

import base64
import fcntl
import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.config.files import FILE_MODE, private_directory
from gateway.journal.read import Entry
from gateway.units import MIB, NS_PER_US

DIRECTORY: Final = "poison"
MAX_BYTES: Final = 64 * MIB


class Aside:
    """The file of one reader; `count` is what this process has put there."""

    def __init__(self, state_dir: Path, reader: str, node: str) -> None:
        self.path: Final = state_dir / DIRECTORY / f"{reader}.jsonl"
        self._node = node
        self.count = 0

    def add(self, entry: Entry, reason: str) -> None:
        """Keep a record, durably. Raises OSError, and then the file is as it was."""
        private_directory(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._append(descriptor, entry, reason)
        finally:
            os.close(descriptor)
        self.count += 1

    def _append(self, descriptor: int, entry: Entry, reason: str) -> None:
        size = os.fstat(descriptor).st_size
        line = msgspec.json.encode(self._told(entry, reason, whole=size + len(entry.raw) < MAX_BYTES)) + b"\n"
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a crash cut the last one short
            line = b"\n" + line
        try:
            _write_all(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise

    def _told(self, entry: Entry, reason: str, *, whole: bool) -> dict[str, Any]:
        told: dict[str, Any] = {
            "at_us": time.time_ns() // NS_PER_US,
            "id": entry.id(self._node),
            "segment": entry.segment,
            "end": entry.after.offset,
            "reason": reason,
        }
        if not whole:
            return told
        try:
            return told | {"raw": entry.raw.decode().removesuffix("\n")}
        except UnicodeDecodeError:
            return told | {"raw_base64": base64.b64encode(entry.raw).decode()}


def _write_all(descriptor: int, data: bytes) -> None:
    """A write that is cut short is followed by another, which says why."""
    while data:
        data = data[os.write(descriptor, data) :]
