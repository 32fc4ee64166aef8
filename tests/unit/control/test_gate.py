"""The admin token opens, nothing else does, and guessing is slow without making anybody else wait."""

import asyncio

import pytest

from gateway.config.secrets import Secret
from gateway.control.gate import FORGET_S, FREE_FAILURES, MAX_WAITING, TokenGate

TOKEN = Secret("the-admin-token")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def gate(token: Secret | None = TOKEN, delay_s: float = 0.02) -> TokenGate:
    return TokenGate(lambda: token, Clock(), delay_s)


@pytest.mark.parametrize("header", ["Bearer the-admin-token", "bearer the-admin-token", "BEARER  the-admin-token "])
def test_the_token_admits(header: str) -> None:
    assert gate().admits(header)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "the-admin-token", "Basic the-admin-token", "Bearer the-admin-toke", "Bearer \udcff"],
)
def test_nothing_else_does(header: str) -> None:
    assert not gate().admits(header)


def test_without_a_token_nobody_is_admitted() -> None:
    assert not gate(None).admits("Bearer the-admin-token")
    assert not gate(None).admits("Bearer ")


def test_the_token_may_change() -> None:
    tokens = [Secret("old-admin-token"), Secret("new-admin-token")]
    door = TokenGate(lambda: tokens[0], Clock())
    assert door.admits("Bearer old-admin-token")
    tokens.pop(0)
    assert not door.admits("Bearer old-admin-token")
    assert door.admits("Bearer new-admin-token")


async def took_s(door: TokenGate) -> float:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await door.refuse()
    return loop.time() - before


def test_many_failures_are_answered_late_until_they_are_forgotten() -> None:
    clock = Clock()
    door = TokenGate(lambda: TOKEN, clock, 0.02)

    async def main() -> None:
        for _ in range(FREE_FAILURES):
            assert await took_s(door) < 0.01
        assert await took_s(door) >= 0.015
        clock.now_s += FORGET_S + 1
        assert await took_s(door) < 0.01

    asyncio.run(main())
    assert door.refused == FREE_FAILURES + 2
    assert len(door._failures) <= FREE_FAILURES + 1


def test_answers_held_back_are_bounded() -> None:
    door = gate(delay_s=60)

    async def main() -> None:
        waiting = [asyncio.ensure_future(door.refuse()) for _ in range(FREE_FAILURES + MAX_WAITING + 10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(not task.done() for task in waiting) == MAX_WAITING
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert door._waiting == 0

    asyncio.run(main())
