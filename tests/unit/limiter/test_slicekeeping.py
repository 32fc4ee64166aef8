"""One worker's part in keeping slices: which buckets get one, what it asks the store, and what it leaves alone."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from gateway.limiter.engine import Amount
from gateway.limiter.recorded import slice_mark
from gateway.limiter.slicekeeping import END_MS, EPOCH_TICKS, HEAT_TICKS, HOT, MAX_COUNTED, QUIET_TICKS, Account, Keeper
from gateway.limiter.slicing import IDLE_MS
from gateway.limiter.spec import Spec, rate, slots, window
from tests.fakes.sliced import OWNER, START_MS, Fleet, settled

TPM = rate(1_000_000, 1, 86_400_000)
USD = window(1_000_000, START_MS - 1, START_MS + 3_600_000)
COST = 100


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


class Scene:
    """One node's first worker, and what requests do to it."""

    def __init__(self, *, workers: int = 1, nodes: int = 1) -> None:
        self.fleet = Fleet(nodes=nodes, workers=workers)
        self.keeper = self.fleet.nodes[0].workers[0].keeper
        self.store = self.fleet.store

    async def heat(self, *specs: tuple[str, Spec], times: int = HOT, keeper: Keeper | None = None) -> None:
        """So many requests in as long as it takes to notice, and the exchanges that follow."""
        keeper = keeper or self.keeper
        for tick in range(HEAT_TICKS):
            for _ in range(times if not tick else 0):
                keeper.sliced([Amount(bucket, spec, COST) for bucket, spec in specs or (("b", TPM),)])
            self.fleet.moment.now_ms += 100
            await keeper.tick()
            await settled()

    async def sliced(self, spec: Spec = TPM) -> Account:
        """A bucket with a slice of which something is left."""
        await self.heat(("b", spec))
        await self.heat(("b", spec))
        account = self.keeper.accounts["b"]
        assert not account.shut
        return account

    def left(self) -> int:
        return self.fleet.nodes[0].left("b")

    def used(self, spec: Spec = TPM) -> int:
        return self.store.used("b", spec)

    def spend(self, account: Account, hold: str, reserved: int, used: int) -> None:
        table, own = self.fleet.nodes[0].table, account.place.spec
        assert table.reserve(hold, [Amount(account.name, own, reserved)], owner=OWNER, lease_ms=9_000).binding == -1
        table.settle(hold, [Amount(account.name, own, used)])


@in_loop
async def test_a_hot_bucket_gets_a_slice_which_the_store_has_charged() -> None:
    scene = Scene()
    account = await scene.sliced()
    assert scene.left() == scene.used() > 4 * COST
    assert scene.keeper.level(account) == TPM.limit
    assert scene.keeper.sliced([Amount("b", TPM, 1)]) == {"b": account}
    assert set(scene.store.calls) == {"lease"}


@in_loop
async def test_a_bucket_that_is_not_hot_gets_none() -> None:
    scene = Scene()
    await scene.heat(times=HOT - 1)
    assert (scene.keeper.accounts, scene.store.calls) == ({}, [])


@pytest.mark.parametrize(
    "specs",
    [
        [("b", TPM), ("in flight", slots(9))],
        [("b", TPM), ("users|key=k|end_user=ab", TPM)],
    ],
)
def test_no_slice_would_help_a_request_that_goes_to_the_store_anyway(specs: Sequence[tuple[str, Spec]]) -> None:
    async def whole() -> None:
        scene = Scene()
        await scene.heat(*specs)
        assert scene.keeper.accounts == {}

    asyncio.run(whole())


@in_loop
async def test_a_request_needs_a_slice_of_every_bucket() -> None:
    scene = Scene()
    await scene.sliced()
    assert scene.keeper.sliced([Amount("b", TPM, 1), Amount("c", TPM, 1)]) is None
    assert scene.keeper.sliced([]) is None


