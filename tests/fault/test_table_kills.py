"""The limit table with a process killed between every two stores of everything it does.

After each death the next one to take the mutex finds a table without a problem, in which the operation has happened
wholly or not at all; and when it is done again, as a retry or a replay would, all is as if nobody had died.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from gateway.limiter.bucket import Row
from gateway.limiter.check import problems
from gateway.limiter.engine import Amount, Renewal
from gateway.limiter.hold import State
from gateway.limiter.layout import AT_ARMED, Counter, Layout
from gateway.limiter.mutex import MUTEX_WORDS
from gateway.limiter.quick import QuickTable
from gateway.limiter.spec import Kind, rate, slots, window
from gateway.limiter.sweep import KEPT_MS, sweep
from gateway.limiter.table import Table
from tests.fakes.killed_stores import killed
from tests.fakes.limit_table import Moment, memory, table

NOW_MS = 1_700_000_000_000
HOLDS = 16
LEASE_MS = 10_000
TPM, RPM = rate(1_000, 1_000, 60_000), rate(50_000, 50_000, 60_000)
USD = window(500, NOW_MS - 1_000, NOW_MS + 10**7)
FLIGHTS = slots(10)
ALL = [Amount("rpm", RPM, 1_000), Amount("tpm", TPM, 40), Amount("usd", USD, 7), Amount("flights", FLIGHTS, 1)]
USED = [Amount(take.bucket, take.spec, take.amount // 2) for take in ALL]

pytestmark = pytest.mark.slow


class Scene:
    """A table in which every bucket is known and much is going on."""

    def __init__(self, kind: type[Table], *, marks: bool) -> None:  # marks: all memory for holds has been used before
        self.moment = Moment(NOW_MS)
        self.table = table(memory(Layout(rows=32, holds=HOLDS)), self.moment, kind=kind, max_end_users=2)
        for turn in range(3 * HOLDS if marks else 2):
            self.reserve(self.table, f"past {turn}")
            self.table.settle(f"past {turn}", USED)
            self.moment.now_ms += 1_000
        self.reserve(self.table, "open")
        self.reserve(self.table, "expired", lease_ms=1)
        self.moment.now_ms += 5
        self.table.peek(ALL)
        self._words = self.table.words[MUTEX_WORDS:].tolist()
        self._now_ms = self.moment.now_ms

    @staticmethod
    def reserve(made: Table, hold: str, *, lease_ms: int = LEASE_MS) -> object:
        return made.reserve(hold, ALL, owner=7, lease_ms=lease_ms)

    def begin(self) -> None:
        """As it was at first."""
        self.moment.now_ms = self._now_ms
        for index, word in enumerate(self._words):
            self.table.words[MUTEX_WORDS + index] = word

    def picture(self) -> tuple[dict[str, Row], dict[bytes, tuple[object, ...]]]:
        """All rows that count something, and all holds that live."""
        rows, holds = self.table.rows, self.table.holds
        used = [rows.at(number) for number in range(rows.layout.rows) if rows.words[rows.at(number) // 8]]
        counted = {f"{rows.kind(at)} {rows.name(at)}": rows.read(at) for at in used if rows.read(at).used}
        live = [holds.load(number) for number, *_ in holds.in_states(State.OPEN, State.EXPIRED)]
        return counted, {held.key: (held.state, held.attempt, held.lease_ms, held.owner, held.charges) for held in live}

    def heal(self) -> None:
        """The next one takes the mutex."""
        with self.table.locked():
            assert self.table.words[AT_ARMED] == 0
            assert problems(self.table.rows, self.table.holds) == []


class Case(NamedTuple):
    work: Callable[[Table], object]
    later_ms: int = 0
    whole: bool = True  # one change, not several that may be cut between


def reserve_new(made: Table) -> object:
    return made.reserve("new", ALL, owner=9, lease_ms=LEASE_MS)


def reserve_refused(made: Table) -> object:
    return made.reserve("new", [*ALL, Amount("tpm too", TPM, 1_001)], owner=9, lease_ms=LEASE_MS)


def reserve_first_time(made: Table) -> object:
    takes = [*ALL, Amount("first", TPM, 5), Amount("r|key=k|end_user=u", TPM, 5), Amount("first flights", FLIGHTS, 1)]
    return made.reserve("new", takes, owner=9, lease_ms=LEASE_MS)


def extend(made: Table) -> object:
    takes = [Amount("target", TPM, 9), Amount("usd", USD, 9)]
    return made.reserve("open", takes, owner=7, lease_ms=LEASE_MS, attempt=1, releases=USED)


def settle(made: Table) -> object:
    return made.settle("open", USED)


def settle_expired(made: Table) -> object:
    return made.settle("expired", USED)


def settle_in_another_order(made: Table) -> object:
    return made.settle("open", USED[::-1])


def settle_unknown(made: Table) -> object:
    return made.settle("nobody", [*USED, Amount("first", TPM, 5)])


def renew(made: Table) -> object:
    return made.renew([Renewal("open", ("flights",))], lease_ms=LEASE_MS)


def renew_expired(made: Table) -> object:
    return made.renew([Renewal("expired", ("flights",))], lease_ms=LEASE_MS)


def lapse(made: Table) -> object:
    return made.peek(ALL)


def lease(made: Table) -> object:
    return made.lease("node", 1, "tpm", TPM, want=100, least=1, unused=0, lease_ms=LEASE_MS)


def sweep_dead(made: Table) -> object:
    return sweep(made, {7}.__contains__)


def sweep_old(made: Table) -> object:
    return sweep(made, set[int]().__contains__)


def give_up_row(made: Table) -> object:
    at, _ = made.rows.find("rpm", Kind.RATE)
    with made.locked():
        return at < 0 or made.rows.give_up(at)


CASES = {
    "reserve": Case(reserve_new),
    "reserve refused": Case(reserve_refused),
    "reserve buckets without rows": Case(reserve_first_time),
    "extend and release": Case(extend),
    "settle": Case(settle),
    "settle expired": Case(settle_expired),
    "settle in another order": Case(settle_in_another_order),
    "settle unknown": Case(settle_unknown),
    "renew": Case(renew),
    "renew expired": Case(renew_expired),
    "lapse": Case(lapse, later_ms=LEASE_MS),
    "lease": Case(lease),
    "sweep": Case(sweep_dead, whole=False),
    "give up holds": Case(sweep_old, later_ms=KEPT_MS, whole=False),
    "give up a row": Case(give_up_row),
}


VARIANTS: list[tuple[str, type[Table], bool]] = [(name, QuickTable, True) for name in CASES]
VARIANTS += [(name, QuickTable, False) for name in ("reserve", "reserve buckets without rows", "settle unknown")]
VARIANTS += [(name, Table, True) for name in ("reserve", "settle")]  # other cases take the long way in any table


@pytest.mark.parametrize(("name", "kind", "marks"), VARIANTS)
def test_killed_between_any_two_stores(name: str, kind: type[Table], *, marks: bool) -> None:
    case, scene = CASES[name], Scene(kind, marks=marks)
    before = scene.picture()
    scene.moment.now_ms += case.later_ms
    case.work(scene.table)
    after = scene.picture()
    died, stores = 0, None
    while stores is None:
        died += 1
        scene.begin()
        scene.moment.now_ms += case.later_ms
        stores = killed(scene.table, case.work, died)
        if case.whole:
            scene.moment.now_ms -= case.later_ms  # healing alone must not do the work
            scene.heal()
            assert scene.picture() in (before, after), f"killed before store {died}"
            scene.moment.now_ms += case.later_ms
        scene.heal()
        case.work(scene.table)
        assert scene.picture() == after, f"killed before store {died}"
        assert problems(scene.table.rows, scene.table.holds) == []
    assert died == stores + 1
    assert scene.table.count(Counter.RECOVERED) == 1


@pytest.mark.parametrize("work", [reserve_new, settle])
def test_killed_again_while_it_is_healed(work: Callable[[Table], object]) -> None:
    scene = Scene(QuickTable, marks=True)
    before = scene.picture()
    work(scene.table)
    after = scene.picture()
    died, stores = 0, None
    while stores is None:
        died += 1
        again, healed = 0, None
        while healed is None:
            again += 1
            scene.begin()
            stores = killed(scene.table, work, died)
            healed = killed(scene.table, lambda made: made.peek([]), again)
            scene.heal()
            assert scene.picture() in (before, after), f"killed before stores {died} and {again}"
        work(scene.table)
        assert scene.picture() == after
