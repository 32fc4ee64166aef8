"""The tap on one streamed answer: tells content, usage, completion and errors, and changes nothing.

Bytes go on exactly as they came, in the chunks they came in, unless the gateway itself asked for usage: then the one
event that exists only for that is withheld. Withholding needs whole events, so an event that has not ended waits for
its blank line; every other byte still arrives as sent.

Invariants: what `feed` and `flush` return, joined, is what was fed, less the withheld events; flags only ever go from
false to true; after the completion mark nothing more is read. Left out: what to do about any of it (`stream.py`).
"""

from typing import Final

from gateway.dialects.base import Seen, StreamReader
from gateway.record import Usage
from gateway.relay.sse import EventSplitter

_CONTENT: Final = int(Seen.CONTENT)
_USAGE_ONLY: Final = int(Seen.USAGE_ONLY)
_DONE: Final = int(Seen.DONE)
_ERROR: Final = int(Seen.ERROR)
_LF: Final = b"\n"


class Tap:
    """One streamed answer's tap. `events` counts the events read, comments included."""

    def __init__(self, reader: StreamReader, *, withhold_usage: bool) -> None:
        self.content = False
        self.done = False
        self.events = 0
        self._reader = reader
        self._splitter = EventSplitter()
        self._split = self._splitter.feed
        self._read_event = reader.read
        self._withhold = withhold_usage
        self._withheld_half = False  # a withheld event ended with CR: an LF behind it belongs to it
        self._flushed = False

    @property
    def usage(self) -> Usage | None:
        """What the provider has said of usage so far."""
        return self._reader.usage

    @property
    def error(self) -> bytes:
        """The provider's JSON of an error inside the stream, b"" while there was none."""
        return self._reader.error

    @property
    def metered_bytes(self) -> int:
        """Bytes of delta text that have come through: what an abandoned stream is charged by."""
        return self._reader.text_bytes

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to send on now. Raises UpstreamProtocolError for an event above the splitter's limit."""
        if self._withhold:
            return self._feed_withholding(chunk)
        if not self.done:
            for event in self._split(chunk):
                self.events += 1
                flags = self._read_event(event)
                if flags == _CONTENT:
                    self.content = True
                elif flags and self._noted(event, flags) & _DONE:
                    break
        return chunk

    def flush(self) -> bytes:
        """The end of the body: reads what is left without its blank line, and returns what is still to be sent."""
        rest = self._splitter.pending
        if self._flushed:
            return b""
        self._flushed = True
        if not rest:
            return b""
        flags = 0 if self.done else self._read(rest + b"\n\n")
        return rest if self._withhold and not flags & _USAGE_ONLY else b""

    def complete(self, clean_eof: bool) -> bool:  # noqa: FBT001 - the one fact the question is about
        """Whether the answer is whole, given that its body has ended, cleanly or not."""
        return self.done or (clean_eof and self._reader.complete_at_eof())

    def _feed_withholding(self, chunk: bytes) -> bytes:
        events = self._split(chunk)
        if len(events) == 1 and not self._withheld_half and not self.done:  # one event a chunk is the rule
            event = events[0]
            self.events += 1
            flags = self._read_event(event)
            if flags == _CONTENT:
                self.content = True
                return event
            return b"" if self._noted(event, flags) & _USAGE_ONLY else event
        passed = [event for event in events if not self._to_withhold(event)]
        if len(passed) == 1:
            return passed[0]
        return b"".join(passed)

    def _to_withhold(self, event: bytes) -> bool:
        if self._withheld_half:
            self._withheld_half = False
            if event == _LF:
                return True
        return not self.done and bool(self._read(event) & _USAGE_ONLY)

    def _read(self, event: bytes) -> int:
        self.events += 1
        return self._noted(event, self._read_event(event))

    def _noted(self, event: bytes, flags: int) -> int:
        """Keep what the flags of an event say."""
        if flags & _CONTENT:
            self.content = True
        if flags & _DONE:
            self.done = True
        if flags & _USAGE_ONLY:
            self._withheld_half = self._withhold and event.endswith(b"\r")
        return flags
