"""What a store may not have is settled again: by what it knows of each hold, once, and as it would stand by now."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.control.limits_repeat import AT_ONCE, Repetition, batches, settle
from gateway.limiter.engine import Amount, Unavailable
from gateway.limiter.recorded import key_of
from gateway.limiter.replay import Charge, Fact, What
from gateway.limiter.spec import MAX_AMOUNT, Spec, rate, window
from tests.fakes.forgetful_engine import ForgetfulEngine

NOW_MS = 1_800_000_000_000
RPM = rate(60_000, 60_000, 60_000)  # one a second
TOLD = rate(MAX_AMOUNT, 60_000, 60_000)  # as a record names it
DAY = window(MAX_AMOUNT, NOW_MS - 1_000, NOW_MS + 86_400_000)


def fact(hold: str, at_ms: int, amount: int, spec: Spec = TOLD, bucket: str = "b") -> Fact:
    return Fact(What.SETTLED, at_ms, hold, (Charge(key_of(bucket, spec), spec, amount),))


def engine_at(now_ms: int) -> ForgetfulEngine:
    return ForgetfulEngine(now_ms, marked=True)


def repeat(engine: ForgetfulEngine, facts: list[Fact], *, nodes: int = 1, there: tuple[str, ...] = ()) -> Repetition:
    """See them, then settle them, as the keeper does."""
    repetition = Repetition(engine, nodes, lambda fact: fact.hold in there)

    async def story() -> None:
        for some in batches(iter(facts)):
            await repetition.see(some)
        for some in batches(iter(facts)):
            await repetition.settle(some, engine.now_ms)

    asyncio.run(story())
    return repetition


def delivered_between(engine: ForgetfulEngine, facts: list[Fact], nodes: int = 1) -> Repetition:
    """See them and settle them, while the worker of the first one delivers it."""
    repetition = Repetition(engine, nodes, lambda _fact: False)

    async def story() -> None:
        await repetition.see(facts)
        await engine.settle(facts[0].hold, facts[0].amounts)
        await repetition.settle(facts, engine.now_ms)

    asyncio.run(story())
    return repetition


def used(engine: ForgetfulEngine, spec: Spec = TOLD, bucket: str = "b") -> int:
    return engine.used(bucket, spec)


@pytest.mark.parametrize("actual", [0, 1_000, 3_000])
def test_a_hold_that_the_store_has_is_settled_as_its_worker_would(actual: int) -> None:
    late, sound = engine_at(NOW_MS), engine_at(NOW_MS)
    for engine in (late, sound):
        engine.reserve("h", [Amount("b", RPM, 1_000)])
        engine.reserve("other", [Amount("b", RPM, 10_000)])
        engine.now_ms += 5_000
    sound.settle("h", (Amount("b", RPM, actual),))
    assert repeat(late, [fact("h", NOW_MS + 100, actual)]).settled == 1
    assert used(late) == used(sound)
    late.settle("h", (Amount("b", RPM, actual),))  # the worker's own comes after all
    assert used(late) == used(sound)


def test_what_the_store_has_settled_is_left_alone() -> None:
    engine = engine_at(NOW_MS)
    engine.settle("h", (Amount("b", RPM, 7_000),))
    assert repeat(engine, [fact("h", NOW_MS, 7_000)]).settled == 0
    assert used(engine) == 7_000


def test_what_it_does_not_know_refills_once_not_each_settlement_by_itself() -> None:
    engine = engine_at(NOW_MS + 10_000)
    facts = [fact(f"h{number}", NOW_MS + number, 1_000) for number in range(250)]
    assert repeat(engine, facts).settled == 250
    assert used(engine) == 250_000 - 10_000  # ten seconds' refill of all that was used
    repeat(engine, facts)
    assert used(engine) == 240_000


def test_a_long_absence_has_refilled_what_was_used_in_its_beginning() -> None:
    engine = engine_at(NOW_MS + 3_600_000)
    early = [fact(f"e{number}", NOW_MS, 1_000) for number in range(100)]
    assert repeat(engine, [*early, fact("late", NOW_MS + 3_599_000, 5_000)]).settled == 101
    assert used(engine) == 4_000


def test_a_budget_is_charged_whole() -> None:
    engine = engine_at(NOW_MS + 60_000)
    repetition = repeat(engine, [fact(f"h{number}", NOW_MS, 10, DAY) for number in range(3)])
    assert used(engine, DAY) == 30
    assert repetition.there(engine.now_ms) == {key_of("b", DAY): 30}


def test_nodes_that_share_a_store_rely_on_their_part_of_the_refill() -> None:
    engine = engine_at(NOW_MS + 30_000)
    for node in range(3):
        repeat(engine, [fact(f"{node}-{number}", NOW_MS, 1_000) for number in range(40)], nodes=3)
    assert used(engine) == 3 * (40_000 - 10_000)  # together they have used 120, and 30 have refilled


def test_what_is_there_under_no_id_counts_and_is_not_settled() -> None:
    engine = engine_at(NOW_MS)
    repetition = repeat(engine, [fact("s", NOW_MS, 3_000), fact("h", NOW_MS, 2_000)], there=("s",))
    assert (repetition.settled, used(engine)) == (1, 2_000)
    assert repetition.there(NOW_MS) == {key_of("b", TOLD): 5_000}


def test_a_store_that_goes_away_is_told() -> None:
    engine = engine_at(NOW_MS)
    engine.away = True
    with pytest.raises(Unavailable):
        repeat(engine, [fact("h", NOW_MS, 1)])
    engine.away, engine.fails_after = False, 1
    with pytest.raises(Unavailable):
        asyncio.run(settle(engine, [("a", (Amount("b", RPM, 1),)), ("b", (Amount("b", RPM, 1),))]))


def test_batches_are_bounded_and_lose_nothing() -> None:
    def facts() -> Iterator[Fact]:
        yield from (fact(f"h{number}", NOW_MS, 1) for number in range(2 * AT_ONCE + 1))

    found = list(batches(facts()))
    assert [len(some) for some in found] == [AT_ONCE, AT_ONCE, 1]
    assert [one.hold for some in found for one in some] == [f"h{number}" for number in range(2 * AT_ONCE + 1)]


def test_what_the_store_knew_is_there_in_full() -> None:
    engine = engine_at(NOW_MS + 2_000)
    engine.settle("known", (Amount("b", RPM, 7_000),))
    repetition = repeat(engine, [fact("known", NOW_MS, 7_000), fact("not", NOW_MS, 3_000)])
    assert repetition.there(engine.now_ms) == {key_of("b", TOLD): 7_000 + 1_000}  # two seconds' refill of the one


def test_what_a_worker_delivers_meanwhile_is_there_in_full() -> None:
    engine = engine_at(NOW_MS + 10_000)
    facts = [fact("delivered", NOW_MS, 3_000), fact("not", NOW_MS, 4_000)]
    repetition = delivered_between(engine, facts)
    assert (repetition.settled, used(engine)) == (1, 3_000)  # the other has been refilled since
    assert repetition.there(engine.now_ms) == {key_of("b", TOLD): 3_000}


SLOW = rate(MAX_AMOUNT, 1_000, 60_000)  # a thousand in a minute


@pytest.mark.parametrize("spec", [DAY, SLOW], ids=["window", "rate"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_what_a_worker_delivers_meanwhile_is_there_once(spec: Spec, nodes: int) -> None:
    engine = engine_at(NOW_MS + 60_000)
    repetition = delivered_between(engine, [fact("delivered", NOW_MS, 500_000, spec)], nodes)
    assert (repetition.settled, used(engine, spec)) == (0, 500_000)
    assert repetition.there(engine.now_ms) == {key_of("b", spec): 500_000}


@pytest.mark.parametrize(("spec", "left"), [(DAY, 100_000), (SLOW, 99_000)], ids=["window", "rate"])
def test_what_is_settled_beside_it_is_there_as_it_was_charged(spec: Spec, left: int) -> None:
    engine = engine_at(NOW_MS + 60_000)
    facts = [fact("delivered", NOW_MS, 500_000, spec), fact("not", NOW_MS, 100_000, spec)]
    repetition = delivered_between(engine, facts)
    assert (repetition.settled, used(engine, spec)) == (1, 500_000 + left)  # all that both came to, after the refill
    assert repetition.there(engine.now_ms) == {key_of("b", spec): 500_000 + left}


def test_what_is_not_settled_after_all_is_not_there() -> None:
    engine, facts = engine_at(NOW_MS), [fact("h", NOW_MS, 5_000), fact("gone", NOW_MS, 3_000)]
    repetition = Repetition(engine, 1, lambda _fact: False)
    asyncio.run(repetition.see(facts))
    asyncio.run(repetition.settle(facts[:1], NOW_MS))
    assert repetition.there(NOW_MS) == {key_of("b", TOLD): used(engine)} == {key_of("b", TOLD): 5_000}
