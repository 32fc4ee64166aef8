"""Rows are emptied by their names, and no others, whatever becomes of them between a look and the mutex."""

import pytest

from gateway.limiter.check import problems
from gateway.limiter.engine import Amount, Outcome
from gateway.limiter.forget import Named, forget, named
from gateway.limiter.hold import State
from gateway.limiter.layout import NAME_BYTES
from gateway.limiter.quick import QuickTable
from gateway.limiter.spec import Kind, Spec, rate, slots, window
from gateway.limiter.table import Table
from tests.fakes.limit_table import OWNER, Moment, memory, table

NOW_MS = 1_700_000_000_000
MINUTE = rate(1_000, 1_000, 60_000)
BUDGET = window(1_000, NOW_MS - 1_000, NOW_MS + 1_000)
FLIGHTS = slots(5)
LONG = "long|key=" + "x" * NAME_BYTES


@pytest.fixture(params=[Table, QuickTable])
def made(request: pytest.FixtureRequest) -> Table:
    return table(memory(), Moment(NOW_MS), kind=request.param)


def reserved(made: Table, hold: str, *takes: Amount) -> None:
    answer = made.reserve(hold, takes, owner=OWNER, lease_ms=9_000)
    assert answer.outcome is Outcome.ADMITTED


def left(made: Table, name: str, spec: Spec) -> int:
    (standing,) = made.peek([Amount(name, spec, 0)])
    return standing.level


def test_what_counts_something_is_named(made: Table) -> None:
    takes = [Amount("r|key=a", MINUTE, 5), Amount("w", BUDGET, 5), Amount("f", FLIGHTS, 1), Amount(LONG, MINUTE, 1)]
    reserved(made, "h", *takes)
    found = list(named(made))
    assert [(row.kind, row.name, row.cut) for row in found[:2]] == [
        (Kind.RATE, "r|key=a", False),
        (Kind.WINDOW, "w", False),
    ]
    (long,) = found[2:]
    assert (long.cut, len(long.name)) == (True, NAME_BYTES)
    assert long.name.startswith("long|key=xxx")


def test_what_is_forgotten_begins_anew_and_the_rest_goes_on(made: Table) -> None:
    for name, spec in (("gone", MINUTE), ("gone", BUDGET), ("kept", MINUTE)):
        made.settle(f"{name} {spec.kind}", [Amount(name, spec, 400)])
    assert forget(made, [row for row in named(made) if row.name == "gone"]) == 2
    assert [left(made, name, spec) for name, spec in (("gone", MINUTE), ("gone", BUDGET), ("kept", MINUTE))] == [
        1_000,
        1_000,
        600,
    ]
    reserved(made, "h", Amount("gone", MINUTE, 1_000), Amount("gone", BUDGET, 1_000))
    assert problems(made.rows, made.holds) == []


@pytest.mark.parametrize("spec", [MINUTE, BUDGET])
@pytest.mark.parametrize(("actual", "charged"), [(0, 0), (300, 0), (350, 50)])
def test_a_hold_from_before_charges_what_it_has_used_beyond_its_reservation(
    made: Table, spec: Spec, actual: int, charged: int
) -> None:
    reserved(made, "h", Amount("gone", spec, 300), Amount("flights", FLIGHTS, 1))
    assert forget(made, named(made)) == 1
    assert left(made, "flights", FLIGHTS) == 4
    settled = made.settle("h", [Amount("gone", spec, actual), Amount("flights", FLIGHTS, 0)])
    assert (settled.found, left(made, "gone", spec)) == (State.OPEN, 1_000 - charged)
    assert left(made, "flights", FLIGHTS) == 5
    assert problems(made.rows, made.holds) == []


def test_a_row_that_is_another_one_by_now_is_left_alone(made: Table) -> None:
    made.settle("h", [Amount("one", MINUTE, 400)])
    (row,) = named(made)
    others = [row._replace(name="other"), row._replace(kind=Kind.WINDOW), Named(200, Kind.RATE, "one", cut=False)]
    assert forget(made, others) == 0
    assert left(made, "one", MINUTE) == 600
    made.rows.pinned.clear()
    assert made.rows.give_up(made.rows.at(row.number))
    assert forget(made, [row]) == 0
    assert list(named(made)) == []
