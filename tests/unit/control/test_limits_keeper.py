"""What was used comes back: after the node began anew, after a store lost its data or was away; and never twice."""

import asyncio
import copy
import errno
import logging
import re
from collections.abc import Awaitable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from gateway.control import limits_keeper as module
from gateway.control.limits_keeper import UNSURE_US, LimitsKeeper, of_table
from gateway.journal.read import Place
from gateway.limiter.changes import CheckpointFiles
from gateway.limiter.engine import Amount, Epoch, Settled
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.recorded import slice_mark
from gateway.limiter.replay import Fact
from gateway.limiter.spec import MAX_AMOUNT, rate
from tests.fakes.limit_records import BUDGET, MINUTE, NOON_MS, decision, outcome
from tests.fakes.limit_table import Moment, empty, memory, table
from tests.fakes.limits_node import SECOND_US, USD, LimitsNode, run
from tests.fakes.patience import PATIENCE_S

TPM = ("tpm|key=k", MINUTE)


@pytest.fixture
def node(tmp_path: Path) -> LimitsNode:
    return LimitsNode(tmp_path)


@pytest.fixture
def fleet(tmp_path: Path) -> LimitsNode:
    """A node whose engine is a store."""
    made = LimitsNode(tmp_path, marked=True, chains=("w0", "w1"))
    made.engine.fresh = False
    run(made)
    return made


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# --- the node began anew --------------------------------------------------------------------------------------------


def test_a_node_that_is_new_has_nothing_to_give_back(node: LimitsNode) -> None:
    run(node)
    assert (node.used, node.reader.epoch, node.keeper.ready) == (0, "e1", True)


@pytest.mark.parametrize("saved", [True, False])
def test_what_was_used_is_there_again_before_the_node_is_ready(node: LimitsNode, *, saved: bool) -> None:
    run(node)
    node.settles("a", 100)
    node.reserves("b", 40)
    if saved:
        run(node)
    node.reserves("c", 7)
    node.settles("c", 5)
    assert node.used == 145
    node.engine.forget()
    node.live()
    asyncio.run(node.keeper.begin())
    assert (node.used, node.keeper.ready) == (145, True)
    (found,) = node.reader.standing().used
    assert (found.live, found.estimated) == (0, 40)


def test_requests_that_come_meanwhile_count_once(node: LimitsNode) -> None:
    run(node)
    node.settles("a", 100)
    node.engine.forget()
    node.live()
    node.settles("n", 11)
    run(node)
    assert node.used == 111
    assert [found.used for found in node.reader.standing().used] == [111]
    node.engine.forget()
    node.live()
    run(node)
    assert node.used == 111


def test_requests_in_the_segment_of_who_was_killed_count_once(node: LimitsNode) -> None:
    run(node)
    node.settles("a", 100)
    node.engine.forget()
    node.pass_us(SECOND_US)
    node.began_us = node.now_us
    node.start_control()
    node.settles("n", 11)  # its worker goes on in the segment that is there
    run(node)
    assert node.used == 111
    assert [found.used for found in node.reader.standing().used] == [111]


def test_control_alone_that_begins_anew_gives_nothing_back(node: LimitsNode) -> None:
    run(node)
    node.settles("a", 100)
    run(node)
    node.settles("b", 1)
    node.pass_us(SECOND_US)
    node.start_control()
    run(node)
    assert (node.used, node.keeper.given_back) == (101, 0)


