"""The store as an engine: how it comes back, what it does with each kind of trouble, and that nobody waits for ever.

The store here is one of this process (`shim_store.py`); tests/integration/test_limit_store.py has real ones.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from gateway.limiter import store as module
from gateway.limiter import wire
from gateway.limiter.address import parse
from gateway.limiter.breaker import Breaker, BreakerEvent, BreakerState
from gateway.limiter.engine import Amount, Engine, Epoch, Outcome, Reason, Renewal, Reserved, Settled, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.spec import Kind, rate, slots
from gateway.limiter.store import Store
from tests.fakes.shim_store import ShimStore

WITHIN_S = 20.0
PATIENT_S = 10.0  # a deadline that no test meets
HASTY_S = 0.005

TPM = rate(5_000, 1, 86_400_000)
TAKES = (Amount("tpm", TPM, 1_000), Amount("in flight", slots(2), 1))


class Scene:
    """A store, the engine on it, and what was heard of changes."""

    def __init__(self) -> None:
        self.server = ShimStore()
        self.heard: list[tuple[bool, str]] = []

    def make(self, url: str = "redis://store", *, deadline_s: float = PATIENT_S) -> Store:
        def heard(there: bool, why: str) -> None:
            self.heard.append((there, why))

        return Store(parse(url), domain="test", node="n1", deadline_s=deadline_s, on_change=heard)

    async def up(self, url: str = "redis://store", *, deadline_s: float = PATIENT_S) -> Store:
        store = self.make(url, deadline_s=deadline_s)
        store.start()
        await until(lambda: store.there)
        self.server.writes.clear()
        self.server.commands.clear()
        return store


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # there is no event for most of what tests look at
        await asyncio.sleep(0.001)


def in_loop(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test within a loop, with a store to dial, bounded in time."""

    async def whole() -> None:
        scene = Scene()
        with scene.server.serving():
            await asyncio.wait_for(test(scene), WITHIN_S)

    def run() -> None:
        asyncio.run(whole())

    run.__name__ = test.__name__
    return run


def reserve(store: Store, hold: str = "h") -> asyncio.Future[Reserved]:
    return store.reserve(hold, TAKES, owner=0, lease_ms=30_000)


async def reason_of(waiter: Awaitable[Any]) -> Reason:
    with pytest.raises(Unavailable) as failed:
        await waiter
    return failed.value.reason


# --- operations -----------------------------------------------------------------------------------------------------


@in_loop
async def test_all_operations_reach_the_store(scene: Scene) -> None:
    made = await scene.up()
    store: Engine = made  # by its type: nothing here is the store's own
    assert await reserve(made) == Reserved(Outcome.ADMITTED, levels=(4_000, 1))
    assert await store.renew([Renewal("h", ("in flight",))], lease_ms=1_000) == (State.OPEN,)
    assert (await store.lease("n1", 1, "tpm", TPM, want=500, least=1, unused=0, lease_ms=1_000)).granted == 500
    assert [standing.level for standing in await store.peek(TAKES)] == [3_500, 1]
    assert await store.settle("h", (Amount("tpm", TPM, 200), TAKES[1])) == Settled(State.OPEN, (4_300, 2))
    assert made.counts.answered >= 5
    await store.close()


@in_loop
async def test_calls_of_one_turn_are_one_write(scene: Scene) -> None:
    store = await scene.up()
    waiters = [reserve(store, f"h{number}") for number in range(3)]
    outcomes = [answer.outcome for answer in await asyncio.gather(*waiters)]
    assert outcomes == [Outcome.ADMITTED, Outcome.ADMITTED, Outcome.REFUSED]
    assert len(scene.server.writes) == 1
    await store.close()


@in_loop
async def test_a_settlement_needs_nobody_to_wait_for_it(scene: Scene) -> None:
    store = await scene.up()
    await reserve(store)
    store.settle("h", (Amount("tpm", TPM, 0), TAKES[1]))
    assert [standing.level for standing in await store.peek(TAKES)] == [5_000, 2]
    await store.close()


