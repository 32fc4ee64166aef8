"""Reads event streams whose events carry a `type`: responses, speech, transcriptions and images.

Responses: content begins with the first output item or anything behind it; the lifecycle events before are none. The
answer ends with completed, incomplete, cancelled or failed. A failure before any content is an error, so that another
target can be tried; behind content it is an ending like the others, which the caller reads itself.

Media: every delta and every partial picture is content, `…done` ends the answer. Pictures end one by one: each
`…completed` carries its own usage, which is summed, and only the end of the body says that it was the last.
"""

from abc import ABC, abstractmethod
from typing import Final

import msgspec

from gateway.dialects import events
from gateway.dialects.base import Seen
from gateway.dialects.events import ABSENT
from gateway.dialects.openai import usage as usages
from gateway.record import Usage

_NAMED: Final = b"event: response."
_CONTENT: Final = int(Seen.CONTENT)
_DONE_MARK: Final = b"[DONE]"
_ERROR_TYPE: Final = "error"
_FAILED: Final = "response.failed"
_LIFECYCLE: Final = frozenset({"response.created", "response.in_progress", "response.queued"})
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.cancelled"})
_MEDIA_CONTENT: Final = frozenset(
    {
        "speech.audio.delta",
        "transcript.text.delta",
        "transcript.text.segment",
        "image_generation.partial_image",
        "image_edit.partial_image",
    }
)
_MEDIA_DONE: Final = {
    "speech.audio.done": Seen.DONE,
    "transcript.text.done": Seen.DONE | Seen.CONTENT,  # it repeats the whole text
}
_PICTURE: Final = frozenset({"image_generation.completed", "image_edit.completed"})


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class _Response(msgspec.Struct, gc=False):
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class _Delta(msgspec.Struct, gc=False):
    delta: msgspec.Raw = ABSENT


_delta: Final = msgspec.json.Decoder(_Delta)
_event: Final = msgspec.json.Decoder(_Event)
_response: Final = msgspec.json.Decoder(_Response)


class _TypedReader(ABC):
    """What both readers share: decoding, errors, and the mark that ends a stream everywhere."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.error = b""
        self.text_bytes = 0

    def read(self, event: bytes) -> int:
        """Seen flags of one event."""
        data = events.data_of(event)
        try:
            read = events.decode(_event, data)
        except (ValueError, RecursionError):
            return self._unread(event, data)
        kind = read.type or events.name_of(event).decode("latin-1")
        if kind == _ERROR_TYPE or (events.said(read.error) and not kind.startswith("response.")):
            return self._failed(data)
        if read.delta:
            self.text_bytes += max(len(read.delta) - 2, 0)
        return int(self._meaning(kind, read))

    def complete_at_eof(self) -> bool:
        """Only a last event completes these answers."""
        return False

    @abstractmethod
    def _meaning(self, kind: str, read: _Event) -> Seen:
        """Flags of an event that is no error, by its type."""

    def _take_usage(self, usage: Usage | None) -> Seen:
        if usage is None:
            return Seen.NOTHING
        self.usage = usage
        return Seen.USAGE

    def _failed(self, data: bytes) -> int:
        self.error = data.strip() or b"{}"
        return int(Seen.ERROR)

    def _unread(self, event: bytes, data: bytes) -> int:
        if data.startswith(_DONE_MARK):
            return int(Seen.DONE)
        if events.name_of(event) == b"error":
            return self._failed(data)
        return int(Seen.UNREADABLE if data.strip() else Seen.NOTHING)


class ResponsesReader(_TypedReader):
    """See `base.StreamReader`."""

    def __init__(self) -> None:
        super().__init__()
        self._content = False

    def read(self, event: bytes) -> int:
        """Seen flags of one event; deltas, which nearly all are, are told by their name."""
        end = event.find(b"\n")
        if event.startswith(_NAMED) and event.startswith(b".delta", end - 6) and event.startswith(b"data: {", end + 1):
            try:
                delta = _delta.decode(event[end + 7 :]).delta
            except (ValueError, RecursionError):
                return super().read(event)
            self._content = True
            self.text_bytes += max(len(delta) - 2, 0)
            return _CONTENT
        return super().read(event)

    def _meaning(self, kind: str, read: _Event) -> Seen:
        if kind in _LIFECYCLE:
            return Seen.NOTHING
        if kind in _TERMINAL:
            return Seen.DONE | self._take_usage(_parts(read.response)[0])
        if kind == _FAILED:
            usage, error = _parts(read.response)
            if not self._content:
                self.error = error
                return Seen.ERROR
            return Seen.DONE | self._take_usage(usage)
        if not kind.startswith("response."):
            return Seen.NOTHING
        self._content = True
        return Seen.CONTENT


class MediaReader(_TypedReader):
    """See `base.StreamReader`."""

    def __init__(self) -> None:
        super().__init__()
        self._pictures = 0

    def complete_at_eof(self) -> bool:
        """A picture has been completed: how many were to come, only the end of the body says."""
        return self._pictures > 0

    def _meaning(self, kind: str, read: _Event) -> Seen:
        if kind in _MEDIA_CONTENT:
            return Seen.CONTENT
        usage = usages.parse(read.usage) if events.said(read.usage) else None
        if kind in _PICTURE:
            self._pictures += 1
            return Seen.CONTENT | self._take_usage(_sum(self.usage, usage))
        ending = _MEDIA_DONE.get(kind)
        return ending | self._take_usage(usage) if ending is not None else Seen.NOTHING


class OpaqueReader(_TypedReader):
    """For surfaces whose events nobody here knows: all data is content, and any clean end is complete."""

    def complete_at_eof(self) -> bool:
        """Nothing is known that could be missing."""
        return True

    def _meaning(self, kind: str, read: _Event) -> Seen:  # noqa: ARG002 - nothing of it is known
        return Seen.CONTENT


def _parts(response: msgspec.Raw) -> tuple[Usage | None, bytes]:
    """Usage and error of the response that a last event carries."""
    try:
        said = events.decode(_response, bytes(response))
    except ValueError:
        return None, b"{}"
    usage = usages.parse(said.usage) if events.said(said.usage) else None
    return usage, bytes(said.error) if events.said(said.error) else b"{}"


def _sum(before: Usage | None, now: Usage | None) -> Usage | None:
    if before is None or now is None:
        return now or before
    return Usage(
        input_tokens=before.input_tokens + now.input_tokens,
        output_tokens=before.output_tokens + now.output_tokens,
        cache_read_tokens=before.cache_read_tokens + now.cache_read_tokens,
        cache_write_tokens=before.cache_write_tokens + now.cache_write_tokens,
        reasoning_tokens=before.reasoning_tokens + now.reasoning_tokens,
        audio_input_tokens=before.audio_input_tokens + now.audio_input_tokens,
        audio_output_tokens=before.audio_output_tokens + now.audio_output_tokens,
    )
