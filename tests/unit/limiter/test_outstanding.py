"""What is reserved and not settled yet, counted from the holds of a table that others use."""

import pytest

from gateway.limiter import outstanding as module
from gateway.limiter.engine import Amount, Outcome
from gateway.limiter.outstanding import Outstanding, outstanding
from gateway.limiter.spec import rate, slots, window
from gateway.limiter.table import Table
from tests.fakes.limit_table import OWNER, Moment, memory, table

RATE = rate(1_000, 1_000, 60_000)
SLOTS = slots(5)
DAY = window(1_000, 1, 10**9)
TAKES = [Amount("tpm|key=a", RATE, 100), Amount("slots", SLOTS, 1), Amount("money", DAY, 30)]
BUCKETS = [(take.bucket, take.spec) for take in TAKES]


@pytest.fixture
def moment() -> Moment:
    return Moment(1_000)


@pytest.fixture
def limits(moment: Moment) -> Table:
    return table(memory(), moment)


def reserve(limits: Table, hold: str, lease_ms: int = 1_000) -> None:
    assert limits.reserve(hold, TAKES, owner=OWNER, lease_ms=lease_ms).outcome is Outcome.ADMITTED


def test_open_holds_are_reserved_and_expired_ones_estimated(limits: Table, moment: Moment) -> None:
    reserve(limits, "first", 10)
    reserve(limits, "second")
    reserve(limits, "third")
    limits.settle("third", TAKES)
    assert outstanding(limits, BUCKETS) == [Outstanding(200, 0), Outstanding(2, 0), Outstanding(60, 0)]
    moment.now_ms += 20
    limits.peek(TAKES)  # the lease of the first has ended
    assert outstanding(limits, BUCKETS) == [Outstanding(100, 100), Outstanding(1, 0), Outstanding(30, 30)]
    limits.settle("first", TAKES)
    limits.settle("second", TAKES)
    assert outstanding(limits, BUCKETS) == [Outstanding(0, 0)] * 3


def test_other_buckets_and_other_windows_are_not_counted(limits: Table) -> None:
    reserve(limits, "h")
    later = window(1_000, 2, 10**9)
    others = [("tpm|key=b", RATE), ("tpm|key=a", DAY), ("money", later)]
    assert outstanding(limits, others) == [Outstanding(0, 0)] * 3


def test_more_holds_than_are_looked_at_are_not_known(limits: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HOLDS", 2)
    for hold in ("a", "b"):
        reserve(limits, hold)
    assert outstanding(limits, BUCKETS) is not None
    reserve(limits, "c")
    assert outstanding(limits, BUCKETS) is None
