"""Bytes to events: cuts an event stream at its blank lines, however the socket happened to split it.

An event is everything up to and including the blank line that ends it, byte for byte; joined again, the events are
the stream. Lines end with LF, CRLF or CR. An event is given as soon as its blank line is there: where that line ended
with CR and the next byte turns out to be LF, the LF is given as an event of its own, the tail of the one before.

Invariants: work is linear in the bytes fed, at any split; at most `max_event_bytes` are kept. Left out: what an event
means (`dialects/`), and which of them goes to the caller (`meter.py`).
"""

import re
from typing import Final

from gateway.errors import UpstreamProtocolError
from gateway.units import MIB

MAX_EVENT_BYTES: Final = 16 * MIB

_BLANK: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n?|\n)")
_LOOK_BACK: Final = 3  # a blank line may have begun this many bytes before the end of what was searched


class EventSplitter:
    """One stream's splitter. `pending` is the part of an event that has not ended yet."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._pending = bytearray()
        self._max = max_event_bytes
        self._cr = False  # carriage returns were seen: line ends are looked for the slow way
        self._half = False  # the last event ended with CR: an LF now would still be part of it

    @property
    def pending(self) -> bytes:
        """What has arrived of an event whose blank line is still to come."""
        return bytes(self._pending)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Whole events, in order. Raises UpstreamProtocolError when one grows above `max_event_bytes`."""
        if not self._pending and not self._cr and b"\r" not in chunk:
            at = chunk.find(b"\n\n") + 2
            if at == len(chunk) and at > 1:
                return [chunk]
        return self._split(chunk)

    def _split(self, chunk: bytes) -> list[bytes]:
        events: list[bytes] = []
        if not chunk:
            return events
        if self._half:
            self._half = False
            if chunk.startswith(b"\n"):
                events.append(b"\n")
                chunk = chunk[1:]
        searched = max(len(self._pending) - _LOOK_BACK, 0)
        self._cr = self._cr or b"\r" in chunk
        if self._pending:
            self._pending += chunk
            if self._end(self._pending, searched) < 0:
                return self._bounded(events)
            data = bytes(self._pending)
        else:
            data = chunk
        start = 0
        while (end := self._end(data, max(searched, start))) >= 0:
            events.append(data[start:end])
            start = end
        self._half = start == len(data) and data.endswith(b"\r")
        self._pending = bytearray(data[start:])
        return self._bounded(events)

    def _end(self, data: bytes | bytearray, at: int) -> int:
        """Where the first event that ends behind `at` ends, -1 when none does."""
        if self._cr:
            blank = _BLANK.search(data, at)
            return blank.end() if blank is not None else -1
        found = data.find(b"\n\n", at)
        return found + 2 if found >= 0 else -1

    def _bounded(self, events: list[bytes]) -> list[bytes]:
        if len(self._pending) > self._max:
            raise UpstreamProtocolError(f"the provider sent an event of more than {self._max} bytes")
        return events
