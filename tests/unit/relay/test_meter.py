"""The tap: bytes pass as they are, facts are told once they are seen. Whole streams are in corpus/sse."""

import pytest

from gateway.dialects.anthropic.stream import MessageReader
from gateway.dialects.openai.chat_stream import ChatStreamReader
from gateway.record import Usage
from gateway.relay.meter import Tap

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


def tap(*, withhold: bool = False) -> Tap:
    return Tap(ChatStreamReader(), withhold_usage=withhold)


def test_facts_come_with_the_event_that_shows_them() -> None:
    one = tap()
    one.feed(ROLE)
    assert (one.content, one.done, one.usage, one.error, one.metered_bytes, one.events) == (
        False,
        False,
        None,
        b"",
        0,
        1,
    )
    one.feed(TEXT)
    assert (one.content, one.metered_bytes) == (True, 5)
    one.feed(STOP + USAGE)
    assert one.usage == Usage(input_tokens=3, output_tokens=1)
    assert [one.done, one.complete(clean_eof=True), one.complete(clean_eof=False)] == [False, True, False]
    one.feed(DONE)
    assert [one.done, one.complete(clean_eof=False)] == [True, True]
    assert one.events == 5


def test_chunks_pass_as_the_same_objects() -> None:
    one = tap()
    for chunk in (ROLE, TEXT[:9], TEXT[9:], b"", DONE, b"anything behind"):
        assert one.feed(chunk) is chunk
    assert one.flush() == b""


def test_withholding_takes_the_usage_event_only() -> None:
    one = tap(withhold=True)
    assert one.feed(ROLE) is ROLE
    assert one.feed(TEXT + STOP + USAGE + DONE) == TEXT + STOP + DONE
    assert one.usage is not None
    assert one.flush() == b""


def test_withholding_waits_for_the_end_of_an_event() -> None:
    one = tap(withhold=True)
    assert one.feed(TEXT[:20]) == b""
    assert one.feed(TEXT[20:] + USAGE[:-1]) == TEXT
    assert one.feed(USAGE[-1:]) == b""
    assert one.feed(DONE[:-3]) == b""
    assert one.flush() == DONE[:-3]
    assert one.flush() == b""


def test_a_usage_event_without_its_blank_line_is_withheld_too() -> None:
    one = tap(withhold=True)
    one.feed(STOP + USAGE[:-2])
    assert one.flush() == b""
    assert one.usage is not None


def test_the_line_feed_of_a_withheld_event_goes_with_it() -> None:
    one = tap(withhold=True)
    usage = USAGE.replace(b"\n", b"\r\n")
    assert one.feed(usage[:-1]) == b""
    assert one.feed(b"\n" + DONE.replace(b"\n", b"\r\n")) == DONE.replace(b"\n", b"\r\n")


def test_behind_the_mark_nothing_is_read_or_withheld() -> None:
    one = tap(withhold=True)
    late = USAGE + b'data: {"error":{"message":"late"}}\n\n'
    assert one.feed(DONE + late) == DONE + late
    assert (one.usage, one.error) == (None, b"")
    other = tap()
    other.feed(DONE + late)
    assert (other.usage, other.error) == (None, b"")


def test_an_error_is_told_with_its_json() -> None:
    one = tap()
    one.feed(b'data: {"error":{"message":"no"}}\n\n')
    assert one.error == b'{"error":{"message":"no"}}'
    assert not one.content
    assert not one.complete(clean_eof=True)


def test_a_final_event_without_its_blank_line_counts() -> None:
    one = tap()
    one.feed(TEXT + b"data: [DONE]")
    seen = [one.done]
    one.flush()
    assert [*seen, one.done] == [False, True]


@pytest.mark.parametrize("withhold", [False, True])
def test_a_message_is_metered_by_its_deltas(withhold: bool) -> None:
    one = Tap(MessageReader(), withhold_usage=withhold)
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    for _ in range(3):
        one.feed(delta + b'"text":"' + b"x" * 100 + b'"}}\n\n')
    assert 250 < one.metered_bytes < 350
