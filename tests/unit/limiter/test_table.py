"""The table is one for all processes, right after a death, given up when it cannot be, and an Engine."""

import asyncio
import logging
import os
import signal

import pytest

from gateway.limiter.engine import Amount, Engine, Outcome, Reason, Renewal, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.layout import (
    AT_ARMED,
    AT_HOLDS,
    AT_KEY,
    AT_NEXT_LAPSE,
    AT_ROW_COUNT,
    AT_ROWS,
    NO_LEASE,
    UNDO_CELLS,
    Counter,
    Layout,
)
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.rows import OnFull
from gateway.limiter.spec import MAX_AMOUNT, rate, slots
from gateway.limiter.table import Table, TableEngine, clock_ms
from gateway.segment import Segment
from tests.fakes.limit_table import SMALL, Moment, memory, table

NOW_MS = 1_700_000_000_000
TPM = rate(1_000, 1_000, 60_000)
OWNER = 7
LEASE_MS = 1_000


@pytest.fixture
def words() -> memoryview:
    return memory()


@pytest.fixture
def made(words: memoryview) -> Table:
    return table(words, Moment(NOW_MS), kind=Table)


def tokens(amount: int) -> Amount:
    return Amount("tpm", TPM, amount)


def die_within(made: Table, *, armed: int = 0) -> None:
    """A process takes the mutex, perhaps leaves something to undo, and is killed with it in hand."""
    pid = os.fork()
    if not pid:
        made.mutex.acquire(0)
        made.words[AT_ARMED] = armed
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_new_table_knows_its_sizes_and_nothing_else(words: memoryview) -> None:
    assert (words[AT_ROWS], words[AT_HOLDS]) == (SMALL.rows, SMALL.holds)
    assert (words[AT_NEXT_LAPSE], words[AT_ROW_COUNT], words[AT_ARMED]) == (NO_LEASE, 0, 0)
    assert words[AT_KEY : AT_KEY + 2].tolist() != memory()[AT_KEY : AT_KEY + 2].tolist()


def test_a_section_of_the_control_segment_holds_a_table() -> None:
    layout = Layout(rows=32, holds=16)
    segment = Segment.create([layout.section], slots=4)
    view = segment.view(layout.section)
    Table.initialise(view, layout)
    one = table(view, Moment(NOW_MS))
    two = table(Segment(os.dup(segment.fd)).view(layout.section), Moment(NOW_MS))  # as another process maps it
    one.reserve("a", [tokens(400)], owner=OWNER, lease_ms=LEASE_MS)
    assert two.settle("a", [tokens(100)]).levels == (900,)
    assert one.peek([tokens(0)])[0].level == 900


def test_memory_that_holds_no_table_is_refused() -> None:
    with pytest.raises(MutexLost):
        table(memoryview(bytearray(SMALL.words * 8)).cast("q"), Moment(NOW_MS))


def test_processes_forked_from_one_share_every_number(made: Table) -> None:
    made.reserve("a", [tokens(100)], owner=OWNER, lease_ms=LEASE_MS)
    pid = os.fork()
    if not pid:
        made.reserve("b", [tokens(200)], owner=OWNER, lease_ms=LEASE_MS)
        made.settle("a", [tokens(50)])
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert made.peek([tokens(0)])[0].level == 750
    assert made.settle("a", [tokens(50)]).found is State.SETTLED


def test_time_is_read_from_the_clocks_of_the_machine(words: memoryview) -> None:
    made = Table(words, max_end_users=1, on_full=OnFull.OTHER)
    made.reserve("a", [Amount("tpm", rate(10**9, 10**9, 1_000), 10**9)], owner=OWNER, lease_ms=LEASE_MS)
    assert abs(made.wall_ms() - clock_ms()) < 10_000
    assert made.words[AT_NEXT_LAPSE] - LEASE_MS <= made.now_ms()


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT + 1])
def test_amounts_out_of_bounds_are_refused_by_every_operation(made: Table, amount: int) -> None:
    with pytest.raises(ValueError, match="amount is"):
        made.reserve("a", [tokens(amount)], owner=OWNER, lease_ms=LEASE_MS)
    with pytest.raises(ValueError, match="amount is"):
        made.reserve("a", [], owner=OWNER, lease_ms=LEASE_MS, releases=[tokens(amount)])
    with pytest.raises(ValueError, match="amount is"):
        made.settle("a", [tokens(amount)])
    with pytest.raises(ValueError, match="amount is"):
        made.peek([tokens(amount)])
    with pytest.raises(ValueError, match="is"):
        made.lease("n", 1, "tpm", TPM, want=amount, least=0, unused=0, lease_ms=LEASE_MS)
    assert not made.mutex.holder
    assert made.words[AT_ROW_COUNT] == 0


def test_a_lease_of_what_cannot_be_leased_is_refused(made: Table) -> None:
    with pytest.raises(ValueError, match="counts slots"):
        made.lease("n", 1, "s", slots(5), want=1, least=1, unused=0, lease_ms=LEASE_MS)
    with pytest.raises(ValueError, match="least is 5"):
        made.lease("n", 1, "tpm", TPM, want=4, least=5, unused=0, lease_ms=LEASE_MS)
    with pytest.raises(ValueError, match="lease_ms"):
        made.renew([Renewal("a")], lease_ms=0)


