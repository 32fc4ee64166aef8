"""Events that wait for one destination: bounded, and in a file, so that no restart loses one.

    <state_dir>/webhooks/<name>.json      {"v":1,"events":[…]}, replaced at every change

An event that is in the queue already, by its id, is not taken twice. When MAX_PENDING wait, the oldest gives way, which
is counted: who has not been heard for so long learns the newest first. One that was damaged is put aside as
`<name>.json.damaged`.

Invariants: `add` returns when the event is on the disk; what is taken out is taken out here even if the file cannot be
written, so in the worst case an event is sent again after a crash. Left out: sending (`webhooks.py`).
"""

import logging
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.files import private_directory, replacing

DIRECTORY: Final = "webhooks"
MAX_PENDING: Final = 1_000
MAX_BODY_BYTES: Final = 64 * 1024
VERSION: Final = 1
_log: Final = logging.getLogger("gateway.webhooks")


class Pending(msgspec.Struct, frozen=True):
    """One event on its way. `body` is what is sent, `due_us` when it is to be tried next, by the wall clock."""

    id: str
    at_us: int
    body: str
    tries: int = 0
    due_us: int = 0


class _File(msgspec.Struct, frozen=True):
    v: int
    events: list[Pending]


_decode: Final = msgspec.json.Decoder(_File).decode


class Queue:
    """The queue of one destination. Its methods block for a write to the disk."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self.path: Final = state_dir / DIRECTORY / f"{name}.json"
        self.dropped = 0
        self._pending = {event.id: event for event in self._kept()}

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, event: Pending) -> None:
        """Take an event. Raises OSError, and then it was not; ValueError for one that is too large."""
        if len(event.body.encode()) > MAX_BODY_BYTES:
            raise ValueError(f"an event of {len(event.body.encode())} bytes, at most {MAX_BODY_BYTES} are sent")
        if event.id in self._pending:
            return
        before = dict(self._pending)
        while len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[event.id] = event
        try:
            self._write()
        except OSError:
            self._pending = before
            raise
        lost = len(before) + 1 - len(self._pending)
        self.dropped += lost
        if lost:
            _log.error("webhooks: %s is full, %d of its oldest events are given up", self.path, lost)

    def next_due(self) -> Pending | None:
        """The event to be tried first."""
        return min(self._pending.values(), key=lambda event: event.due_us, default=None)

    def retry(self, event: Pending) -> None:
        """Keep an event with what has changed of it. Raises OSError."""
        if event.id in self._pending:  # it may have given way meanwhile
            self._pending[event.id] = event
            self._write()

    def done(self, event: Pending) -> None:
        """Let go of an event. Raises OSError."""
        if self._pending.pop(event.id, None) is not None:
            self._write()

    def _write(self) -> None:
        private_directory(self.path.parent)
        with replacing(self.path) as file:
            file.write(msgspec.json.encode(_File(VERSION, list(self._pending.values()))) + b"\n")

    def _kept(self) -> list[Pending]:
        """Raises OSError."""
        try:
            found = _decode(self.path.read_bytes())
        except FileNotFoundError:
            return []
        except (ValueError, UnicodeDecodeError) as error:
            aside = self.path.with_name(self.path.name + ".damaged")
            self.path.replace(aside)
            _log.error("webhooks: what waited in %s is lost, the file is damaged; see %s: %s", self.path, aside, error)
            return []
        return found.events
