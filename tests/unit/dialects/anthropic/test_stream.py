"""Flags of single message events; whole streams are in corpus/sse."""

import pytest

from gateway.dialects.anthropic.stream import MessageReader
from gateway.dialects.base import Seen


@pytest.mark.parametrize(
    ("name", "data", "seen"),
    [
        ("message_start", '{"type":"message_start","message":{"usage":{"input_tokens":1}}}', Seen.USAGE),
        ("message_start", '{"type":"message_start","message":{}}', Seen.NOTHING),
        ("ping", '{"type":"ping"}', Seen.NOTHING),
        ("content_block_start", '{"type":"content_block_start","content_block":{}}', Seen.CONTENT),
        ("content_block_delta", '{"type":"content_block_delta","delta":{}}', Seen.CONTENT),
        ("content_block_stop", '{"type":"content_block_stop"}', Seen.NOTHING),
        ("message_delta", '{"type":"message_delta","delta":{"stop_reason":null}}', Seen.NOTHING),
        ("message_delta", '{"type":"message_delta","delta":{"stop_reason":"end_turn"}}', Seen.CONTENT),
        ("message_delta", '{"type":"message_delta","usage":{"output_tokens":3}}', Seen.USAGE),
        ("message_stop", '{"type":"message_stop"}', Seen.DONE),
        ("error", '{"type":"error","error":{"type":"overloaded_error","message":"x"}}', Seen.ERROR),
        ("error", "no JSON at all", Seen.ERROR),
        ("error", "", Seen.ERROR),
        ("news", '{"type":"news"}', Seen.NOTHING),
        ("message_stop", "{}", Seen.DONE),
        ("message_stop", "nonsense", Seen.UNREADABLE),
        ("message_delta", '{"type":"message_delta","usage":{"output_tokens":"3"}}', Seen.UNREADABLE),
    ],
)
def test_flags(name: str, data: str, seen: Seen) -> None:
    assert MessageReader().read(f"event: {name}\ndata: {data}\n\n".encode()) == seen
    if data.startswith('{"type"'):
        assert MessageReader().read(f"data: {data}\n\n".encode()) == seen


def test_it_is_complete_at_its_last_event_only() -> None:
    assert not MessageReader().complete_at_eof()


@pytest.mark.parametrize("tokens", ["-1", "100000001", '"3"'])
def test_the_beginning_of_usage_is_none_where_the_end_of_it_cannot_be(tokens: str) -> None:
    reader, told = MessageReader(), []
    for event in (
        b'{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}',
        b'{"type":"message_delta","usage":{"output_tokens":%b}}' % tokens.encode(),
        b'{"type":"message_delta","usage":{"output_tokens":7}}',
    ):
        reader.read(b"data: " + event + b"\n\n")
        told.append(reader.usage and (reader.usage.input_tokens, reader.usage.output_tokens))
    assert told == [(9, 1), None, (9, 7)]
