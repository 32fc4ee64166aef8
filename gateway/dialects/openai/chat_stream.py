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
_UNSURE: Final = len("null") - _QUOTES  # a value as short as this may be one of _EMPTY
_ONE_LINE: Final = b"data: {"  # decoding fails when another line follows, so this may be tried first

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


class _Other(msgspec.Struct, gc=False):
    object: str = ""


_chunk: Final = msgspec.json.Decoder(_Chunk)
_other: Final = msgspec.json.Decoder(_Other)


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
        try:
            chunk = _chunk.decode(event[6:] if event.startswith(_ONE_LINE) else events.data_of(event))
        except (ValueError, RecursionError):
            return self._read_slowly(event)
        choices = chunk.choices
        if choices and len(choices) == 1 and chunk.usage is ABSENT and chunk.error is ABSENT:
            choice = choices[0]
            delta = choice.delta
            if delta is not None and choice.finish_reason is None:
                size = len(delta.content) - _QUOTES
                if size > _UNSURE:  # nearly every event: some text of the one choice
                    self.text_bytes += size
                    self._open.add(choice.index)
                    return _CONTENT
        return self._take_chunk(event, chunk)

    def _read_slowly(self, event: bytes) -> int:
        """An event of several lines, with lone surrogates, or no JSON."""
        data = events.data_of(event)
        try:
            return self._take_chunk(event, events.decode(_chunk, data))
        except (ValueError, RecursionError):
            return self._unread(event, data)

    def _take_chunk(self, event: bytes, chunk: _Chunk) -> int:
        choices = chunk.choices
        if (choices is None or chunk.error is not ABSENT) and self._is_error(event, chunk):
            self.error = events.data_of(event).strip()
            return _ERROR_SEEN
        flags = _NOTHING
        if choices:
            for choice in choices:
                if self._take(choice):
                    flags = _CONTENT
        if chunk.usage is not ABSENT:
            flags |= self._take_usage(chunk.usage, alone=choices == [])
        return flags

    def _is_error(self, event: bytes, chunk: _Chunk) -> bool:
        if events.said(chunk.error) or _named_error(event):
            return True
        try:
            return events.decode(_other, events.data_of(event)).object == "error"
        except ValueError:
            return False

    def complete_at_eof(self) -> bool:
        """Every choice that was seen has finished."""
        return self._finished and not self._open

    def _take(self, choice: _Choice) -> bool:
        delta = choice.delta
        size = len(delta.content) - _QUOTES if delta is not None else 0
        if size <= _UNSURE:
            size = _size(choice.text) + (_sizes(delta) if delta is not None else 0)
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


def _sizes(delta: _Delta) -> int:
    thought = _size(delta.reasoning_content) + _size(delta.reasoning)
    called = _size(delta.tool_calls) + _size(delta.function_call)
    return _size(delta.content) + thought + called + _size(delta.refusal) + _size(delta.audio)


def _size(raw: msgspec.Raw) -> int:
    """Bytes of JSON between its delimiters, 0 for nothing said."""
    size = len(raw)
    if size <= _UNSURE + _QUOTES and bytes(raw) in _EMPTY:
        return 0
    return size - _QUOTES
