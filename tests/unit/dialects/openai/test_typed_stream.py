"""Flags of single typed events; whole streams are in corpus/sse."""

import pytest

from gateway.dialects.base import Seen
from gateway.dialects.openai.typed_stream import MediaReader, OpaqueReader, ResponsesReader
from gateway.record import Usage


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ('{"type":"response.created","response":{}}', Seen.NOTHING),
        ('{"type":"response.in_progress","response":{}}', Seen.NOTHING),
        ('{"type":"response.queued","response":{}}', Seen.NOTHING),
        ('{"type":"response.output_item.added","item":{}}', Seen.CONTENT),
        ('{"type":"response.function_call_arguments.delta","delta":"{"}', Seen.CONTENT),
        ('{"type":"response.image_generation_call.partial_image"}', Seen.CONTENT),
        ('{"type":"response.completed","response":{"usage":{"input_tokens":1}}}', Seen.DONE | Seen.USAGE),
        ('{"type":"response.completed","response":{"usage":null}}', Seen.DONE),
        ('{"type":"response.completed"}', Seen.DONE),
        ('{"type":"response.completed","response":7}', Seen.DONE),
        ('{"type":"response.incomplete","response":{}}', Seen.DONE),
        ('{"type":"response.cancelled","response":{}}', Seen.DONE),
        ('{"type":"response.failed","response":{"error":null}}', Seen.ERROR),
        ('{"type":"error","message":"x"}', Seen.ERROR),
        ('{"error":{"message":"x"}}', Seen.ERROR),
        ('{"type":"keepalive"}', Seen.NOTHING),
        ("{}", Seen.NOTHING),
        ("[DONE]", Seen.DONE),
        ("nonsense", Seen.UNREADABLE),
        ("", Seen.NOTHING),
    ],
)
def test_responses(data: str, seen: Seen) -> None:
    reader = ResponsesReader()
    assert reader.read(f"data: {data}\n\n".encode()) == seen
    assert bool(reader.error) == bool(seen & Seen.ERROR)
    assert not reader.complete_at_eof()


def test_the_name_stands_in_for_a_missing_type() -> None:
    assert ResponsesReader().read(b'event: response.completed\ndata: {"response":{}}\n\n') == Seen.DONE
    assert ResponsesReader().read(b"event: error\ndata: plain words\n\n") == Seen.ERROR


def test_deltas_are_metered() -> None:
    reader = ResponsesReader()
    reader.read(b'data: {"type":"response.output_text.delta","delta":"12345"}\n\n')
    assert reader.text_bytes == 5


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ('{"type":"speech.audio.delta","audio":"AA"}', Seen.CONTENT),
        ('{"type":"speech.audio.done","usage":{"input_tokens":1}}', Seen.DONE | Seen.USAGE),
        ('{"type":"speech.audio.done"}', Seen.DONE),
        ('{"type":"transcript.text.delta","delta":"x"}', Seen.CONTENT),
        ('{"type":"transcript.text.segment","text":"x"}', Seen.CONTENT),
        ('{"type":"transcript.text.done","usage":{"type":"duration","seconds":1}}', Seen.DONE | Seen.CONTENT),
        ('{"type":"image_edit.partial_image"}', Seen.CONTENT),
        ('{"type":"image_generation.completed"}', Seen.CONTENT),
        ('{"type":"image_generation.started"}', Seen.NOTHING),
    ],
)
def test_media(data: str, seen: Seen) -> None:
    assert MediaReader().read(f"data: {data}\n\n".encode()) == seen


def test_pictures_sum_their_usage_and_complete_at_the_end() -> None:
    reader = MediaReader()
    assert not reader.complete_at_eof()
    reader.read(b'data: {"type":"image_edit.completed","usage":{"input_tokens":1,"output_tokens":2}}\n\n')
    reader.read(b'data: {"type":"image_edit.completed"}\n\n')
    reader.read(b'data: {"type":"image_edit.completed","usage":{"input_tokens":3,"output_tokens":4}}\n\n')
    assert reader.usage == Usage(4, 6)
    assert reader.complete_at_eof()


def test_unknown_streams_are_content_throughout() -> None:
    reader = OpaqueReader()
    assert reader.read(b'data: {"type":"x"}\n\n') == Seen.CONTENT
    assert reader.read(b": comment\n\n") == Seen.NOTHING
    assert reader.complete_at_eof()
