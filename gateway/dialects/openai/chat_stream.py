"""Reads the event stream of chat completions and of completions.

Content is text, reasoning, a refusal, a tool or function call, audio, or a finish reason in any choice. The answer is
complete at `[DONE]`; servers that leave that out are complete when every choice that was seen has finished. An event
with no choices but with usage exists only because usage was asked for. One small decode an event (about 0.5 µs) reads
all of that; looking for substrings instead costs as much and misses spellings.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from gateway.dialects import events
from gateway.dialects.base import Seen
from gateway.dialects.events import ABSENT
from gateway.dialects.openai import usage as usages

if TYPE_CHECKING:
    from gateway.record import Usage

_EMPTY: Final = frozenset({b"", b"null", b'""', b"[]", b"{}"})
_DONE: Final = b"[DONE]"
_ERROR: Final = b"error"
_QUOTES: Final = 2

_NOTHING: Final = int(Seen.NOTHING)
_CONTENT: Final = int(Seen.CONTENT)
_USAGE: Final = int(Seen.USAGE)
_USAGE_ONLY: Final = int(Seen.USAGE | Seen.USAGE_ONLY)
_ERROR_SEEN: Final = int(Seen.ERROR)
_DONE_SEEN: Final = int(Seen.DONE)
_UNREADABLE: Final = int(Seen.UNREADABLE)


class _Delta(msgspec.Struct, gc=False):
    content: msgspec.Raw = ABSENT
    reasoning_content: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    refusal: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT
    function_call: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: msgspec.Raw = ABSENT
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    object: str | None = None


_chunk: Final = msgspec.json.Decoder(_Chunk)


class ChatStreamReader:
    """See `base.StreamReader`."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.error = b""
        self.text_bytes = 0
        self._open: set[int] = set()
        self._finished = False

    def read(self, event: bytes) -> int:
        """Seen flags of one event."""
        data = events.data_of(event)
        try:
            chunk = events.decode(_chunk, data)
        except (ValueError, RecursionError):
            return self._unread(event, data)
        if events.said(chunk.error) or chunk.object == "error" or (chunk.choices is None and _named_error(event)):
            self.error = bytes(data).strip()
            return _ERROR_SEEN
        flags = _NOTHING
        if chunk.choices:
            for choice in chunk.choices:
                if self._take(choice):
                    flags = _CONTENT
        if events.said(chunk.usage):
            flags |= self._take_usage(chunk.usage, alone=chunk.choices == [])
        return flags

    def complete_at_eof(self) -> bool:
        """Every choice that was seen has finished."""
        return self._finished and not self._open

    def _take(self, choice: _Choice) -> bool:
        size = _size(choice.text) if choice.text else 0
        delta = choice.delta
        if delta is not None:
            size += _size(delta.content)
            size += _size(delta.reasoning_content) + _size(delta.reasoning) + _size(delta.refusal)
            size += _size(delta.tool_calls) + _size(delta.function_call) + _size(delta.audio)
        self.text_bytes += size
        if choice.finish_reason:
            self._finished = True
            self._open.discard(choice.index)
            return True
        self._open.add(choice.index)
        return size > 0

    def _take_usage(self, raw: msgspec.Raw, *, alone: bool) -> int:
        usage = usages.parse(raw)
        if usage is None:
            return _NOTHING
        self.usage = usage
        return _USAGE_ONLY if alone else _USAGE

    def _unread(self, event: bytes, data: bytes) -> int:
        if data.startswith(_DONE):
            return _DONE_SEEN
        if _named_error(event):
            self.error = bytes(data).strip() or b"{}"
            return _ERROR_SEEN
        return _UNREADABLE if data.strip() else _NOTHING


def _named_error(event: bytes) -> bool:
    return event.startswith(b"event") and events.name_of(event) == _ERROR


def _size(raw: msgspec.Raw) -> int:
    """Bytes of JSON between its delimiters, 0 for nothing said."""
    size = len(raw)
    if size <= 4 and bytes(raw) in _EMPTY:  # noqa: PLR2004 - `null` is the longest way to say nothing
        return 0
    return size - _QUOTES