@in_loop
async def test_what_is_out_of_bounds_is_not_sent(scene: Scene) -> None:
    store = await scene.up()
    with pytest.raises(ValueError, match="amount is"):
        store.settle("h", [Amount("tpm", TPM, -1)])
    assert scene.server.writes == []
    await store.close()


# --- greeting -------------------------------------------------------------------------------------------------------


@in_loop
async def test_the_greeting_logs_in_chooses_a_database_and_loads_the_scripts(scene: Scene) -> None:
    scene.server.password = b"secret"
    store = scene.make("redis://gw:secret@store:7000/3")
    store.start()
    await until(lambda: store.there)
    said = [words[:2] for words in scene.server.commands]
    assert said[:2] == [[b"AUTH", b"gw"], [b"SELECT", b"3"]]
    assert said[2:7] == [[b"SCRIPT", b"LOAD"]] * 5
    assert said[7][0] == b"EVALSHA"  # the probe
    assert scene.server.dialled == [("store", 7000)]
    assert scene.heard == [(True, "")]
    await store.close()


@in_loop
async def test_a_wrong_password_is_told_and_tried_again(scene: Scene) -> None:
    scene.server.password = b"right"
    store = scene.make("redis://gw:wrong@store")
    store.start()
    await until(lambda: "WRONGPASS" in store.trouble)
    assert store.trouble.startswith("redis://gw@store:6379/0: refused: WRONGPASS")
    assert not store.there
    assert await reason_of(reserve(store)) is Reason.DOWN
    scene.server.password = b"wrong"
    await until(lambda: store.there)
    assert store.trouble == ""
    await store.close()


@in_loop
async def test_a_store_that_cannot_be_dialled_is_dialled_again(scene: Scene) -> None:
    scene.server.refuses = ConnectionRefusedError(111, "Connection refused")
    store = scene.make()
    store.start()
    await until(lambda: store.counts.dials >= 2)
    assert "Connection refused" in store.trouble
    assert scene.heard == []
    scene.server.refuses = None
    await until(lambda: store.there)
    assert (await reserve(store)).outcome is Outcome.ADMITTED
    await store.close()


