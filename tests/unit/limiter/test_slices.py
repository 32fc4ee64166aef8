"""The engine that admits from slices: what goes where, and that it comes to the same."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import pytest

from gateway.limiter.engine import Amount, Engine, Outcome, Reason, Renewal, Reserved, Settled, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.recorded import slice_mark
from gateway.limiter.slicekeeping import EPOCH_TICKS, HEAT_TICKS, HOT
from gateway.limiter.slices import SettledHere, Sliced, SlicedEngine
from gateway.limiter.spec import rate, slots, window
from tests.fakes.sliced import LEASE_MS, OWNER, START_MS, Fleet, settled

TPM = rate(1_000_000, 1, 86_400_000)
USD = window(1_000_000, START_MS - 1, START_MS + 86_400_000)
BOTH = [Amount("tpm", TPM, 100), Amount("usd", USD, 200)]
THIRD = Amount("p1", USD, 50)


def in_loop(test: Callable[["Scene"], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test(Scene()))

    run.__name__ = test.__name__
    return run


class Scene:
    """One node with one worker, both of whose buckets are hot after `warm`."""

    def __init__(self) -> None:
        self.fleet = Fleet(nodes=1, workers=1)
        self.store = self.fleet.store
        self.engine: SlicedEngine = self.fleet.workers[0]
        self.number = 0

    async def warm(self, *more: Amount) -> None:
        """Until both have slices; nothing of it stays used."""
        for _ in range(2 * HEAT_TICKS):
            for _ in range(HOT):
                hold = await self.admit([*BOTH, *more])
                await self.engine.settle(hold, [Amount(take.bucket, take.spec, 0) for take in (*BOTH, *more)])
            await self.fleet.tick()
        self.store.calls.clear()

    async def ask(
        self, hold: str, takes: Sequence[Amount], attempt: int = 0, releases: Sequence[Amount] = ()
    ) -> Reserved:
        return await self.engine.reserve(
            hold, takes, owner=OWNER, lease_ms=LEASE_MS, attempt=attempt, releases=releases
        )

    async def admit(self, takes: Sequence[Amount] = BOTH) -> str:
        self.number += 1
        hold = f"h{self.number:031d}"
        assert (await self.ask(hold, takes)).outcome is Outcome.ADMITTED
        return hold

    async def used(self) -> dict[str, int]:
        """What all buckets come to once everything is given back."""
        self.store.away = False
        await self.engine.keeper.close()
        return {"tpm": self.store.used("tpm", TPM), "usd": self.store.used("usd", USD)}


@in_loop
async def test_a_request_whose_buckets_all_have_room_does_not_ask_the_store(scene: Scene) -> None:
    await scene.warm()
    answer = await scene.ask("h", BOTH)
    assert isinstance(answer, Sliced)
    assert (answer.outcome, answer.binding, answer.wait_ms) == (Outcome.ADMITTED, -1, 0)
    assert answer.levels == (TPM.limit - 100, USD.limit - 200)
    settling = scene.engine.settle("h", [Amount("tpm", TPM, 40), Amount("usd", USD, 900)])
    assert isinstance(settling, SettledHere)
    assert settling.mark == slice_mark("life 0")
    assert await settling == Settled(State.OPEN, (TPM.limit - 40, USD.limit - 900))
    assert scene.store.calls == []
    assert scene.engine.counts.admitted > 1
    assert await scene.used() == {"tpm": 40, "usd": 900}


@pytest.mark.parametrize(
    "takes",
    [
        [*BOTH, Amount("in flight", slots(9), 1)],
        [*BOTH, Amount("cold", TPM, 1)],
        [Amount("tpm", TPM, 90_000), BOTH[1]],
    ],
)
def test_everything_else_goes_to_the_store(takes: list[Amount]) -> None:
    async def whole() -> None:
        scene = Scene()
        await scene.warm()
        left = scene.fleet.nodes[0].left("usd")
        answer = await scene.ask("h", takes)
        assert not isinstance(answer, Sliced)
        assert scene.store.calls[:1] == ["reserve"]
        assert scene.fleet.nodes[0].left("usd") == left
        await scene.engine.settle("h", takes)
        await settled()
        assert "settle" in scene.store.calls

    asyncio.run(whole())


@in_loop
async def test_only_the_store_refuses(scene: Scene) -> None:
    await scene.warm()
    answer = await scene.ask("h", [Amount("tpm", TPM, TPM.limit + 1)])
    assert (answer.outcome, answer.wait_ms) == (Outcome.REFUSED, -1)
    assert scene.engine.counts.dry > 0


@in_loop
async def test_a_repeated_call_takes_nothing_again(scene: Scene) -> None:
    await scene.warm()
    for _ in range(2):
        assert isinstance(await scene.ask("h", BOTH), Sliced)
    for account in scene.engine.keeper.accounts.values():
        account.shut = True
    assert isinstance(await scene.ask("h", BOTH), Sliced)
    await scene.engine.settle("h", BOTH)
    assert await scene.used() == {"tpm": 100, "usd": 200}


@in_loop
async def test_an_attempt_elsewhere_is_taken_from_slices_if_it_can_be(scene: Scene) -> None:
    await scene.warm(THIRD)
    hold = await scene.admit([*BOTH, THIRD])
    answer = await scene.ask(hold, [Amount("p1", USD, 70)], 1, [Amount("p1", USD, 5)])
    assert isinstance(answer, Sliced)
    assert answer.levels == (USD.limit - 75,)
    await scene.engine.settle(hold, [*BOTH, Amount("p1", USD, 20)])
    assert scene.store.calls == []
    assert await scene.used() == {"tpm": 100, "usd": 200}
    assert scene.store.used("p1", USD) == 25


@in_loop
async def test_else_the_store_takes_over_the_whole_hold(scene: Scene) -> None:
    await scene.warm()
    hold = await scene.admit()
    answer = await scene.ask(hold, [THIRD], 1)
    assert answer == Reserved(Outcome.ADMITTED, -1, 0, (USD.limit - 50,))
    assert scene.store.calls == ["reserve"]
    await scene.engine.settle(hold, [Amount("tpm", TPM, 10), Amount("usd", USD, 900), Amount("p1", USD, 60)])
    await settled()
    assert scene.store.calls == ["reserve", "settle"]
    assert await scene.used() == {"tpm": 10, "usd": 900}
    assert scene.store.used("p1", USD) == 60


@in_loop
async def test_it_does_so_however_little_is_left(scene: Scene) -> None:
    """What the hold has is charged already: it moves over without being asked whether it fits."""
    await scene.warm()
    hold = await scene.admit()
    free = TPM.limit - scene.store.used("tpm", TPM)
    await scene.store.settle("others", [Amount("tpm", TPM, free + 5_000)])
    assert (await scene.ask(hold, [THIRD], 1)).outcome is Outcome.ADMITTED
    await scene.engine.settle(hold, [*BOTH, THIRD])
    await settled()
    assert (await scene.used())["usd"] == 200


@in_loop
async def test_an_attempt_that_the_store_refuses_leaves_the_hold_where_it_is(scene: Scene) -> None:
    await scene.warm()
    hold = await scene.admit()
    refused = await scene.ask(hold, [Amount("p1", USD, USD.limit + 1)], 1)
    assert (refused.outcome, refused.binding, refused.wait_ms) == (Outcome.REFUSED, 0, -1)
    assert (await scene.ask(hold, [THIRD], 2)).outcome is Outcome.ADMITTED
    other = await scene.admit()
    await scene.ask(other, [Amount("p1", USD, USD.limit + 1)], 1)
    scene.store.calls.clear()
    told = await scene.engine.settle(other, [*BOTH, Amount("p1", USD, 0)])
    assert told.levels[2] == USD.limit
    assert scene.store.calls == []


@pytest.mark.parametrize("lossy", [False, True])
def test_an_attempt_of_which_nothing_is_known_is_settled_with_the_store(*, lossy: bool) -> None:
    async def whole() -> None:
        scene = Scene()
        await scene.warm()
        hold = await scene.admit()
        scene.store.away, scene.store.lossy = not lossy, lossy
        with pytest.raises(Unavailable) as error:
            await scene.ask(hold, [THIRD], 1)
        assert error.value.reason is (Reason.LATE if lossy else Reason.DOWN)
        scene.store.away = False
        await scene.engine.settle(hold, [*BOTH, Amount("p1", USD, 44)])
        await settled()
        assert scene.store.calls[-1] == "settle"
        assert await scene.used() == {"tpm": 100, "usd": 200}
        assert scene.store.used("p1", USD) == 44

    asyncio.run(whole())


@in_loop
async def test_a_hold_that_is_settled_while_it_moves_is_settled_with_the_store(scene: Scene) -> None:
    await scene.warm()
    hold = await scene.admit()
    moving = asyncio.ensure_future(scene.engine.reserve(hold, [THIRD], owner=OWNER, lease_ms=LEASE_MS, attempt=1))
    await scene.engine.settle(hold, [*BOTH, THIRD])
    assert (await moving).outcome is Outcome.ADMITTED
    assert await scene.used() == {"tpm": 100, "usd": 200}


@in_loop
async def test_leases_are_renewed_where_the_hold_is(scene: Scene) -> None:
    await scene.warm()
    here = await scene.admit()
    there = await scene.admit([*BOTH, Amount("in flight", slots(9), 1)])
    scene.fleet.moment.now_ms += LEASE_MS
    renewals = [Renewal(there, ("in flight",)), Renewal(here), Renewal("unknown")]
    assert await scene.engine.renew(renewals, lease_ms=LEASE_MS) == (State.OPEN, State.OPEN, State.UNKNOWN)
    assert await scene.engine.renew(renewals[1:2], lease_ms=LEASE_MS) == (State.OPEN,)
    assert await scene.engine.renew(renewals[2:], lease_ms=LEASE_MS) == (State.UNKNOWN,)


@in_loop
async def test_a_further_attempt_of_a_lapsed_hold_is_the_stores(scene: Scene) -> None:
    await scene.warm(THIRD)
    hold = await scene.admit([*BOTH, THIRD])
    scene.fleet.moment.now_ms += LEASE_MS
    answer = await scene.ask(hold, [THIRD], 1, [Amount("p1", USD, 0)])
    assert (answer.outcome, isinstance(answer, Sliced)) == (Outcome.ADMITTED, False)
    await scene.engine.settle(hold, [*BOTH, THIRD])
    assert await scene.used() == {"tpm": 100, "usd": 200}
    assert scene.store.used("p1", USD) == 50


@in_loop
async def test_a_lapsed_hold_stays_charged_until_it_is_settled(scene: Scene) -> None:
    await scene.warm()
    hold = await scene.admit()
    scene.fleet.moment.now_ms += LEASE_MS
    await scene.fleet.tick()
    await scene.engine.settle(hold, [Amount("tpm", TPM, 1), Amount("usd", USD, 2)])
    assert await scene.used() == {"tpm": 1, "usd": 2}


@in_loop
async def test_while_the_store_is_away_a_slice_is_used_up_and_settled(scene: Scene) -> None:
    await scene.warm()
    scene.store.away = True
    hold = await scene.admit()
    await scene.engine.settle(hold, [Amount("tpm", TPM, 7), Amount("usd", USD, 8)])
    admitted = 0
    with suppress(Unavailable):
        while await scene.admit():
            admitted += 1
    assert admitted > 10
    assert scene.fleet.nodes[0].left("tpm") < 100 or scene.fleet.nodes[0].left("usd") < 200


@in_loop
async def test_after_a_loss_a_hold_is_settled_in_full_with_the_store(scene: Scene) -> None:
    await scene.warm()
    hold, moved = await scene.admit(), await scene.admit()
    scene.store.forget()
    for _ in range(EPOCH_TICKS + 1):
        await scene.fleet.tick()
    assert (await scene.ask(moved, [THIRD], 1)).outcome is Outcome.ADMITTED
    scene.store.calls.clear()
    await scene.engine.settle(hold, BOTH)
    await scene.engine.settle(moved, [*BOTH, THIRD])
    await scene.store.settle(hold, BOTH)  # as the journal's replay may do
    await settled()
    assert scene.store.calls == ["settle"] * 3
    assert await scene.used() == {"tpm": 200, "usd": 400}


@in_loop
async def test_what_is_settled_in_an_old_slice_is_recorded_so(scene: Scene) -> None:
    """The worker knows of the loss, and its slices have not begun anew yet."""
    await scene.warm(THIRD)
    hold, other = await scene.admit([*BOTH, THIRD]), await scene.admit([*BOTH, THIRD])
    keeper = scene.engine.keeper
    keeper.mark = slice_mark("life 1")
    settling = scene.engine.settle(hold, [*BOTH, THIRD])
    assert isinstance(settling, SettledHere)
    assert settling.mark == slice_mark("life 0")
    assert not isinstance(await scene.ask(other, [THIRD], 1, [THIRD]), Sliced)
    assert not isinstance(scene.engine.settle(other, [*BOTH, THIRD]), SettledHere)


@in_loop
async def test_a_table_that_is_busy_sends_requests_to_the_store_and_keeps_settlements(scene: Scene) -> None:
    await scene.warm()
    hold = await scene.admit()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("reserve", "settle"):
            patch.setattr(scene.engine.keeper.rows.table, name, busy)
        assert not isinstance(await scene.ask("new", BOTH), Sliced)
        with pytest.raises(MutexBusy):
            scene.engine.settle(hold, BOTH)
    await scene.engine.settle(hold, BOTH)
    await scene.engine.settle("new", BOTH)
    await settled()
    assert await scene.used() == {"tpm": 200, "usd": 400}


@in_loop
async def test_where_the_table_is_lost_a_hold_is_settled_with_the_store(scene: Scene) -> None:
    await scene.warm()
    hold = await scene.admit()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("reserve", "settle", "renew"):
            patch.setattr(scene.engine.keeper.rows.table, name, lost)
        assert (await scene.engine.renew([Renewal(hold)], lease_ms=LEASE_MS)) == (State.OPEN,)
        await scene.engine.settle(hold, BOTH)
        await settled()
    assert scene.store.calls == ["settle"]


def busy(*_: object, **__: object) -> None:
    raise MutexBusy


def lost(*_: object, **__: object) -> None:
    raise MutexLost


@in_loop
async def test_the_rest_of_the_contract_is_the_stores(scene: Scene) -> None:
    engine: Engine = scene.engine
    (standing,) = await engine.peek([Amount("tpm", TPM, 1)])
    assert standing.level == TPM.limit
    granted = await engine.lease("n", 1, "tpm", TPM, want=10, least=0, unused=0, lease_ms=1_000)
    assert granted.granted == 10
    assert scene.store.calls == ["peek", "lease"]


@in_loop
async def test_it_looks_after_its_slices_by_itself_until_it_is_closed(scene: Scene) -> None:
    await scene.warm()
    assert scene.store.used("tpm", TPM) > 0
    scene.engine.start()
    async with asyncio.timeout(10):
        while scene.store.used("tpm", TPM):
            scene.fleet.moment.now_ms += 500
            await asyncio.sleep(0.01)
    await scene.engine.close()
    assert scene.store.closed == 1