def test_a_rate_comes_back_as_far_as_it_has_not_refilled(node: LimitsNode) -> None:
    run(node)
    node.write(outcome("a", node.now_us // 1000, {TPM: 30_000}))
    node.engine.forget()
    node.pass_us(9 * SECOND_US)
    node.live()
    run(node)
    assert node.engine.used(*TPM) == 20_000


def test_a_window_that_is_over_does_not_come_back(node: LimitsNode) -> None:
    run(node)
    node.settles("a", 100)
    node.engine.forget()
    node.pass_us((BUDGET.end_ms - NOON_MS) * 1000)
    node.live()
    run(node)
    assert node.used == 0


def test_more_than_one_settlement_may_have(node: LimitsNode) -> None:
    run(node)
    for number in range(3):
        node.write(outcome(f"h{number}", node.now_us // 1000, {USD: MAX_AMOUNT}))
    node.engine.forget()
    node.live()
    run(node)
    assert node.used == 3 * MAX_AMOUNT


async def begun_in_vain(node: LimitsNode) -> None:
    """It tries to begin, says what keeps it from that, and is stopped before it tries again."""
    beginning = asyncio.ensure_future(node.keeper.begin())
    async with asyncio.timeout(PATIENCE_S):
        while not node.keeper.failing:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait({beginning})


@pytest.mark.parametrize("settlements", range(6))
def test_a_crash_while_giving_back_gives_nothing_twice(node: LimitsNode, settlements: int) -> None:
    run(node)
    buckets = [(f"budget|org={number}", BUDGET) for number in range(5)]
    node.write(*(outcome(f"h{number}", node.now_us // 1000, {bucket: 9}) for number, bucket in enumerate(buckets)))
    node.engine.forget()
    node.live()
    node.engine.fails_after = settlements

    if settlements < 5:
        asyncio.run(begun_in_vain(node))
        assert (node.keeper.ready, node.reader.epoch) == (False, "e1")
        assert "it went away" in node.keeper.failing
    node.engine.away, node.engine.fails_after = False, -1
    node.start_control()
    run(node)
    assert [node.engine.used(*bucket) for bucket in buckets] == [9] * 5


def test_without_a_checkpoint_the_journal_alone_is_enough(node: LimitsNode) -> None:
    run(node)
    node.settles("a", 100)
    run(node)
    node.reader.path.unlink()
    node.engine.forget()
    node.live()
    run(node)
    assert node.used == 100


def test_a_memory_that_was_there_before_the_first_checkpoint_has_what_it_has(node: LimitsNode) -> None:
    node.engine.fresh = False
    node.settles("a", 100)
    node.live()
    run(node)
    assert (node.used, node.keeper.given_back) == (100, 0)


def test_a_checkpoint_that_cannot_be_written_is_tried_again(
    node: LimitsNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(node)
    node.settles("a", 100)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "gateway.limits"):
        patch.setattr(CheckpointFiles, "write", no_room)
        run(node, turns=3)
    assert caplog.text.count("No space left") == 1
    assert "No space left" in node.keeper.failing
    run(node)
    assert node.keeper.failing == ""
    assert node.reader.saved_places == node.journal.signed()


# --- a store --------------------------------------------------------------------------------------------------------


def test_a_store_that_lost_its_data_has_it_again(fleet: LimitsNode) -> None:
    fleet.settles("a", 100)
    fleet.reserves("b", 40)
    run(fleet)
    fleet.pass_us(5 * SECOND_US)
    run(fleet)
    fleet.engine.forget()
    run(fleet)
    assert fleet.used == 100  # what is reserved settles in full
    fleet.settles("b", 30)
    run(fleet)
    assert fleet.used == 130
    assert [found.used for found in fleet.reader.standing().used] == [130]


def test_a_control_that_is_killed_while_it_gives_back_is_followed_by_one_that_does_the_same(fleet: LimitsNode) -> None:
    fleet.settles("a", 100)
    run(fleet)
    fleet.pass_us(10 * SECOND_US)
    run(fleet)  # nothing new: no checkpoint was needed
    fleet.engine.forget()
    fleet.pass_us(SECOND_US)
    asyncio.run(fleet.keeper._look())  # and is killed before its checkpoint
    assert fleet.used == 100
    fleet.start_control()
    run(fleet, turns=2)
    assert fleet.used == 100


def test_a_memory_that_is_lost_while_it_is_given_to_counts_nothing_twice(fleet: LimitsNode) -> None:
    fleet.settles("a", 100)
    fleet.settles("b", 30, ("budget|org=b", BUDGET))
    run(fleet)
    fleet.pass_us(10 * SECOND_US)
    run(fleet)
    settle = fleet.engine.settle

    def lost_once(hold: str, actuals: tuple[Amount, ...]) -> Awaitable[Settled]:
        if "org=b" in hold:
            fleet.engine.settle = settle  # type: ignore[method-assign]
            fleet.engine.forget()  # and is there again at once, before anybody has noticed
        return settle(hold, actuals)

    fleet.engine.forget()
    fleet.engine.settle = lost_once  # type: ignore[method-assign]
    run(fleet)
    assert "was lost while" in fleet.keeper.failing
    run(fleet, turns=2)
    assert (fleet.used, fleet.engine.used("budget|org=b", BUDGET)) == (100, 30)


def test_a_look_that_takes_long_has_seen_the_memory_when_it_began(fleet: LimitsNode) -> None:
    run(fleet)
    epoch = fleet.engine.epoch

    async def slow(known: str, known_us: int) -> Epoch:
        found = await epoch(known, known_us)
        fleet.engine.forget()
        fleet.pass_us(SECOND_US)
        fleet.settles("after it was lost", 100)
        fleet.pass_us(10 * SECOND_US)
        return found

    fleet.keeper._memory = fleet.engine.memory._replace(epoch=slow)
    asyncio.run(fleet.keeper.turn())
    fleet.keeper._memory = fleet.engine.memory
    run(fleet, turns=2)
    assert fleet.used == 100


def test_what_a_worker_delivers_late_is_not_given_back_as_well(fleet: LimitsNode) -> None:
    owed = 1
    fleet.keeper._memory = fleet.engine.memory._replace(owed=lambda: owed)
    fleet.write(outcome("late", fleet.now_us // 1000, {USD: 5}))
    for _ in range(9):
        fleet.pass_us(SECOND_US)
        run(fleet)
    fleet.engine.forget()
    run(fleet)
    assert fleet.used == 5
    fleet.engine.settle("late", (Amount(*USD, 5),))
    assert fleet.used == 5
    owed = 0
    run(fleet)
    assert fleet.reader.seen_us == fleet.now_us


def test_settlements_around_the_loss_count_once(fleet: LimitsNode) -> None:
    fleet.settles("long ago", 1_000)
    run(fleet)
    fleet.pass_us(10 * SECOND_US)
    run(fleet)
    fleet.pass_us(SECOND_US // 2)
    fleet.settles("lost, and read", 100)
    fleet.runner.step()
    fleet.engine.forget()
    fleet.settles("taken, and read", 10)
    fleet.runner.step()
    fleet.settles("taken, not yet read", 1)
    asyncio.run(fleet.keeper.turn())
    run(fleet, turns=2)
    assert fleet.used == 1_111
    assert fleet.keeper.given_back == 1


def test_what_was_settled_while_the_store_was_away_is_settled_again(fleet: LimitsNode) -> None:
    fleet.reserves("a", 50)
    run(fleet)
    fleet.engine.away = True
    fleet.pass_us(60 * SECOND_US)
    fleet.settles("a", 20)
    fleet.settles("counted here", 5)
    run(fleet)
    assert fleet.keeper.failing
    fleet.engine.away = False
    run(fleet)
    assert (fleet.used, fleet.keeper.failing, fleet.keeper.given_back) == (25, "", 0)
    repeated = fleet.keeper.repeated
    run(fleet)
    assert (fleet.used, fleet.keeper.repeated) == (25, repeated)


def test_a_store_that_goes_away_again_is_asked_again(fleet: LimitsNode) -> None:
    fleet.engine.away = True
    run(fleet)
    for number in range(3):
        fleet.settles(f"h{number}", 7)
    run(fleet)
    fleet.engine.away, fleet.engine.fails_after = False, 2
    run(fleet)
    assert fleet.used == 14
    fleet.engine.away, fleet.engine.fails_after = False, -1
    run(fleet)
    assert fleet.used == 21


def test_what_is_signed_later_waits_for_a_store_that_went_again(fleet: LimitsNode) -> None:
    fleet.engine.away = True
    run(fleet)
    fleet.settles("a", 7)
    fleet.engine.away = False
    asyncio.run(fleet.keeper.turn())
    assert fleet.used == 0
    fleet.runner.step()
    fleet.engine.fails_after = 0
    asyncio.run(fleet.keeper.turn())
    fleet.engine.away, fleet.engine.fails_after = False, -1
    asyncio.run(fleet.keeper.turn())
    assert fleet.used == 7


def test_a_node_that_was_killed_while_the_store_was_away(fleet: LimitsNode) -> None:
    fleet.settles("a", 3)
    run(fleet)
    fleet.engine.away = True
    fleet.settles("b", 30)
    fleet.live()
    fleet.engine.away = False
    run(fleet)
    assert (fleet.used, fleet.keeper.given_back) == (33, 0)


def test_what_was_counted_in_slices_is_settled_again_only_in_another_memory(fleet: LimitsNode) -> None:
    run(fleet)
    fleet.engine.settle("what the slice cost", (Amount(*USD, 7),))
    mark = slice_mark(fleet.reader.epoch)
    fleet.engine.away = True
    fleet.pass_us(60 * SECOND_US)
    for number, amount in enumerate((3, 4)):
        at_ms = fleet.now_us // 1000
        fleet.write(msgspec.structs.replace(outcome(f"s{number}", at_ms, {USD: amount}), limits_verdict=mark))
        run(fleet)
        fleet.engine.away = False
        run(fleet)
        assert fleet.used == 7
    fleet.engine.forget()
    run(fleet, turns=2)
    assert fleet.used == 7


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize("died_before", [True, False])
def test_what_the_dead_held_is_charged_in_a_store_that_lost_it(
    fleet: LimitsNode, *, died_before: bool, read_before: bool
) -> None:
    fleet.reserves("killed", 40)
    fleet.reserves("alive", 7, chain="w1")
    run(fleet)
    fleet.pass_us(5 * SECOND_US)
    run(fleet)
    if died_before:
        fleet.worker_dies()
        if read_before:
            run(fleet)
    fleet.engine.forget()
    run(fleet)
    if not died_before:
        fleet.worker_dies()
    run(fleet, turns=2)
    assert fleet.used == 40
    fleet.settles("alive", 2, chain="w1")
    run(fleet, turns=2)
    assert fleet.used == 42


def test_what_the_dead_held_changes_nothing_in_a_store_that_has_it(fleet: LimitsNode) -> None:
    fleet.reserves("killed", 40)
    fleet.reserves("settled, and killed before it said so", 30)
    fleet.engine.settle("settled, and killed before it said so", (Amount(*USD, 3),))
    fleet.worker_dies()
    run(fleet, turns=2)
    assert (fleet.used, fleet.reader.orphans()) == (43, [])


def test_what_the_dead_held_counts_where_a_store_never_heard_of_it(fleet: LimitsNode) -> None:
    run(fleet)
    fleet.engine.away = True
    fleet.write(decision("counted here", fleet.now_us // 1000, {USD: 40}))
    fleet.worker_dies()
    run(fleet)
    fleet.start_control()
    fleet.engine.away = False
    run(fleet, turns=2)
    assert fleet.used == 40


def test_the_dead_are_told_of_again_where_a_store_went_back(fleet: LimitsNode) -> None:
    before = copy.deepcopy(fleet.engine.model)
    fleet.reserves("killed", 40)
    fleet.worker_dies()
    run(fleet, turns=2)
    fleet.engine.model = before
    fleet.engine.go_back(fleet.now_us)
    run(fleet)
    assert fleet.used == 40


@pytest.mark.parametrize("turns", [1, 2])
def test_a_control_that_is_killed_lays_nobody_to_rest_twice(fleet: LimitsNode, turns: int) -> None:
    fleet.reserves("killed", 40)
    fleet.worker_dies()
    run(fleet)
    fleet.pass_us(5 * SECOND_US)
    fleet.engine.forget()
    for _ in range(turns):
        asyncio.run(fleet.keeper._look())
    fleet.start_control()
    run(fleet, turns=2)
    assert (fleet.used, fleet.reader.orphans()) == (40, [])


def test_what_the_dead_may_have_held_of_slices_counts_in_a_younger_memory_only(fleet: LimitsNode) -> None:
    fleet.engine.memory = fleet.engine.memory._replace(sliced=True)
    fleet.start_control()
    run(fleet)
    fleet.pass_us(SECOND_US)
    fleet.engine.settle("what the slice cost", (Amount(*USD, 40),))
    fleet.write(decision("killed", fleet.now_us // 1000, {USD: 40}))
    fleet.worker_dies()
    run(fleet, turns=2)
    assert (fleet.used, fleet.reader.orphans()) == (40, [])
    fleet.write(decision("killed later", fleet.now_us // 1000, {USD: 5}))
    run(fleet)
    fleet.pass_us(SECOND_US)
    fleet.engine.forget()
    run(fleet)
    fleet.worker_dies()
    run(fleet, turns=2)
    assert fleet.used == 45


def test_what_was_held_long_ago_is_left_as_it_is(fleet: LimitsNode) -> None:
    """A store may have forgotten that it was settled."""
    fleet.write(decision("old", fleet.now_us // 1000, {USD: 40}))
    run(fleet)
    fleet.pass_us(module.MARKED_US)
    fleet.worker_dies()
    run(fleet, turns=2)
    assert (fleet.engine.used(*USD), fleet.reader.orphans()) == (0, [])


def test_a_settlement_that_a_worker_could_not_deliver_is_settled_again(fleet: LimitsNode) -> None:
    count = 0
    memory = fleet.engine.memory._replace(undelivered=lambda: count)
    fleet.keeper = LimitsKeeper(fleet.reader, memory, fleet.journal.node, fleet.began_us, lambda: fleet.now_us)
    run(fleet)
    fleet.pass_us(5 * SECOND_US)
    fleet.write(outcome("late", fleet.now_us // 1000, {USD: 5}))
    run(fleet)
    assert fleet.used == 0
    count += 1
    run(fleet)
    assert fleet.used == 5
    repeated = fleet.keeper.repeated
    run(fleet)
    assert (fleet.used, fleet.keeper.repeated) == (5, repeated)


def test_a_store_that_went_back_is_told_again_what_it_had_known(fleet: LimitsNode) -> None:
    fleet.settles("kept", 1_000)
    run(fleet)
    fleet.pass_us(10 * SECOND_US)
    run(fleet)
    before = copy.deepcopy(fleet.engine.model), fleet.engine.known_us
    for amount in (100, 10):
        fleet.pass_us(10 * SECOND_US)
        fleet.settles(f"lost {amount}", amount)
        run(fleet)
    fleet.engine.model = before[0]
    fleet.engine.go_back(before[1])
    run(fleet, turns=2)
    assert (fleet.used, fleet.keeper.given_back) == (1_110, 0)


def test_what_is_known_to_be_in_a_store_is_left_there(fleet: LimitsNode) -> None:
    fleet.pass_us(10 * SECOND_US)
    run(fleet)
    seen_us = fleet.now_us
    fleet.pass_us(SECOND_US)
    run(fleet)
    assert fleet.engine.known_us == seen_us - UNSURE_US
    fleet.engine.forget()
    fleet.pass_us(SECOND_US)
    run(fleet)
    assert fleet.engine.known_us == 0  # of another memory nothing is known yet


@pytest.mark.parametrize("lost", [True, False])
def test_a_store_that_is_away_keeps_no_node_from_serving(fleet: LimitsNode, *, lost: bool) -> None:
    fleet.settles("a", 3)
    fleet.reserves("killed", 500)
    run(fleet)
    fleet.pass_us(5 * SECOND_US)
    run(fleet)
    fleet.engine.away = True
    fleet.settles("b", 30)
    if lost:
        fleet.engine.forget()
    fleet.live()
    run(fleet)
    assert fleet.keeper.ready
    assert "it is away" in fleet.keeper.failing
    fleet.settles("c", 1)
    fleet.engine.away = False
    run(fleet, turns=2)
    assert (fleet.used, fleet.keeper.failing, fleet.keeper.given_back) == (534, "", int(lost))


def test_two_nodes_give_back_their_own(tmp_path: Path) -> None:
    one = LimitsNode(tmp_path / "one", marked=True)
    other = LimitsNode(tmp_path / "other", marked=True)
    other.engine = one.engine
    other.start_control()
    other.journal.node = other.journal.chain("w0").node = "b" * 32
    other.start_control()
    for node, amount in ((one, 5), (other, 70)):
        run(node)
        node.settles(f"of {amount}", amount)
        node.pass_us(5 * SECOND_US)
        run(node)
    one.engine.forget()
    run(one)
    run(other)
    assert one.used == 75


@pytest.mark.parametrize(("capacity", "left"), [(60_000, 0), (20_000, 0), (200_000, 140_000)])
def test_a_rate_that_nodes_used_together_is_used_up_when_their_store_lost_it(
    tmp_path: Path, capacity: int, left: int
) -> None:
    """Three nodes have kept a limit of one a second at its end: none of them alone has used more than refilled."""
    nodes = [LimitsNode(tmp_path / f"n{number}", marked=True) for number in range(3)]
    engine = nodes[0].engine
    spec = rate(MAX_AMOUNT, 60_000, 60_000)
    for number, node in enumerate(nodes):
        node.engine = engine
        node.journal.node = node.journal.chain("w0").node = str(number) * 32
        node.start_control()
        node.keeper = LimitsKeeper(
            node.reader,
            engine.memory,
            node.journal.node,
            node.began_us,
            lambda node=node: node.now_us,  # type: ignore[misc]
            nodes=3,
            capacity_of=lambda _bucket, _spec: capacity,
        )
        run(node)
    for second in range(180):  # each a third, and the first minute on top of it twice as much
        for number, node in enumerate(nodes):
            if second % 3 == number or second < 60:
                node.settles(f"{number}-{second}", 1_000, ("rpm", spec))
            node.pass_us(SECOND_US)
    for node in nodes:
        run(node)
    engine.forget()
    for node in nodes:
        run(node, turns=2)
    assert capacity - engine.used("rpm", spec) <= left


def test_a_rate_is_not_charged_for_what_has_refilled_since(fleet: LimitsNode) -> None:
    fleet.engine.away = True
    run(fleet)
    fleet.write(outcome("a", fleet.now_us // 1000, {TPM: 30_000}))
    fleet.pass_us(20 * SECOND_US)
    fleet.engine.away = False
    run(fleet)
    assert fleet.engine.used(*TPM) == 10_000


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("ended", [True, False])
def test_no_time_refills_twice_what_was_used_before_and_after_a_memory_was_lost(
    fleet: LimitsNode, *, read: bool, ended: bool
) -> None:
    fleet.settles("before", 50_000, TPM)
    run(fleet)
    fleet.pass_us(2 * SECOND_US)
    fleet.reserves("unheard of", 0, TPM)
    fleet.engine.forget()
    fleet.reserves("in the new one", 5_000, TPM)
    if ended:
        fleet.settles("in the new one", 5_000, TPM)
    fleet.pass_us(3 * SECOND_US)
    if read:
        fleet.runner.step()
    asyncio.run(fleet.keeper.turn())
    assert fleet.engine.used(*TPM) == 50_000  # and 5,000 more, less 5,000 that have refilled


def test_what_was_reserved_before_the_memory_was_away_has_not_refilled_in_the_new_one(fleet: LimitsNode) -> None:
    fleet.settles("before", 50_000, TPM)
    run(fleet)
    fleet.pass_us(2 * SECOND_US)
    fleet.reserves("delivered late", 5_000, TPM)
    fleet.engine.away = True
    for _ in range(2):
        fleet.pass_us(SECOND_US)
        asyncio.run(fleet.keeper.turn())
    fleet.engine.forget()
    fleet.engine.away = False
    fleet.settles("delivered late", 5_000, TPM)
    fleet.reserves("in the new one", 5_000, TPM)
    fleet.pass_us(3 * SECOND_US)
    run(fleet)
    assert fleet.engine.used(*TPM) == 60_000 - 7_000


def test_it_runs_until_it_is_told_to_stop(node: LimitsNode, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = asyncio.Semaphore(0)

    async def also() -> None:
        looks.release()

    async def some_turns() -> None:
        await node.keeper.begin()
        running = asyncio.create_task(node.keeper.run(also))
        for _ in range(3):
            await looks.acquire()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        node.settles("a", 4)
        node.runner.step()
        await node.keeper.close()

    monkeypatch.setattr(module, "TURN_S", 0.001)
    asyncio.run(some_turns())
    assert node.reader.saved_places == node.journal.signed()


def test_what_is_done_besides_fails_by_itself(node: LimitsNode, monkeypatch: pytest.MonkeyPatch) -> None:
    done = asyncio.Semaphore(0)

    async def fails() -> None:
        raise OSError("not now")

    async def works() -> None:
        done.release()

    async def some_turns() -> None:
        await node.keeper.begin()
        running = asyncio.create_task(node.keeper.run(fails, works))
        for _ in range(2):
            await done.acquire()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    monkeypatch.setattr(module, "TURN_S", 0.001)
    asyncio.run(some_turns())
    assert node.keeper.failing == "not now"


def test_who_is_stopped_before_all_was_given_back_keeps_nothing(node: LimitsNode) -> None:
    run(node)
    node.settles("a", 100)
    run(node)
    kept = node.reader.path.read_bytes()
    node.engine.forget()
    node.live()
    node.engine.away = True

    async def cut_short() -> None:
        await begun_in_vain(node)
        await node.keeper.close()

    asyncio.run(cut_short())
    assert node.reader.path.read_bytes() == kept


def test_a_bucket_of_which_nothing_is_missing_costs_no_settlement(node: LimitsNode) -> None:
    calls: list[str] = []
    settle = node.engine.settle

    def counted(hold: str, actuals: tuple[Amount, ...]) -> Awaitable[Settled]:
        calls.append(hold)
        return settle(hold, actuals)

    run(node)
    node.write(outcome("a", node.now_us // 1000, {TPM: 5}), outcome("b", node.now_us // 1000, {USD: 5}))
    node.engine.forget()
    node.pass_us(SECOND_US)
    node.engine.settle = counted  # type: ignore[method-assign]
    node.live()
    run(node)
    (hold,) = calls
    assert re.match(rf"restored\|{node.journal.node}\|\d+\|WINDOW\|", hold)


# --- the table of this node -----------------------------------------------------------------------------------------


class Tabled(LimitsNode):
    """A node with a real table."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.moment = Moment(self.now_us // 1000)
        self.words = memory()
        self.table = table(self.words, self.moment)
        self.memory = of_table(self.table, kept=False)
        self.start_tabled()

    def start_tabled(self) -> None:
        self.start_control()
        self.keeper = LimitsKeeper(self.reader, self.memory, self.journal.node, self.began_us, lambda: self.now_us)

    def pass_s(self, seconds: int) -> None:
        self.pass_us(seconds * SECOND_US)
        self.moment.now_ms = self.now_us // 1000

    def spent(self) -> int:
        (standing,) = self.table.peek([Amount(*USD, 0)])
        return BUDGET.limit - standing.level


@pytest.fixture
def tabled(tmp_path: Path) -> Tabled:
    made = Tabled(tmp_path)
    run(made)
    return made


def test_a_table_gets_back_what_was_used(tabled: Tabled) -> None:
    tabled.write(outcome("a", tabled.now_us // 1000, {USD: 77, TPM: 5_000}))
    run(tabled)
    assert tabled.spent() == 0
    epoch = tabled.reader.epoch
    empty(tabled.words)
    tabled.memory = of_table(tabled.table, kept=False)
    tabled.live()
    tabled.start_tabled()
    run(tabled)
    assert (tabled.spent(), tabled.keeper.given_back) == (77, 1)
    assert epoch != tabled.reader.epoch
    tabled.start_tabled()
    run(tabled)
    assert (tabled.spent(), tabled.keeper.given_back) == (77, 0)


@pytest.mark.parametrize("hold", ["short", "a-hold-whose-name-is-longer-than-a-row-has-room-for"])
def test_an_outcome_that_nobody_lived_to_settle_is_settled_once(tabled: Tabled, hold: str) -> None:
    at_ms = tabled.now_us // 1000
    for name, amount in ((hold, 500), ("killed", 40)):
        tabled.table.reserve(name, [Amount(*USD, amount)], owner=1, lease_ms=9_000)
        tabled.write(decision(name, at_ms, {USD: amount}))
    tabled.write(outcome(hold, at_ms, {USD: 120}))
    tabled.pass_s(10)
    assert tabled.spent() == 540
    run(tabled)
    assert (tabled.spent(), tabled.keeper.corrected) == (540, 0)
    tabled.pass_s(5)
    run(tabled, turns=2)
    assert (tabled.spent(), tabled.keeper.corrected) == (160, 1)
    tabled.pass_s(60)
    run(tabled, turns=2)
    assert (tabled.spent(), tabled.keeper.corrected) == (160, 1)
    tabled.write(outcome("killed", at_ms, {USD: 1}))
    run(tabled, turns=2)
    assert (tabled.spent(), tabled.keeper.corrected) == (121, 2)


def test_a_hold_that_left_nothing_in_the_journal_is_searched_for_once(
    tabled: Tabled, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    real = tabled.reader.settled

    def counted(places: Mapping[str, Place], since_us: int) -> Iterator[Fact]:
        searched.append(since_us)
        return real(places, since_us)

    monkeypatch.setattr(tabled.reader, "settled", counted)
    tabled.table.reserve("unrecorded", [Amount(*USD, 5)], owner=1, lease_ms=9_000)
    for _ in range(6):
        tabled.pass_s(4)
        assert tabled.spent() == 5
        run(tabled)
    assert (len(searched), tabled.spent()) == (1, 5)


def test_a_hold_without_an_outcome_is_not_searched_for(tabled: Tabled, monkeypatch: pytest.MonkeyPatch) -> None:
    def unasked(*_: object) -> Iterator[Fact]:
        raise AssertionError("the journal is read for nothing")

    monkeypatch.setattr(tabled.reader, "settled", unasked)
    tabled.table.reserve("killed", [Amount(*USD, 40)], owner=1, lease_ms=9_000)
    tabled.write(decision("killed", tabled.now_us // 1000, {USD: 40}))
    for _ in range(6):
        tabled.pass_s(4)
        run(tabled)
    assert (tabled.spent(), tabled.keeper.failing) == (40, "")


def test_a_full_disk_keeps_no_node_from_serving_and_counts_nothing_twice(
    tabled: Tabled, monkeypatch: pytest.MonkeyPatch
) -> None:
    tabled.write(outcome("a", tabled.now_us // 1000, {USD: 77}))
    run(tabled)
    empty(tabled.words)
    tabled.memory = of_table(tabled.table, kept=False)
    tabled.live()
    tabled.start_tabled()
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "write", no_room)
        run(tabled)
    assert (tabled.keeper.ready, tabled.spent()) == (True, 77)
    assert "No space left" in tabled.keeper.failing
    tabled.memory = of_table(tabled.table, kept=True)
    tabled.write(outcome("b", tabled.now_us // 1000, {USD: 3}))
    tabled.start_tabled()
    run(tabled)
    assert (tabled.spent(), tabled.keeper.given_back) == (77, 0)  # "b" is its worker's to settle
    assert [found.used for found in tabled.reader.standing().used] == [80]


def test_a_new_table_under_a_node_that_goes_on_gets_it_back(tabled: Tabled) -> None:
    tabled.write(outcome("a", tabled.now_us // 1000, {USD: 77}))
    tabled.pass_s(1)
    run(tabled)
    empty(tabled.words)
    tabled.memory = of_table(tabled.table, kept=True)  # an upgrade to another layout
    tabled.start_tabled()
    run(tabled)
    assert (tabled.spent(), tabled.keeper.given_back) == (77, 1)


def test_a_table_that_is_in_use_is_looked_at_another_time(tabled: Tabled, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_: object) -> None:
        raise MutexBusy("somebody has it")

    def lost(_: object) -> None:
        raise MutexLost("it is wrong")

    monkeypatch.setattr(module, "lapsed", busy)
    run(tabled)
    assert tabled.keeper.failing == ""
    monkeypatch.setattr(module, "lapsed", lost)
    run(tabled)
    assert "it is wrong" in tabled.keeper.failing
