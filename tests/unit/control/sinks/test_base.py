"""The contract of every sink: whole lines, in order, each at least once, and nothing but SinkError."""

import errno
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway.control.sinks.base import Sink, SinkError
from gateway.control.sinks.registry import SINKS, sink_of
from tests.unit.control.sinks.scenes import SCENES, Scene, export

LONG = 150_000
MOST_FAULTS = 200


@pytest.fixture(params=SCENES, ids=lambda kind: kind.kind)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    made: Scene = request.param(tmp_path)
    yield made
    made.close()


def lines(first: int, end: int) -> list[bytes]:
    return [json.dumps({"id": number, "pad": "x" * (number * 37 % 500)}).encode() for number in range(first, end)]


def ids_in(received: bytes) -> list[int]:
    """What arrived, every line of it whole."""
    assert not received or received.endswith(b"\n")
    return [json.loads(line)["id"] for line in received.splitlines()]


def send_until_taken(sink: Sink, batch: Sequence[bytes]) -> int:
    """As a reader does; how many times it was refused."""
    for refused in range(5):
        try:
            sink.send(batch)
        except SinkError:
            continue
        return refused
    raise AssertionError("it never got better")


def test_every_sink_is_held_to_this() -> None:
    assert [scene.kind for scene in SCENES] == [kind.name for kind in SINKS]


def test_lines_arrive_whole_and_in_order(scene: Scene) -> None:
    sink = scene.sink()
    sink.send([])
    sink.send(lines(0, 3))
    sink.send(lines(3, 200))
    sink.close()
    assert scene.received() == b"".join(line + b"\n" for line in lines(0, 200))


def test_a_long_line_is_as_good_as_a_short_one(scene: Scene) -> None:
    sink = scene.sink()
    sent = [b'{"id":0}', json.dumps({"id": 1, "pad": "y" * LONG}).encode(), b'{"id":2}']
    sink.send(sent)
    sink.close()
    assert scene.received() == b"".join(line + b"\n" for line in sent)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_any_write_repeats_lines_and_loses_none(scene: Scene, error: int) -> None:
    sink = scene.sink()
    sink.send(lines(0, 10))
    first, nth, refused = 10, 1, 1
    while refused:
        assert nth < MOST_FAULTS
        with scene.failing(nth, error):
            refused = send_until_taken(sink, lines(first, first + 40))
        first, nth = first + 40, nth + 1
    assert nth > 2, "at least one fault was met"
    sink.close()
    arrived = ids_in(scene.received())
    assert list(dict.fromkeys(arrived)) == list(range(first)), "in order, none missing"


def test_making_one_opens_nothing(scene: Scene, tmp_path: Path) -> None:
    sink_of(export(scene.kind, tmp_path / "not" / "there" / "yet")).close()


def test_after_close_nothing_is_taken(scene: Scene) -> None:
    sink = scene.sink()
    sink.send(lines(0, 2))
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="stopping"):
        sink.send(lines(2, 3))
    assert ids_in(scene.received()) == [0, 1]


def test_it_can_be_closed_unused(scene: Scene) -> None:
    scene.sink().close()
    assert scene.received() == b""
