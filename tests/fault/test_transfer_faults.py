"""Fail the Nth thing a transfer does, for N = 1, 2, 3 … until nothing fails: each time it ends once and leaks nothing.

What fails: a dial, a write to a provider, a callback of the connection, a read (each as an error and as a hang that the
time limits end), and a word to the caller. Leaving a scene checks the invariants: one ending, told once and in order,
every connection idle or gone, no deadline left.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.errors import UpstreamConnectError
from gateway.record import Attempt, Ending, Outcome
from gateway.relay.attempt import AttemptRun
from tests.fakes.patience import PATIENCE_S
from tests.fakes.provider import (
    DONE,
    END,
    ROLE,
    STOP,
    STREAMED,
    TEXT,
    WHOLE,
    FakeProvider,
    Line,
    answer,
    chunk,
    stream,
    turns,
)
from tests.fakes.reply import FakeReply
from tests.fakes.transfer import Stage, run, scene

PLAIN = b'{"model":"gpt","messages":[]}'
READS = {
    "whole": (PLAIN, [answer(200, WHOLE)[:40], answer(200, WHOLE)[40:]]),
    "refusal": (PLAIN, [answer(503, b'{"error":{"message":"busy"}}')]),
    "stream": (STREAMED, [stream(ROLE), chunk(TEXT), chunk(TEXT) + chunk(STOP), chunk(DONE), END]),
}
SHAPES = pytest.mark.parametrize("shape", READS)
PROVIDERS = 3


class Broken(Exception):
    """The defect that is played."""


class Countdown:
    """Counts what passes; `due` is true once, for the Nth."""

    def __init__(self, nth: int) -> None:
        self.left = nth
        self.hit = False

    def due(self) -> bool:
        self.left -= 1
        self.hit = self.hit or self.left == 0
        return self.left == 0


async def play(stage: Stage, shape: str, on_read: Callable[[Line], bool] = lambda _: False) -> Outcome:
    """Each provider asked says its part, one read after another; `on_read` says that a read does not come."""
    stage.begin()
    told: set[Line] = set()
    assert stage.task is not None
    for _ in range(200):
        await turns(4)
        if stage.task.done():
            break
        waiting = [line for p in stage.providers for line in p.lines if line not in told and line.asked]
        if not waiting:
            await stage.passes(1)
            continue
        for line in waiting:
            told.add(line)
            for data in READS[shape][1]:
                if not line.is_open() or on_read(line):
                    break
                line.says(data)
                await turns(1)
    return await stage.outcome()


async def until_nothing_fails(fail_nth: Callable[[int], Awaitable[bool]]) -> int:
    """Fail the 1st, 2nd, 3rd … until one run had no such thing to fail; returns how many failures were played."""
    for nth in itertools.count(1):
        if not await fail_nth(nth):
            return nth - 1
        assert nth < 100, "it never succeeds"
    raise AssertionError


def check_attempts(stage: Stage, outcome: Outcome) -> None:
    """Every provider that was asked or dialled has its row, in order."""
    rows: tuple[Attempt, ...] = outcome.attempts
    tried = [provider.account.name for provider in stage.providers if provider.dials]
    told = [row.target.partition("/")[0] for row in rows]
    assert [name for name, _ in itertools.groupby(told)] == tried
    assert all(row.cause for row in rows)
    assert outcome.upstream_bytes >= sum(len(line.asked) for p in stage.providers for line in p.lines)
    if outcome.ending is Ending.COMPLETE:
        assert rows[-1].cause in ("ok", "status_400")


# --- dials and writes -----------------------------------------------------------------------------------------------


@SHAPES
def test_the_nth_dial_fails(shape: str) -> None:
    async def main() -> None:
        async def fail_nth(nth: int) -> bool:
            count = Countdown(nth)
            async with scene(READS[shape][0], providers=PROVIDERS) as stage:
                for provider in stage.providers:
                    provider.on_dial = _refuse(count)
                outcome = await play(stage, shape)
                check_attempts(stage, outcome)
                assert outcome.ending in (Ending.COMPLETE, Ending.FAILED)
                return count.hit

        assert await until_nothing_fails(fail_nth) >= 1

    run(main())


def _refuse(count: Countdown) -> Callable[[Line], None]:
    def on_dial(line: Line) -> None:
        if count.due():
            line.transport.abort()
            raise UpstreamConnectError("no")

    return on_dial


@SHAPES
def test_the_nth_write_finds_the_connection_gone(shape: str) -> None:
    async def main() -> None:
        async def fail_nth(nth: int) -> bool:
            async with scene(READS[shape][0], providers=PROVIDERS) as stage:
                for provider in stage.providers[:nth]:
                    provider.fail_write = 0
                outcome = await play(stage, shape)
                check_attempts(stage, outcome)
                return nth <= PROVIDERS and outcome.attempts[0].cause == "upstream_reset"

        assert await until_nothing_fails(fail_nth) == PROVIDERS

    run(main())


@SHAPES
def test_every_pooled_connection_may_have_died_unseen(shape: str) -> None:
    async def main() -> None:
        async def fail_nth(nth: int) -> bool:
            async with scene(READS[shape][0], providers=PROVIDERS) as stage:
                stale = [await provider.warm() for provider in stage.providers[:nth]]
                for line in stale:
                    line.transport.fail_write = 0
                outcome = await play(stage, shape)
                for row in outcome.attempts:
                    assert row.cause != "upstream_reset", "dead before it was asked: that is no attempt"
                return nth < PROVIDERS

        assert await until_nothing_fails(fail_nth) == PROVIDERS - 1

    run(main())


# --- reads ----------------------------------------------------------------------------------------------------------


def _reset(line: Line) -> bool:
    line.resets()
    return True


def _end(line: Line) -> bool:
    line.ends()
    return True


def _garbage(line: Line) -> bool:
    line.says(b"\x00garbage\r\n\r\n")
    return True


def _silence(_: Line) -> bool:
    return True


@SHAPES
@pytest.mark.parametrize("fault", [_reset, _end, _garbage, _silence])
def test_the_nth_read_is_something_else(shape: str, fault: Callable[[Line], bool]) -> None:
    async def main() -> None:
        async def fail_nth(nth: int) -> bool:
            count = Countdown(nth)
            async with scene(
                READS[shape][0], providers=PROVIDERS, first_byte_ns=5, first_content_ns=5, idle_ns=5
            ) as stage:
                outcome = await play(stage, shape, lambda line: count.due() and fault(line))
                check_attempts(stage, outcome)
                committed = "start" in stage.reply.calls and stage.transfer.streaming
                assert (outcome.ending is Ending.TRUNCATED) <= committed
                return count.hit

        assert await until_nothing_fails(fail_nth) >= len(READS[shape][1])

    run(main())


@SHAPES
def test_the_caller_leaves_at_the_nth_read(shape: str) -> None:
    async def main() -> None:
        async def fail_nth(nth: int) -> bool:
            count = Countdown(nth)

            async with scene(READS[shape][0], providers=PROVIDERS) as stage:

                def leave(_: Line) -> bool:
                    assert stage.task is not None
                    if count.due():
                        stage.task.cancel()
                    return False

                outcome = await play(stage, shape, leave)
                assert outcome.ending in (Ending.ABANDONED, Ending.COMPLETE, Ending.FAILED)
                return count.hit

        assert await until_nothing_fails(fail_nth) >= len(READS[shape][1])

    run(main())


# --- callbacks ------------------------------------------------------------------------------------------------------


@SHAPES
def test_the_nth_callback_of_the_connection_raises(
    shape: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect of ours: it costs its connection and is logged; the transfer ends by its time limits, not never."""
    names = ("on_head", "on_body", "on_end")

    async def main() -> None:
        async def fail_nth(nth: int) -> bool:
            count = Countdown(nth)
            with monkeypatch.context() as patch:
                for name in names:
                    patch.setattr(AttemptRun, name, _raising(count, getattr(AttemptRun, name)))
                async with scene(
                    READS[shape][0], providers=PROVIDERS, first_byte_ns=5, first_content_ns=5, idle_ns=5
                ) as stage:
                    outcome = await play(stage, shape)
                    assert outcome.attempts
            return count.hit

        assert await until_nothing_fails(fail_nth) >= 2

    with caplog.at_level(logging.CRITICAL, logger="gateway.relay"):
        run(main())


@SHAPES
def test_the_nth_word_to_the_caller_raises(
    shape: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("start", "data", "end", "whole", "fail")

    async def main() -> None:
        async def fail_nth(nth: int) -> bool:
            count = Countdown(nth)
            with monkeypatch.context() as patch:
                for word in words:
                    patch.setattr(FakeReply, word, _raising(count, getattr(FakeReply, word)))
                providers = [FakeProvider(name=f"q{index}") for index in range(PROVIDERS)]
                async with scene(READS[shape][0], first_byte_ns=5, first_content_ns=5, idle_ns=5) as stage:
                    stage.providers = providers
                    task = asyncio.ensure_future(play(stage, shape))
                    done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
                    assert done, "it never ends"
                    failure = task.exception()
                    assert failure is None or isinstance(failure, Broken)
                    await turns()
                    assert [provider.busy for provider in providers] == [0] * PROVIDERS
                    stage.task = None  # what a caller who cannot be told was told is not checked
            return count.hit

        assert await until_nothing_fails(fail_nth) >= 1

    with caplog.at_level(logging.CRITICAL, logger="gateway.relay"):
        run(main())


def _raising(count: Countdown, original: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the original takes and gives
        if count.due():
            raise Broken
        return original(*args, **options)

    return counted
