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
_CR: Final = ord("\r")  # looked for as a number: an eighth of the time that b"\r" takes
_LF: Final = ord("\n")
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
        if self._pending or self._cr or _CR in chunk:
            return self._join(chunk)
        # One event a chunk is the rule. Its first LF is its last but one byte, or else only its blank line is double.
        blank_at = len(chunk) - 2
        if chunk.find(b"\n") == blank_at and chunk[-1] == _LF:
            return [chunk]
        if chunk.endswith(b"\n\n") and chunk.find(b"\n\n") == blank_at:
            return [chunk]
        return self._lines(chunk)

    def _join(self, chunk: bytes) -> list[bytes]:
        """The general case: something is pending, or carriage returns are in use."""
        if not chunk:
            return []
        self._cr = self._cr or _CR in chunk
        events: list[bytes] = []
        if self._half:
            self._half = False
            if chunk.startswith(b"\n"):
                events.append(b"\n")
                chunk = chunk[1:]
        searched = max(len(self._pending) - _LOOK_BACK, 0)
        self._pending += chunk
        if self._ends_behind(searched):
            data = bytes(self._pending)
            self._pending = bytearray()
            events += self._blanks(data) if self._cr else self._lines(data)
        return self._bounded(events)

    def _ends_behind(self, at: int) -> bool:
        if self._cr:
            return _BLANK.search(self._pending, at) is not None
        return self._pending.find(b"\n\n", at) >= 0

    def _lines(self, data: bytes) -> list[bytes]:
        """Cut at blank lines where LF is the only line end."""
        pieces = data.split(b"\n\n")
        self._pending += pieces.pop()
        return self._bounded([piece + b"\n\n" for piece in pieces])

    def _blanks(self, data: bytes) -> list[bytes]:
        """Cut at blank lines of any kind."""
        events: list[bytes] = []
        start = 0
        for blank in _BLANK.finditer(data):
            events.append(data[start : blank.end()])
            start = blank.end()
        self._half = start == len(data) and data.endswith(b"\r")
        self._pending += data[start:]
        return events

    def _bounded(self, events: list[bytes]) -> list[bytes]:
        if len(self._pending) > self._max:
            raise UpstreamProtocolError(f"the provider sent an event of more than {self._max} bytes")
        return events