@in_loop
async def test_a_store_that_never_answers_the_greeting_is_left(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CONNECT_S", 0.02)
        scene.server.silent = True
        store = scene.make()
        store.start()
        await until(lambda: store.counts.dials >= 2)
        assert store.trouble
        await until(lambda: len(scene.server.connections) <= 1)  # what was dialled in vain is closed
        await store.close()


@in_loop
async def test_before_it_is_there_calls_fail_at_once(scene: Scene) -> None:
    store = scene.make()
    assert await reason_of(reserve(store)) is Reason.DOWN
    assert await reason_of(store.settle("h", TAKES)) is Reason.DOWN
    assert store.counts.unasked == 2
    assert scene.server.commands == []
    await store.close()


# --- scripts --------------------------------------------------------------------------------------------------------


@in_loop
async def test_flushed_scripts_are_loaded_once_and_the_calls_sent_again_in_order(scene: Scene) -> None:
    store = await scene.up()
    scene.server.flush_scripts()
    waiters: list[Awaitable[Any]] = [
        reserve(store), store.settle("h", (Amount("tpm", TPM, 500), TAKES[1])), reserve(store, "h2")
    ]  # fmt: skip
    first, settled, second = await asyncio.gather(*waiters)
    assert first == Reserved(Outcome.ADMITTED, levels=(4_000, 1))
    assert settled == Settled(State.OPEN, (4_500, 2))
    assert second == Reserved(Outcome.ADMITTED, levels=(3_500, 1))
    assert store.counts.reloads == 2  # reserve and settle, once each
    assert [words[0] for words in scene.server.commands] == [b"EVALSHA"] * 3 + [
        b"SCRIPT", b"EVALSHA", b"SCRIPT", b"EVALSHA", b"EVALSHA"
    ]  # fmt: skip
    await store.close()


@in_loop
async def test_scripts_that_do_not_stay_are_not_loaded_for_ever(scene: Scene) -> None:
    store = await scene.up()
    scene.server.error = b"NOSCRIPT No matching script."
    with pytest.raises(Unavailable, match="refused: NOSCRIPT"):
        await reserve(store)
    assert len(scene.server.commands) == 3
    await store.close()


# --- the store's memory ---------------------------------------------------------------------------------------------


@in_loop
async def test_buckets_are_forgotten_by_their_names(scene: Scene) -> None:
    store = await scene.up()
    kept, gone = Amount("kept", rate(100, 1, 1_000), 7), Amount("gone", rate(100, 1, 1_000), 7)
    await store.settle("h", [kept, gone])
    assert await store.forget([(Kind.RATE, "gone"), (Kind.RATE, "never there"), (Kind.WINDOW, "gone")]) == 1
    assert [standing.level for standing in await store.peek([kept, gone])] == [93, 100]
    await store.close()


@in_loop
async def test_a_memory_is_named_once_and_a_new_one_anew(scene: Scene) -> None:
    store, other = await scene.up(), await scene.up()
    first = await store.epoch()
    assert first.fresh
    assert scene.server.plain == {b"{gw:test}:1:epoch": first.id.encode()}
    assert await store.epoch() == first
    assert await other.epoch() == Epoch(first.id)
    scene.server.plain.clear()
    second = await other.epoch()
    assert second.fresh
    assert second.id != first.id
    assert await store.epoch() == Epoch(second.id)
    scene.server.plain.clear()
    again = await store.epoch()
    assert again.fresh
    assert again.id not in {first.id, second.id}
    await store.close()
    await other.close()


@in_loop
async def test_the_name_of_a_memory_is_asked_for_in_one_write(scene: Scene) -> None:
    store = await scene.up()
    await store.epoch()
    assert [words[0] for words in scene.server.commands] == [b"SET", b"MGET"]
    assert len(scene.server.writes) == 1
    await store.close()


@in_loop
async def test_a_name_whose_answer_was_lost_is_known_as_ours(scene: Scene) -> None:
    store = await scene.up()
    scene.server.silent = True
    waiter = asyncio.ensure_future(store.epoch())
    await asyncio.sleep(0.005)
    scene.server.silent = False
    scene.server.break_all()
    assert await reason_of(waiter) is Reason.LOST
    assert await reason_of(store.epoch()) is Reason.DOWN
    await until(lambda: store.there)
    assert scene.server.plain[b"{gw:test}:1:epoch"]
    assert (await store.epoch()).fresh
    await store.close()


@in_loop
async def test_a_store_that_takes_no_name_says_why(scene: Scene) -> None:
    store = await scene.up()
    scene.server.full = True
    with pytest.raises(Unavailable, match="refused: OOM"):
        await store.epoch()
    scene.server.plain[b"{gw:test}:1:epoch"] = b"theirs"
    assert await store.epoch() == Epoch("theirs")
    await store.close()


@in_loop
async def test_a_memory_that_is_lost_while_it_is_named_is_asked_again_by_the_caller(scene: Scene) -> None:
    store = await scene.up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.server, "_set", lambda *_: b"+OK\r\n")
        with pytest.raises(Unavailable, match="lost its data"):
            await store.epoch()
    assert (await store.epoch()).fresh
    await store.close()


@in_loop
async def test_a_memory_that_went_back_in_time_is_behind_until_its_caller_knows_more(scene: Scene) -> None:
    store = await scene.up()
    key = b"{gw:test}:1:known:n1"
    name = (await store.epoch("another", 4)).id
    assert key not in scene.server.plain
    await store.epoch(name, 5)
    assert scene.server.plain[key] == b"5"
    assert await store.epoch(name, 9) == Epoch(name, fresh=True, known_us=5)
    before = dict(scene.server.plain)
    assert await store.epoch(name, 12) == Epoch(name, fresh=True, known_us=9)
    scene.server.plain = before
    assert await store.epoch(name, 15) == Epoch(name, fresh=True, known_us=9, behind=True)
    assert scene.server.plain == before
    assert (await store.epoch(name, 20)).behind is False
    assert scene.server.plain[key] == b"20"
    for damaged in (b"not a number", b"9" * 5000):
        scene.server.plain[key] = damaged
        assert await store.epoch(name, 25) == Epoch(name, fresh=True, behind=True)
    await store.close()


