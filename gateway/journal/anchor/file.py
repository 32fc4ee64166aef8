"""Anchoring in files of another machine's disk or of write-once storage: a directory a node, a file a day.

    <path>/<node>/2026-11-21.jsonl      manifests, one a line, in the order they were anchored

Invariants: files are appended to and never changed otherwise, so an append-only attribute or mount suits them; a line
is synced before it counts; one that was torn is followed by a newline and then by itself as a whole.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.config.files import sync_directory
from gateway.config.schema import Anchor as AnchorSettings
from gateway.journal.anchor.base import AnchorFailed

_NEWLINE: Final = b"\n"
_MODE: Final = 0o644  # it is there to be read


class FileAnchor:
    """An anchor of kind file."""

    def __init__(self, settings: AnchorSettings, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path: Final = Path(settings.path)
        self._now = now
        self.name = f"file {settings.path}"

    def put(self, head: bytes, n: int, node: str) -> str:
        """Append it to today's file. Raises AnchorFailed."""
        path = self._path / node / f"{self._now():%Y-%m-%d}.jsonl"
        try:
            fresh = not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
            try:
                _append(fd, head)
                os.fsync(fd)
            finally:
                os.close(fd)
            if fresh:
                sync_directory(path.parent)
                sync_directory(self._path)
        except OSError as error:
            raise AnchorFailed(f"{path}: manifest {n} cannot be written: {error.strerror or error}") from error
        return str(path)

    def check(self, head: bytes, n: int, node: str) -> str:
        """The file it stands in. Raises AnchorFailed."""
        try:
            for path in sorted((self._path / node).glob("*.jsonl"), reverse=True):
                with path.open("rb") as file:
                    if any(line.rstrip(_NEWLINE) == head for line in file):
                        return str(path)
        except OSError as error:
            raise AnchorFailed(f"{self._path}: cannot be read: {error.strerror or error}") from error
        raise AnchorFailed(f"{self._path / node}: manifest {n} is in no file there as it was given")


def _append(fd: int, head: bytes) -> None:
    """Write a line, unless it is the last one there already."""
    size = os.fstat(fd).st_size
    end = os.pread(fd, len(head) + 2, max(0, size - len(head) - 2))
    if end.endswith(head + _NEWLINE) and (len(end) == len(head) + 1 or end.startswith(_NEWLINE)):
        return
    line = head + _NEWLINE if not end or end.endswith(_NEWLINE) else _NEWLINE + head + _NEWLINE
    written = os.write(fd, line)
    if written != len(line):
        raise OSError(f"only {written} of {len(line)} bytes were taken: is the disk full?")
