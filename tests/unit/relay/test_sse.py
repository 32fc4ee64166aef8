"""Events are what stands between blank lines, byte for byte, at any split; more splits in property/."""

import time

import pytest

from gateway.errors import UpstreamProtocolError
from gateway.relay.sse import EventSplitter


def fed(*chunks: bytes) -> list[list[bytes]]:
    splitter = EventSplitter()
    return [splitter.feed(chunk) for chunk in chunks]


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        ([b"data: a\n\n"], [[b"data: a\n\n"]]),
        ([b"data: a\n\ndata: b\n\n"], [[b"data: a\n\n", b"data: b\n\n"]]),
        ([b"data: a\n", b"\n"], [[], [b"data: a\n\n"]]),
        ([b"data: a", b"\n\nda", b"ta: b\n\n"], [[], [b"data: a\n\n"], [b"data: b\n\n"]]),
        ([b"data: a\ndata: b\n\n: c\n\n"], [[b"data: a\ndata: b\n\n", b": c\n\n"]]),
        ([b"\n\n\n\n"], [[b"\n\n", b"\n\n"]]),
        ([b"data: a\n\n\ndata: b\n\n"], [[b"data: a\n\n", b"\ndata: b\n\n"]]),
        ([b"data: a\r\n\r\ndata: b\r\n\r\n"], [[b"data: a\r\n\r\n", b"data: b\r\n\r\n"]]),
        ([b"data: a\r\rdata: b\r\r"], [[b"data: a\r\r", b"data: b\r\r"]]),
        ([b"data: a\r", b"\n\r\n"], [[], [b"data: a\r\n\r\n"]]),
        ([b"data: a\r\n", b"\r\n"], [[], [b"data: a\r\n\r\n"]]),
        ([b"data: a\r\n\r", b"\ndata: b\r\n\r\n"], [[b"data: a\r\n\r"], [b"\n", b"data: b\r\n\r\n"]]),
        ([b"data: a\r\r", b"data: b\r\r"], [[b"data: a\r\r"], [b"data: b\r\r"]]),
        ([b"data: a\r\n\n", b"\n"], [[b"data: a\r\n\n"], []]),
        ([b"data: a\n\r\n"], [[b"data: a\n\r\n"]]),
        ([b"data: a\n\r", b"\n"], [[b"data: a\n\r"], [b"\n"]]),
        ([b"data: a\r\ndata: b\r\n"], [[]]),
        ([b"data: a\n", b"data: b\r\n\r\n"], [[], [b"data: a\ndata: b\r\n\r\n"]]),
        ([b""], [[]]),
        ([b"data: a\r\n\r", b"", b"\n"], [[b"data: a\r\n\r"], [], [b"\n"]]),
    ],
)
def test_splits(chunks: list[bytes], events: list[list[bytes]]) -> None:
    assert fed(*chunks) == events


def test_a_whole_event_is_given_as_the_chunk_itself() -> None:
    chunk = b"data: a\n\n"
    assert EventSplitter().feed(chunk)[0] is chunk


def test_pending_is_what_has_not_ended() -> None:
    splitter = EventSplitter()
    assert splitter.pending == b""
    splitter.feed(b"data: a\n\ndata: b\n")
    assert splitter.pending == b"data: b\n"
    splitter.feed(b"\n")
    assert splitter.pending == b""


def test_an_event_above_the_limit_is_refused() -> None:
    splitter = EventSplitter(max_event_bytes=20)
    assert splitter.feed(b"data: " + b"x" * 10 + b"\n\n" + b"data: ")
    with pytest.raises(UpstreamProtocolError, match="more than 20 bytes"):
        splitter.feed(b"x" * 15)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_huge_event_in_small_pieces_is_not_quadratic(line_end: bytes) -> None:
    splitter = EventSplitter()
    splitter.feed(b": first" + line_end * 2)
    event = b"data: " + b"x" * 300_000 + line_end * 2
    started = time.process_time()
    found = [one for at in range(len(event)) for one in splitter.feed(event[at : at + 1])]
    assert time.process_time() - started < 3  # quadratic would be minutes
    assert b"".join(found) + splitter.pending == event