@in_loop
async def test_a_node_without_a_name_leaves_nothing(scene: Scene) -> None:
    store = Store(parse("redis://store"), domain="test", deadline_s=PATIENT_S)
    store.start()
    await until(lambda: store.there)
    name = (await store.epoch()).id
    assert [await store.epoch(name, known_us) for known_us in (5, 9)] == [Epoch(name, fresh=True)] * 2
    assert list(scene.server.plain) == [b"{gw:test}:1:epoch"]
    await store.close()


@pytest.mark.parametrize(("url", "longest_s"), [("redis://a", 5.0), ("redis://a,b", 1.0), ("sentinel://a/main", 1.0)])
def test_where_there_are_several_places_to_look_rests_are_short(url: str, longest_s: float) -> None:
    async def rested(scene: Scene) -> None:
        store = scene.make(url)
        for _ in range(10):
            store.breaker.on(BreakerEvent.RESTED)
            store.breaker.on(BreakerEvent.FAILED)
        assert store.breaker.rest_s(1.0) == longest_s
        await store.close()

    in_loop(rested)()


@in_loop
async def test_a_store_that_is_replaced_while_it_lives_is_left(scene: Scene) -> None:
    primary = b"one"

    def said(words: list[bytes]) -> bytes:
        if words[1] == b"GET-MASTER-ADDR-BY-NAME":
            return b"*2\r\n$3\r\n%b\r\n$4\r\n7000\r\n" % primary
        return b"*2\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SILENCE_S", 0.02)
        scene.server.sentinels = {1: said, 2: said}
        store = await scene.up("sentinel://s:1,s:2/main")
        await until(lambda: scene.server.dialled.count(("s", 1)) >= 3)  # asked, and nothing has changed
        assert store.counts.dials == 1
        primary = b"two"
        await until(lambda: ("two", 7000) in scene.server.dialled and store.there)
        assert (False, "connection lost: the sentinels name another primary") in scene.heard
        await store.close()


# --- trouble --------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_lost_connection_ends_the_calls_and_is_dialled_anew(scene: Scene) -> None:
    store = await scene.up()
    scene.server.silent = True
    waiters: list[Awaitable[Any]] = [reserve(store), store.settle("x", TAKES)]
    await asyncio.sleep(0)
    scene.server.silent = False
    scene.server.break_all()
    assert [await reason_of(waiter) for waiter in waiters] == [Reason.LOST] * 2
    assert await reason_of(reserve(store)) is Reason.DOWN
    await until(lambda: store.there)
    assert [there for there, _ in scene.heard] == [True, False, True]
    assert scene.heard[1][1] == "connection lost: closed by the store"
    assert (store.counts.dials, store.counts.lost, store.breaker.trips) == (2, 1, 1)
    # Both had been done: repeated, the reserve is admitted again, and what it charged is as it was.
    assert await reserve(store) == Reserved(Outcome.ADMITTED, levels=(3_000, 1))
    await store.close()


@in_loop
async def test_a_slow_store_is_rested_and_comes_back_on_the_same_connection(scene: Scene) -> None:
    store = await scene.up(deadline_s=HASTY_S)
    scene.server.silent = True
    reasons = []
    while store.there:
        reasons.append(await reason_of(reserve(store)))
    assert reasons.count(Reason.LATE) >= 3
    assert store.counts.late >= 3
    assert "no answer within 5 ms" in scene.heard[-1][1]
    assert await reason_of(reserve(store)) is Reason.DOWN
    scene.server.speak()
    await until(lambda: store.there)
    assert store.counts.dials == 1
    await store.close()