# --- deaths ----------------------------------------------------------------------------------------------------------


def test_a_death_with_nothing_under_way_costs_nothing(made: Table, caplog: pytest.LogCaptureFixture) -> None:
    made.reserve("a", [tokens(100)], owner=OWNER, lease_ms=LEASE_MS)
    die_within(made)
    with caplog.at_level(logging.WARNING):
        assert made.peek([tokens(0)])[0].level == 900
    assert "a process died while it held the limit table; 0 cells" in caplog.text
    assert (made.count(Counter.RECOVERED), made.count(Counter.ROLLED_BACK)) == (1, 0)
    assert made.peek([tokens(0)])[0].level == 900


def test_a_table_that_is_wrong_after_a_death_is_given_up(made: Table) -> None:
    made.reserve("a", [tokens(100)], owner=OWNER, lease_ms=LEASE_MS)
    made.words[AT_ROW_COUNT] += 1  # a defect
    die_within(made)
    with pytest.raises(MutexLost, match="1 rows are in use, counted are 2"):
        made.peek([tokens(0)])
    with pytest.raises(MutexLost, match="restart"):
        made.reserve("b", [tokens(1)], owner=OWNER, lease_ms=LEASE_MS)


def test_an_undo_record_that_cannot_be_is_the_end_too(made: Table) -> None:
    die_within(made, armed=UNDO_CELLS + 1)
    with pytest.raises(MutexLost, match="cannot be taken back"):
        made.peek([tokens(0)])
    with pytest.raises(MutexLost, match="restart"):
        made.peek([tokens(0)])


def test_an_operation_that_raises_leaves_the_mutex(made: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made.holds, "find", None)
    with pytest.raises(TypeError):
        made.settle("a", [tokens(1)])
    with pytest.raises(TypeError):
        made.reserve("a", [tokens(1)], owner=OWNER, lease_ms=LEASE_MS)
    assert not made.mutex.holder


def test_a_change_that_cannot_be_taken_back_is_the_end(made: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: object) -> None:
        made.words[AT_ARMED] = UNDO_CELLS + 1
        raise TypeError

    monkeypatch.setattr(made.holds, "find", break_off)
    with pytest.raises(MutexLost, match="cannot be taken back"):
        made.settle("a", [tokens(1)])
    monkeypatch.undo()
    for _ in range(2):
        with pytest.raises(MutexLost):
            made.peek([tokens(0)])


def test_a_table_that_cannot_be_read_after_a_death_is_given_up(made: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    die_within(made)
    monkeypatch.setattr("gateway.limiter.table.problems", None)
    with pytest.raises(MutexLost, match="cannot be read"):
        made.peek([tokens(0)])


# --- as an engine ----------------------------------------------------------------------------------------------------


def test_it_is_an_engine(made: Table) -> None:
    engine: Engine = TableEngine(made)

    async def life() -> None:
        admitted = await engine.reserve("a", [tokens(100)], owner=OWNER, lease_ms=LEASE_MS)
        assert (admitted.outcome, admitted.levels) == (Outcome.ADMITTED, (900,))
        assert await engine.renew([Renewal("a")], lease_ms=LEASE_MS) == (State.OPEN,)
        assert (await engine.settle("a", [tokens(50)])).levels == (950,)
        assert (await engine.peek([tokens(0)]))[0].level == 950
        leased = await engine.lease("n", 1, "tpm", TPM, want=50, least=1, unused=0, lease_ms=LEASE_MS)
        assert leased.granted == 50
        await engine.close()

    asyncio.run(life())


def test_a_settlement_has_happened_when_the_call_returns(made: Table) -> None:
    engine = TableEngine(made)
    engine.settle("a", [tokens(50)])  # never awaited
    assert made.peek([tokens(0)])[0].level == 950


@pytest.mark.parametrize(
    ("error", "reason"), [(MutexBusy("held by process 5"), Reason.BUSY), (MutexLost("restart"), Reason.DOWN)]
)
def test_what_cannot_be_done_raises_when_it_is_awaited(
    made: Table, error: Exception, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise error

    monkeypatch.setattr(made, "_try_lock", lambda _: 16)
    monkeypatch.setattr(made, "_late", late)
    engine = TableEngine(made)
    answers = [
        engine.reserve("a", [tokens(1)], owner=OWNER, lease_ms=LEASE_MS),
        engine.settle("a", [tokens(1)]),
        engine.renew([Renewal("a")], lease_ms=LEASE_MS),
        engine.lease("n", 1, "tpm", TPM, want=1, least=1, unused=0, lease_ms=LEASE_MS),
        engine.peek([tokens(1)]),
    ]

    async def ask() -> None:
        for answer in answers:
            with pytest.raises(Unavailable, match=str(error)) as told:
                await answer
            assert told.value.reason is reason

    asyncio.run(ask())
