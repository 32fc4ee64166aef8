"""Any bytes in any split: the same events, the same facts, and joined again the same bytes."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.openai.chat_stream import ChatStreamReader
from gateway.relay.meter import Tap
from gateway.relay.sse import EventSplitter

LINES = st.sampled_from(
    [
        b"data: [DONE]",
        b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}',
        b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}',
        b"data: {",
        b"event: error",
        b": comment",
        b"id: 7",
        b"",
        b"\xef\xbb\xbf",
        b"\xff\x00",
    ]
)
ENDS = st.sampled_from([b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"\r\r", b"\n\r\n", b"\r\n\n", b""])
STREAMS = st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=12).map(b"".join)


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    stream = draw(STREAMS)
    cuts = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=20)) | {0, len(stream)})
    return [stream[start:end] for start, end in pairwise(cuts)]


def events_of(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    """Events with the tail of a CRLF put back where it belongs, and what is left."""
    splitter = EventSplitter()
    events: list[bytes] = []
    for chunk in chunks:
        for event in splitter.feed(chunk):
            if event == b"\n" and events and events[-1].endswith(b"\r"):
                events[-1] += event
            else:
                events.append(event)
    return events, splitter.pending


@given(split_streams())
@settings(max_examples=400, deadline=None)
def test_any_split_gives_the_same_events(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    events, rest = events_of(chunks)
    assert b"".join(events) + rest == stream
    assert (events, rest) == events_of([stream])


@given(split_streams())
@settings(max_examples=400, deadline=None)
def test_any_split_gives_the_same_facts_and_bytes(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    for withhold in (False, True):
        seen = []
        for feeding in (chunks, [stream]):
            tap = Tap(ChatStreamReader(), withhold_usage=withhold)
            out = b"".join(tap.feed(chunk) for chunk in feeding) + tap.flush()
            facts = (tap.content, tap.done, tap.error, tap.usage, tap.metered_bytes, tap.complete(clean_eof=True))
            seen.append((out, facts))
        assert seen[0] == seen[1]
        if not withhold:
            assert seen[0][0] == stream