@in_loop
async def test_one_hiccup_is_one_strike_however_many_turns_it_holds_up(scene: Scene) -> None:
    store = await scene.up(deadline_s=0.05)
    scene.server.silent = True
    waiters = []
    for number in range(20):
        waiters.append(reserve(store, f"h{number}"))
        await asyncio.sleep(0)
    assert [await reason_of(waiter) for waiter in waiters] == [Reason.LATE] * 20
    assert store.there
    scene.server.speak()
    assert await store.settle("h0", TAKES) == Settled(State.OPEN, (3_000, 1))
    await store.close()


@in_loop
async def test_errors_in_a_row_rest_the_store_too(scene: Scene) -> None:
    store = await scene.up(deadline_s=HASTY_S)
    scene.server.error = b"OOM command not allowed when used memory > 'maxmemory'."
    while store.there:
        with pytest.raises(Unavailable) as failed:
            await reserve(store)
        assert failed.value.reason in {Reason.REFUSED, Reason.DOWN}
    assert scene.heard[-1] == (False, "OOM command not allowed when used memory > 'maxmemory'.")
    assert store.counts.refused >= 3
    scene.server.error = b""
    await until(lambda: store.there)
    await store.close()


@in_loop
async def test_a_node_whose_clock_is_wrong_does_not_rest_the_store(scene: Scene) -> None:
    store = await scene.up(deadline_s=HASTY_S)
    scene.server.error = b"ERR window_ahead: the window begins after the store's time"
    for _ in range(10):
        with pytest.raises(Unavailable, match="window_ahead"):
            await reserve(store)
        await asyncio.sleep(HASTY_S)
    assert store.there
    await store.close()


@pytest.mark.parametrize("error", [b"READONLY You can't write against a read only replica.", b"LOADING it is loading"])
def test_a_store_that_is_the_wrong_one_is_dialled_anew(error: bytes) -> None:
    async def scene_of(scene: Scene) -> None:
        store = await scene.up()
        scene.server.error = error
        assert await reason_of(reserve(store)) is Reason.REFUSED
        await until(lambda: not store.there)
        scene.server.error = b""
        await until(lambda: store.there)
        assert scene.server.dialled == [("store", 6379)] * store.counts.dials
        assert store.counts.dials >= 2
        await store.close()

    in_loop(scene_of)()


@in_loop
async def test_a_cluster_is_followed_to_the_node_it_names_and_left_when_that_is_gone(scene: Scene) -> None:
    store = await scene.up("redis://seed:7000")
    scene.server.error_at[7000] = b"MOVED 3999 10.0.0.2:7001"
    assert await reason_of(reserve(store)) is Reason.REFUSED
    await until(lambda: not store.there)
    await until(lambda: store.there)
    assert scene.server.dialled == [("seed", 7000), ("10.0.0.2", 7001)]
    scene.server.refuses = ConnectionRefusedError(111, "Connection refused")
    scene.server.break_all()
    await until(lambda: len(scene.server.dialled) == 4)
    assert scene.server.dialled[2:] == [("10.0.0.2", 7001), ("seed", 7000)]
    await store.close()


@in_loop
async def test_of_several_nodes_one_that_lives_will_do(scene: Scene) -> None:
    scene.server.refuses_at = {7000}
    scene.server.error_at[7001] = b"CLUSTERDOWN The cluster is down"
    store = await scene.up("redis://gone:7000,down:7001,here:7002")
    assert scene.server.dialled == [("gone", 7000), ("down", 7001), ("here", 7002)]
    await store.close()