@in_loop
async def test_workers_share_a_slice_and_its_exchanges() -> None:
    scene = Scene(workers=2)
    await scene.sliced()
    other = scene.fleet.nodes[0].workers[1].keeper
    calls = len(scene.store.calls)
    await scene.heat(keeper=other)
    assert other.accounts["b"].place == scene.keeper.accounts["b"].place
    assert len(scene.store.calls) - calls <= 2


@in_loop
async def test_after_a_second_without_requests_all_is_given_back_and_then_forgotten() -> None:
    scene = Scene()
    account = await scene.sliced()
    scene.spend(account, "h", 300, 250)
    for _ in range(2 + IDLE_MS // 100 * 2):
        await scene.fleet.tick()
    assert (scene.left(), scene.used()) == (0, 250)
    for _ in range(QUIET_TICKS):
        await scene.fleet.tick()
    assert scene.keeper.accounts == {}


@in_loop
async def test_a_slice_with_open_requests_is_kept_in_sight() -> None:
    scene = Scene()
    account = await scene.sliced()
    account.open += 1
    for _ in range(3 * QUIET_TICKS):
        await scene.fleet.tick()
    assert scene.keeper.accounts == {"b": account}
    account.open -= 1
    await scene.fleet.tick()
    assert scene.keeper.accounts == {}


@in_loop
async def test_what_was_used_beyond_a_slice_is_charged_at_once() -> None:
    scene = Scene()
    account = await scene.sliced()
    over = scene.left() + 5_000
    scene.spend(account, "h", 10, over)
    scene.keeper.hurry((account,))
    await settled()
    assert (scene.left(), scene.used()) == (0, over)


@in_loop
async def test_where_the_bucket_has_nothing_left_the_debt_is_charged_under_an_id_of_its_own() -> None:
    scene = Scene()
    account = await scene.sliced()
    scene.spend(account, "h", 10, TPM.limit + 77)
    scene.keeper.hurry((account,))
    await settled()
    assert (scene.left(), scene.used()) == (0, TPM.limit + 77)
    assert scene.store.calls[-1] == "settle"


@in_loop
async def test_an_exchange_that_was_not_answered_is_asked_again() -> None:
    scene = Scene()
    await scene.heat()
    scene.store.lossy = True
    await scene.heat()
    assert scene.store.calls.count("lease") >= 2
    assert scene.left() == scene.used() > 0


@in_loop
async def test_while_the_store_is_away_slices_stay_as_they_are() -> None:
    scene = Scene()
    account = await scene.sliced()
    left, scene.store.away = scene.left(), True
    for _ in range(5):
        await scene.fleet.tick()
    assert scene.keeper.sliced([Amount("b", TPM, 1)]) == {"b": account}
    assert scene.left() == left


@in_loop
async def test_a_limit_that_changes_keeps_its_slice_and_a_rate_that_does_not_gets_another() -> None:
    scene = Scene()
    account = await scene.sliced()
    higher = rate(TPM.limit * 2, TPM.amount, TPM.period_ms)
    assert scene.keeper.sliced([Amount("b", higher, 1)]) == {"b": account}
    assert account.spec is higher
    faster = rate(TPM.limit, 2, TPM.period_ms)
    await scene.heat(("b", faster))
    after = scene.keeper.accounts["b"]
    assert after.place.slice != account.place.slice
    for _ in range(3 * IDLE_MS // 100):
        await scene.fleet.tick()
    assert scene.used(faster) == 0  # the first was given back, too


@in_loop
async def test_a_window_has_its_own_slice_and_is_left_alone_at_its_end() -> None:
    scene = Scene()
    account = await scene.sliced(USD)
    scene.fleet.moment.now_ms = USD.end_ms - END_MS
    calls = len(scene.store.calls)
    account.taken, account.takes = 50_000, 10
    await scene.fleet.tick(after_ms=0)
    assert len(scene.store.calls) == calls
    assert scene.keeper.sliced([Amount("b", USD, 1)]) == {"b": account}
    scene.fleet.moment.now_ms = USD.end_ms
    await scene.fleet.tick(after_ms=0)
    assert scene.keeper.accounts == {}
    following = window(USD.limit, USD.end_ms, USD.end_ms + 3_600_000)
    again = await scene.sliced(following)
    assert again.place.slice != account.place.slice
    assert scene.used(following) == scene.left()


@in_loop
async def test_a_new_worker_gives_back_what_those_before_it_have_left() -> None:
    scene = Scene()
    await scene.sliced()
    assert scene.used() > 0
    scene.fleet.nodes[0].workers[:] = [scene.fleet.nodes[0].worker()]
    for _ in range(3 * IDLE_MS // 100):
        await scene.fleet.tick()
    assert scene.used() == 0


@in_loop
async def test_nothing_is_sliced_before_the_stores_memory_has_a_name() -> None:
    scene = Scene()
    scene.store.away = True
    await scene.heat()
    assert scene.keeper.accounts == {}
    scene.store.away = False
    await scene.heat()
    assert scene.keeper.accounts.keys() == {"b"}
    assert scene.keeper.mark == slice_mark("life 0")


@in_loop
async def test_a_store_that_lost_its_data_makes_slices_begin_anew() -> None:
    scene = Scene()
    account = await scene.sliced()
    scene.store.forget()
    for _ in range(EPOCH_TICKS + 2):
        await scene.fleet.tick()
    assert scene.keeper.is_void(account)
    after = scene.keeper.accounts["b"]
    assert not scene.keeper.is_void(after)
    assert scene.keeper.mark == slice_mark("life 1")
    for _ in range(3 * IDLE_MS // 100):
        await scene.fleet.tick()
    assert (scene.left(), scene.used()) == (0, 0)


@in_loop
async def test_a_slice_of_a_memory_that_nobody_here_has_known_begins_anew_as_well() -> None:
    scene = Scene()
    before = await scene.sliced()
    scene.store.forget()
    scene.fleet.nodes[0].workers[:] = [scene.fleet.nodes[0].worker()]
    for _ in range(2 * EPOCH_TICKS + 2):
        await scene.fleet.tick()
    assert scene.keeper.is_void(before)


@in_loop
async def test_counts_are_bounded() -> None:
    scene = Scene()
    for number in range(MAX_COUNTED + 9):
        scene.keeper.sliced([Amount(f"b{number}", TPM, 1)])
    await scene.heat(("late", TPM), times=2 * HOT)
    assert scene.keeper.accounts == {}
    await scene.heat(("late", TPM))
    assert scene.keeper.accounts.keys() == {"late"}


@in_loop
async def test_without_a_name_for_its_memory_a_store_is_one() -> None:
    scene = Scene()
    keeper = Keeper(scene.store, scene.fleet.nodes[0].table, "n9", 1, None)
    await scene.heat(keeper=keeper)
    await scene.heat(keeper=keeper)
    assert keeper.sliced([Amount("b", TPM, 1)]) is not None
    assert keeper.mark == slice_mark("")


@in_loop
async def test_closing_gives_back_what_is_left_and_charges_what_is_owed() -> None:
    scene = Scene()
    account = await scene.sliced()
    scene.spend(account, "h", 50, 40)
    await scene.keeper.close()
    assert (scene.left(), scene.used()) == (0, 40)
    again = await scene.sliced()
    scene.spend(again, "g", 50, 100_000)
    await scene.keeper.close()
    assert (scene.left(), scene.used()) == (0, 100_040)


@in_loop
async def test_closing_does_not_wait_for_a_store_that_is_away() -> None:
    scene = Scene()
    await scene.sliced()
    left, scene.store.away = scene.left(), True
    await asyncio.wait_for(scene.keeper.close(), 5)
    assert scene.used() == left
