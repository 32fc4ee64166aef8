"""Faults inside a body, as pure functions of its events."""

import gzip
from collections.abc import Iterator

import pytest

from bench.sim.faults import behaviour, parse
from bench.sim.shape import GARBAGE, events_of, reached
from bench.sim.wire import Event, Kind, Reply

OPENING, FIRST, SECOND, CLOSING, DONE = b"o\n\n", b"1\n\n", b"2\n\n", b"c\n\n", b"d\n\n"


def stream() -> Iterator[Event]:
    kinds = (Kind.OPENING, Kind.CONTENT, Kind.CONTENT, Kind.CLOSING, Kind.DONE)
    return map(Event, kinds, (OPENING, FIRST, SECOND, CLOSING, DONE))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", [OPENING, FIRST, SECOND, CLOSING, DONE]),
        ("empty", []),
        ("empty=done", [DONE]),
        ("ping=2", [b": ping\n\n"] * 2 + [OPENING, FIRST, SECOND, CLOSING, DONE]),
        ("error=0", [b"E"]),
        ("error=2", [OPENING, FIRST, b"E"]),
        ("error=99", [OPENING, FIRST, SECOND, CLOSING, DONE, b"E"]),
        ("cut=before", []),
        ("cut=headers", []),
        ("cut=content", [OPENING, FIRST]),
        ("cut=3", [OPENING, FIRST, SECOND]),
        ("cr; cut=1", [b"o\r\n\r\n"]),
        ("garbage", [GARBAGE]),
    ],
)
def test_a_stream_is_shaped(spec: str, expected: list[bytes]) -> None:
    reply = Reply(200, [], stream(), sse=True, error_event=b"E")
    assert [event.data for event in events_of(reply, behaviour(parse(spec)))] == expected


def test_bytes_given_by_a_script_keep_their_line_ends() -> None:
    reply = Reply(200, [], stream(), sse=True, exact=True)
    assert next(events_of(reply, behaviour(parse("cr")))).data == OPENING


def test_a_whole_body_is_cut_in_eighths() -> None:
    body = bytes(range(16))
    eighths = [event.data for event in events_of(Reply(body=body), behaviour(parse("reset=2")))]
    assert eighths == [body[at : at + 2] for at in range(0, 16, 2)]
    assert [event.data for event in events_of(Reply(body=body), behaviour())] == [body]
    assert list(events_of(Reply(body=b""), behaviour(parse("reset=2")))) == []


def test_compression_flushes_each_event() -> None:
    packed = [event.data for event in events_of(Reply(200, [], stream(), sse=True), behaviour(parse("gzip")))]
    assert gzip.decompress(b"".join(packed)) == OPENING + FIRST + SECOND + CLOSING + DONE
    assert all(len(part) > 0 for part in packed)


@pytest.mark.parametrize(
    ("point", "sent", "content", "expected"),
    [
        (None, 9, 9, False),
        ("before", 9, 9, False),
        ("headers", 0, 0, True),
        ("content", 3, 0, False),
        ("content", 3, 1, True),
        (0, 0, 0, True),
        (2, 1, 1, False),
        (2, 2, 0, True),
    ],
)
def test_points_are_reached_in_events(point: str | int | None, sent: int, content: int, *, expected: bool) -> None:
    assert reached(point, sent, content) is expected
