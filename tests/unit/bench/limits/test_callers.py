"""A caller's side of the proof: when an answer has ended, what it says, and what is counted of it."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from bench.limits import callers
from bench.limits.callers import Answer, Caller, Hammer, Load, hammering
from bench.speed.launch import CannotRun

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = b'data: {"usage":{"prompt_tokens":3,"total_tokens": 12}}\n\ndata: [DONE]\n\n'
STREAM = HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS), EVENTS)
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nretry-after-ms: 100\r\nContent-Length: 2\r\n\r\n{}"
AWAY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(("data", "status", "tokens"), [(STREAM, 200, 12), (REFUSED, 429, 0), (AWAY, 503, 0)])
def test_an_answer_ends_where_it_ends_however_it_is_cut(data: bytes, status: int, tokens: int) -> None:
    for cut in range(1, len(data)):
        answer = Answer()
        assert not answer.feed(data[:cut]), cut
        assert answer.feed(data[cut:])
        assert (answer.status, answer.tokens, answer.problem()) == (status, tokens, "")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (STREAM.replace(b"[DONE]", b"[GONE]"), "a stream without [DONE] or usage"),
        (STREAM.replace(b"total_tokens", b"other_tokens"), "a stream without [DONE] or usage"),
        (REFUSED.replace(b"-ms", b"-xx"), "a 429 without retry-after-ms"),
        (AWAY.replace(b"503", b"500"), "status 500: b'{}'"),
    ],
)
def test_what_a_limited_caller_is_not_to_get_is_said(data: bytes, problem: str) -> None:
    answer = Answer()
    assert answer.feed(data)
    assert answer.problem() == problem


class Transport:
    """What was written, and whether it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True


class Turns:
    """A loop on which what is put off happens when it is told to."""

    def __init__(self) -> None:
        self.put_off: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, work: Callable[[], None]) -> None:
        self.put_off.append((delay_s, work))


class Scene:
    """One caller of a hammer without sockets."""

    def __init__(self) -> None:
        self.hammer = Hammer(Load((1, 2), b"asked", callers=1, pause_s=0.5))
        self.turns = Turns()
        self.hammer.loop = cast("Any", self.turns)
        self.caller = Caller(self.hammer, 0)
        self.transport = Transport()
        self.caller.connection_made(cast("Any", self.transport))


def test_an_admitted_request_is_noted_and_the_next_one_sent() -> None:
    scene = Scene()
    scene.caller.data_received(STREAM[:150])
    assert scene.hammer.reading == 1
    scene.caller.data_received(STREAM[150:])
    assert scene.hammer.reading == 0
    (admitted,) = scene.hammer.seen.admitted
    assert admitted.sent_s <= admitted.begun_s <= admitted.done_s
    assert admitted.tokens == 12
    assert scene.transport.written == [b"asked", b"asked"]


@pytest.mark.parametrize("data", [REFUSED, AWAY, STREAM.replace(b"[DONE]", b"")])
def test_whoever_was_not_admitted_rests_first(data: bytes) -> None:
    scene = Scene()
    scene.caller.data_received(data)
    assert scene.transport.written == [b"asked"]
    ((delay_s, ask),) = scene.turns.put_off
    assert delay_s == 0.5
    ask()
    assert scene.transport.written == [b"asked", b"asked"]
    ask()  # another connection has asked since
    assert len(scene.transport.written) == 2


def test_refusals_and_absences_are_told_apart() -> None:
    scene = Scene()
    scene.caller.data_received(REFUSED)
    seen = scene.hammer.seen
    assert (seen.refused, seen.refusals.total, len(seen.unavailable_s)) == (1, 1, 0)
    assert seen.last_refusal_sent_s > 0
    scene.turns.put_off.pop()[1]()
    scene.caller.data_received(AWAY)
    assert (seen.refused, len(seen.unavailable_s)) == (1, 1)


def test_bytes_that_nobody_asked_for_are_wrong() -> None:
    scene = Scene()
    scene.caller.data_received(REFUSED)
    scene.caller.data_received(REFUSED)
    assert scene.hammer.seen.wrong == {"bytes that nobody asked for": 1}


@pytest.mark.parametrize(("data", "begun"), [(b"", False), (STREAM[:150], True)])
def test_a_connection_that_ends_breaks_off_what_was_under_way(data: bytes, begun: bool) -> None:
    async def lose() -> None:
        scene = Scene()
        scene.hammer.in_service.clear()
        scene.caller.data_received(data) if data else None
        scene.caller.connection_lost(None)
        (broken,) = scene.hammer.seen.broken
        assert (broken.begun_s is not None) is begun
        assert scene.hammer.reading == 0

    asyncio.run(lose())


async def provider(data: bytes) -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(10_000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


def test_all_callers_ask_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "CALM_S", 0.05)

    async def drive() -> Hammer:
        server, port = await provider(REFUSED)
        hammer = Hammer(Load((port,), callers.request("gw-k", b"{}"), callers=30, pause_s=0.01))
        await hammer.drive(0.1)
        server.close()
        return hammer

    seen = asyncio.run(drive()).seen
    assert seen.refused >= 30
    assert not seen.wrong
    assert not seen.broken


def test_callers_that_never_come_to_an_end_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_self: Hammer, _seconds: float) -> None:
        raise TimeoutError

    monkeypatch.setattr(Hammer, "drive", fail)
    with pytest.raises(CannotRun, match="did not come to an end"), hammering(Load((1,), b"", 1), 0.1):
        pass


def test_a_request_is_as_it_goes_over_the_wire() -> None:
    assert callers.request("gw-k", b"{}").endswith(b"authorization: Bearer gw-k\r\ncontent-length: 2\r\n\r\n{}")