@in_loop
async def test_a_failover_of_sentinels_is_followed(scene: Scene) -> None:
    primary = b"one"

    def said(words: list[bytes]) -> bytes:
        if words[1] == b"GET-MASTER-ADDR-BY-NAME":
            return b"*2\r\n$3\r\n%b\r\n$4\r\n7000\r\n" % primary
        return b"*2\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n"

    scene.server.sentinels = {1: said}
    store = await scene.up("sentinel://s:1/main/2")
    assert scene.server.dialled == [("s", 1), ("one", 7000)]
    primary = b"two"
    scene.server.error = b"NOREPLICAS Not enough good replicas to write."
    assert await reason_of(reserve(store)) is Reason.REFUSED
    await until(lambda: not store.there)
    scene.server.error = b""
    await until(lambda: store.there)
    assert scene.server.dialled[-2:] == [("s", 1), ("two", 7000)]
    scene.server.sentinels = {}
    scene.server.refuses_at = {1}
    scene.server.break_all()
    await until(lambda: "no sentinel says where main is" in store.trouble)
    assert store.trouble.startswith("sentinel://s:1/main/2: ")
    await store.close()


@in_loop
async def test_a_cluster_may_send_elsewhere_at_the_first_probe_which_is_followed_without_a_rest(scene: Scene) -> None:
    scene.server.error_at[7000] = b"MOVED 3999 :7001"
    rests: list[float] = []

    def rest_s(_: Breaker, chance: float) -> float:
        rests.append(chance)
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Breaker, "rest_s", rest_s)
        store = scene.make("redis://seed:7000")
        store.start()
        await until(lambda: store.there)
    assert scene.server.dialled == [("seed", 7000), ("seed", 7001)]
    assert len(rests) == 1
    await store.close()


@in_loop
async def test_nodes_that_send_to_each_other_are_not_dialled_without_a_rest(scene: Scene) -> None:
    scene.server.error_at = {7000: b"MOVED 1 :7001", 7001: b"MOVED 1 :7000"}
    store = scene.make("redis://seed:7000")
    store.start()
    await until(lambda: store.counts.dials >= 4)
    assert store.breaker.rest_s(1.0) >= 0.4  # two failures, of two dials each
    await store.close()


@in_loop
async def test_more_calls_than_may_wait_fail_at_once(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_DUE", 5)
        store = await scene.up()
        scene.server.silent = True
        waiters = [reserve(store, f"h{number}") for number in range(7)]
        assert [await reason_of(waiter) for waiter in waiters[5:]] == [Reason.BUSY] * 2
        await asyncio.sleep(0)
        scene.server.speak()
        assert (await waiters[4]).outcome in {Outcome.ADMITTED, Outcome.REFUSED}
        await store.close()


@in_loop
async def test_a_long_silence_is_broken_by_a_ping(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SILENCE_S", 0.02)
        store = await scene.up()
        await until(lambda: [b"PING"] in scene.server.commands)
        assert store.there
        await store.close()


@in_loop
async def test_a_connection_that_died_in_silence_is_missed_before_a_caller_misses_it(scene: Scene) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SILENCE_S", 0.02)
        patch.setattr(wire, "STALLED_S", 0.05)
        store = await scene.up(deadline_s=HASTY_S)
        scene.server.silent = True
        await until(lambda: not store.there)
        scene.server.silent = False
        await until(lambda: store.there)
        assert store.breaker.trips == 1
        await store.close()


# --- closing --------------------------------------------------------------------------------------------------------


@in_loop
async def test_closing_lets_what_is_under_way_be_answered(scene: Scene) -> None:
    store = await scene.up()
    waiter = store.settle("h", TAKES)
    await store.close()
    assert (await waiter).found is State.UNKNOWN
    assert scene.server.connections == []
    assert await reason_of(reserve(store)) is Reason.DOWN


@in_loop
async def test_closing_a_silent_store_ends_within_its_deadline(scene: Scene) -> None:
    store = await scene.up(deadline_s=HASTY_S)
    scene.server.silent = True
    waiter = reserve(store)
    await store.close()
    assert await reason_of(waiter) in {Reason.LATE, Reason.LOST}


@in_loop
async def test_closing_while_it_is_dialled_leaves_nothing_open(scene: Scene) -> None:
    scene.server.silent = True
    store = scene.make()
    store.start()
    await until(lambda: len(scene.server.connections) == 1)
    await store.close()
    await until(lambda: scene.server.connections == [])
    assert store.breaker.state is not BreakerState.CLOSED
