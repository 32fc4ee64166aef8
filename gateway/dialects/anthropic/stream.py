"""Reads the event stream of messages.

Content begins with the first content block (thinking counts), or with a stop reason where there is none. The answer
is complete at `message_stop` and nowhere else. Usage is merged from `message_start` and every `message_delta`. Most
events are deltas, which are told by their first line; their size stands for their text.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from gateway.dialects import events
from gateway.dialects.anthropic.usage import Counts, merge, to_usage
from gateway.dialects.base import Seen

if TYPE_CHECKING:
    from gateway.record import Usage

_DELTA_EVENT: Final = b"event: content_block_delta\n"
_DELTA_FRAME_BYTES: Final = 128  # of a text delta event: what is not its text
_NOTHING: Final = int(Seen.NOTHING)
_CONTENT: Final = int(Seen.CONTENT)
_USAGE: Final = b'"usage"'
_BLOCKS: Final = frozenset({"content_block_start", "content_block_delta"})


class _Message(msgspec.Struct, gc=False):
    usage: Counts | None = None


class _Delta(msgspec.Struct, gc=False):
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: Counts | None = None


_event: Final = msgspec.json.Decoder(_Event)


class MessageReader:
    """See `base.StreamReader`."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.error = b""
        self.text_bytes = 0
        self._counts: Counts | None = None

    def read(self, event: bytes) -> int:
        """Seen flags of one event."""
        if event.startswith(_DELTA_EVENT):
            self.text_bytes += max(len(event) - _DELTA_FRAME_BYTES, 1)
            return _CONTENT
        data = events.data_of(event)
        try:
            read = events.decode(_event, data)
        except (ValueError, RecursionError):
            return self._unread(event, data)
        return int(self._meaning(read.type or events.name_of(event).decode("latin-1"), read, data))

    def complete_at_eof(self) -> bool:
        """Only `message_stop` completes a message."""
        return False

    def _meaning(self, kind: str, read: _Event, data: bytes) -> Seen:
        if kind in _BLOCKS:
            self.text_bytes += max(len(data) - _DELTA_FRAME_BYTES, 0)
            return Seen.CONTENT
        if kind == "message_start":
            return self._take_usage(read.message.usage if read.message is not None else None)
        if kind == "message_delta":
            stopped = read.delta is not None and read.delta.stop_reason is not None
            return self._take_usage(read.usage) | (Seen.CONTENT if stopped else Seen.NOTHING)
        if kind == "message_stop":
            return Seen.DONE
        if kind == "error":
            self.error = data.strip()
            return Seen.ERROR
        return Seen.NOTHING

    def _take_usage(self, counts: Counts | None) -> Seen:
        if counts is None:
            return Seen.NOTHING
        self._counts = merge(self._counts, counts)
        self.usage = to_usage(self._counts)
        return Seen.USAGE

    def _unread(self, event: bytes, data: bytes) -> int:
        if events.name_of(event) == b"error":
            self.error = data.strip() or b"{}"
            return int(Seen.ERROR)
        if _USAGE in data:  # counts that cannot be: those told before are only the beginning
            self.usage = None
        return int(Seen.UNREADABLE) if data.strip() else _NOTHING
