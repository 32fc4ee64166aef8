"""A connection to a store: one write a turn, replies in order, and every call ended once, whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from gateway.limiter import wire as module
from gateway.limiter.engine import Reason, Unavailable
from gateway.limiter.resp import ReplyError, command
from gateway.limiter.wire import Call, Wire, fail
from tests.fakes.shim_store import ShimStore

PING = command(b"PING")
LONG_S = 20.0
SOON_S = 0.005


class Listener:
    """Notes what a wire tells its owner."""

    def __init__(self) -> None:
        self.answered = 0
        self.late = 0
        self.refused: list[str] = []
        self.lost: list[str] = []

    def on_answers(self, calls: int) -> None:
        self.answered += calls

    def on_late(self, calls: int) -> None:
        self.late += calls

    def on_refused(self, wire: Wire, call: Call, error: ReplyError) -> None:
        assert wire.open
        self.refused.append(str(error))
        fail(call[0], Unavailable(Reason.REFUSED, str(error)))

    def on_lost(self, wire: Wire, why: str) -> None:
        assert not wire.open
        self.lost.append(why)


class Scene:
    """A wire to a store in this process."""

    def __init__(self) -> None:
        self.store = ShimStore()
        self.owner = Listener()

    async def connect(self, *, deadline_s: float = LONG_S) -> Wire:
        _, wire = await self.store.create_connection(lambda: Wire(self.owner, deadline_s=deadline_s), "store", 1)
        assert isinstance(wire, Wire)
        return wire

    def send(
        self, wire: Wire, data: bytes = PING, decode: Callable[[Any], Any] = lambda reply: reply
    ) -> asyncio.Future[Any]:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        wire.send((waiter, decode, data, False))
        return waiter


def in_loop(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test within a loop, bounded in time."""

    def run() -> None:
        asyncio.run(asyncio.wait_for(test(Scene()), LONG_S))

    run.__name__ = test.__name__
    return run


def numbered(number: int, reply: object) -> tuple[int, object]:
    return number, reply


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # a listener only notes
        await asyncio.sleep(0.001)


async def reason_of(waiter: Awaitable[Any]) -> Reason:
    with pytest.raises(Unavailable) as failed:
        await waiter
    return failed.value.reason


@in_loop
async def test_calls_of_one_turn_leave_as_one_write(scene: Scene) -> None:
    wire = await scene.connect()
    first = [scene.send(wire) for _ in range(3)]
    assert scene.store.writes == []
    assert await asyncio.gather(*first) == [b"PONG"] * 3
    second = [scene.send(wire) for _ in range(2)]
    await asyncio.gather(*second)
    assert scene.store.writes == [PING * 3, PING * 2]
    assert scene.owner.answered == 5
    assert wire.due == 0


@in_loop
async def test_replies_belong_to_calls_in_order_over_turns(scene: Scene) -> None:
    wire = await scene.connect()
    scene.store.silent = True
    waiters = []
    for number in range(30):
        waiters.append(scene.send(wire, decode=partial(numbered, number)))
        if number % 4 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(scene.store.writes) > 5
    scene.store.speak()
    assert await asyncio.gather(*waiters) == [(number, b"PONG") for number in range(30)]


@in_loop
async def test_an_error_ends_one_call_and_not_its_neighbours(scene: Scene) -> None:
    wire = await scene.connect()
    call = command(b"EVALSHA", scene.store.scripts["peek"].sha, b"0")
    before, wrong, after = scene.send(wire), scene.send(wire, call), scene.send(wire)
    assert await before == await after == b"PONG"
    assert await reason_of(wrong) is Reason.REFUSED
    assert scene.owner.refused == ["NOSCRIPT No matching script. Please use EVAL."]


@in_loop
async def test_a_call_whose_caller_left_takes_nobodys_reply(scene: Scene) -> None:
    wire = await scene.connect()
    waiters = [scene.send(wire, decode=partial(numbered, number)) for number in range(3)]
    waiters[1].cancel()
    assert await waiters[0] == (0, b"PONG")
    assert await waiters[2] == (2, b"PONG")
    assert scene.owner.answered == 2


@in_loop
async def test_what_is_late_is_given_up_and_its_reply_is_nobody_elses(scene: Scene) -> None:
    wire = await scene.connect(deadline_s=SOON_S)
    scene.store.silent = True
    late = [scene.send(wire) for _ in range(3)]
    assert [await reason_of(waiter) for waiter in late] == [Reason.LATE] * 3
    assert scene.owner.late == 3
    assert wire.due == 3
    wire.hurry(LONG_S)
    in_time = scene.send(wire, decode=lambda reply: ("mine", reply))
    await asyncio.sleep(0)
    scene.store.speak()
    assert await in_time == ("mine", b"PONG")
    assert (wire.due, scene.owner.answered) == (0, 1)


