"""The contract's values, and an answer that is there already."""

import asyncio
from collections.abc import Awaitable

import pytest

from gateway.limiter.engine import NOTHING_BINDS, Amount, Epoch, Outcome, Ready, Reserved, Settled
from gateway.limiter.hold import State
from gateway.limiter.spec import slots


async def both(ready: Awaitable[object]) -> tuple[object, object]:
    return await ready, await ready


def test_a_ready_answer_does_not_wait_and_can_be_read_twice() -> None:
    assert at_once(Ready(7)) == (7, 7)


@pytest.mark.parametrize("answer", [Reserved(Outcome.ADMITTED, levels=(7,)), Settled(State.OPEN, (7,))])
def test_an_answer_of_the_hot_path_is_its_own_awaitable(answer: Reserved | Settled) -> None:
    one, other = at_once(answer)
    assert one is other is answer


def at_once(ready: Awaitable[object]) -> tuple[object, object]:
    """What both awaits give; there is no loop, so neither may suspend."""
    coroutine = both(ready)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    found: tuple[object, object] = ended.value.value
    return found


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
