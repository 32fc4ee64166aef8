"""What the simulated provider saw: one entry per request, the last KEPT of them, for tests to ask about.

An entry is written while its answer plays, so a test can watch a stall or an abort as it happens. Times are
milliseconds since the request was complete; `started_monotonic_ms` is CLOCK_MONOTONIC, which other processes of
the same machine can compare with their own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.sim.wire import Headers, Request

KEPT = 200


@dataclass(slots=True)
class Entry:
    """One request and what became of its answer. `ended` is "", complete, closed, reset or aborted."""

    n: int
    method: str
    path: str
    query: str
    headers: Headers
    body_len: int
    body_sha256: str
    started_monotonic_ms: float
    model: str = ""
    upload_bytes: int | None = None
    behaviour: str = ""
    status: int = 0
    events_sent: int = 0
    bytes_sent: int = 0
    ended: str = ""
    ended_ms: float | None = None
    aborted_by_peer: bool = False
    aborted_ms: float | None = None

    def finish(self, how: str, now_s: float) -> None:
        """Note how the answer ended; only the first ending counts."""
        if self.ended:
            return
        self.ended, self.ended_ms = how, round(now_s * 1000 - self.started_monotonic_ms, 3)
        if how == "aborted":
            self.aborted_by_peer, self.aborted_ms = True, self.ended_ms


class Log:
    """The last KEPT entries, oldest first, numbered from 1 since the start or the last reset."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=KEPT)
        self._numbers = count(1)

    def open(self, request: Request) -> Entry:
        """A new entry for a request that has just been read."""
        entry = Entry(
            next(self._numbers),
            request.method,
            request.path,
            request.query,
            request.headers,
            request.body_len,
            request.body_sha256,
            round(request.started_s * 1000, 3),
        )
        self.entries.append(entry)
        return entry

    def clear(self) -> None:
        """Forget everything and count from 1 again."""
        self.entries.clear()
        self._numbers = count(1)