@in_loop
async def test_only_turns_past_their_deadline_are_late(scene: Scene) -> None:
    wire = await scene.connect(deadline_s=SOON_S)
    scene.store.silent = True
    early = scene.send(wire)
    await asyncio.sleep(0)
    wire.hurry(LONG_S)
    later = scene.send(wire)
    assert await reason_of(early) is Reason.LATE
    assert not later.done()
    scene.store.speak()
    assert await later == b"PONG"


@in_loop
async def test_a_shorter_deadline_holds_at_once_though_a_longer_one_was_waited_for(scene: Scene) -> None:
    wire = await scene.connect()
    assert await scene.send(wire) == b"PONG"
    wire.hurry(SOON_S)
    scene.store.silent = True
    assert await reason_of(scene.send(wire)) is Reason.LATE
    assert scene.owner.lost == []


@in_loop
async def test_a_lost_connection_ends_every_call_written_or_not(scene: Scene) -> None:
    wire = await scene.connect()
    scene.store.silent = True
    written = [scene.send(wire) for _ in range(2)]
    await asyncio.sleep(0)
    unwritten = scene.send(wire)
    scene.store.break_all()
    assert [await reason_of(waiter) for waiter in (*written, unwritten)] == [Reason.LOST] * 3
    assert scene.owner.lost == ["closed by the store"]
    assert wire.due == 0


@in_loop
async def test_closing_says_why_once(scene: Scene) -> None:
    wire = await scene.connect()
    scene.store.silent = True
    waiter = scene.send(wire)
    await asyncio.sleep(0)
    wire.close("the reason")
    wire.close("another")
    with pytest.raises(Unavailable, match="lost: the reason"):
        await waiter
    assert scene.owner.lost == ["the reason"]
    wire.close()
    assert scene.owner.lost == ["the reason"]


@in_loop
async def test_a_silent_connection_is_cut(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STALLED_S", 0.05)
        wire = await scene.connect(deadline_s=SOON_S)
        scene.store.silent = True
        assert await reason_of(scene.send(wire)) is Reason.LATE
        await until(lambda: bool(scene.owner.lost))
        assert scene.owner.lost == ["silent for 0.05 s"]


@in_loop
async def test_silence_counts_from_when_something_was_due(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STALLED_S", 0.02)
        wire = await scene.connect()
        assert await scene.send(wire) == b"PONG"
        await asyncio.sleep(0.05)  # longer than the limit, but nothing was due
        assert await scene.send(wire) == b"PONG"
        assert scene.owner.lost == []


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Bad Request\r\n", b"+PONG\r\n+PONG\r\n", b"$3\r\nabcdef\r\n"])
def test_what_is_no_reply_ends_the_connection(reply: bytes) -> None:
    async def scene_of(scene: Scene) -> None:
        wire = await scene.connect()
        scene.store.silent = True
        waiter = scene.send(wire, decode=lambda _: None)
        await asyncio.sleep(0)
        scene.store.connections[0].deliver(reply)
        await asyncio.wait({waiter})
        await until(lambda: bool(scene.owner.lost))
        assert scene.owner.lost[0].startswith("it does not speak as a store does")

    in_loop(scene_of)()


@in_loop
async def test_an_answer_that_makes_no_sense_ends_its_call_and_the_connection(scene: Scene) -> None:
    wire = await scene.connect()
    waiters = [scene.send(wire, decode=int), scene.send(wire), scene.send(wire)]
    assert [await reason_of(waiter) for waiter in waiters] == [Reason.LOST] * 3
    assert "b'PONG' is no answer" in scene.owner.lost[0].replace('"', "")


@in_loop
async def test_a_failure_nobody_looks_at_is_no_complaint(scene: Scene) -> None:
    assert scene.owner.lost == []
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    waiter: asyncio.Future[None] = loop.create_future()
    fail(waiter, Unavailable(Reason.DOWN))
    fail(waiter, Unavailable(Reason.LATE))
    assert await reason_of(waiter) is Reason.DOWN
    unseen: asyncio.Future[None] = loop.create_future()
    fail(unseen, Unavailable(Reason.DOWN))
    del unseen
    assert complaints == []
