"""The contract's values, and an answer that is there already."""

import asyncio

import pytest

from gateway.limiter.engine import NOTHING_BINDS, Amount, Epoch, Outcome, Ready, Reserved
from gateway.limiter.spec import slots


async def both(ready: Ready[int]) -> tuple[int, int]:
    return await ready, await ready


def test_a_ready_answer_does_not_wait_and_can_be_read_twice() -> None:
    coroutine = both(Ready(7))
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)  # no loop: it must not suspend
    assert ended.value.value == (7, 7)


def test_a_ready_answer_can_be_gathered() -> None:
    async def gathered() -> list[int]:
        return await asyncio.gather(*(asyncio.ensure_future(Ready(n)) for n in range(3)))

    assert asyncio.run(gathered()) == [0, 1, 2]


def test_only_an_admission_is_true_of_a_number() -> None:
    assert [outcome for outcome in Outcome if outcome is Outcome.ADMITTED] == [Outcome(1)]
    assert Reserved(Outcome.ADMITTED).binding == NOTHING_BINDS
    assert Amount("team", slots(1), 1) == Amount("team", slots(1), 1)


def test_a_memory_is_not_fresh_unless_somebody_says_so() -> None:
    assert Epoch("a") == Epoch("a", fresh=False)
    assert Epoch("a", fresh=True) != Epoch("a")
