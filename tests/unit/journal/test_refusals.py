"""Which refusals are told one by one, and what is left of the others."""

import pytest

from gateway.journal import refusals
from gateway.journal.refusals import OTHERS, Refusals
from gateway.record import Kind, Record


def refused(second: int = 100, error: str = "rate_limited", status: int = 429, key_id: str = "k") -> Record:
    at_us = second * 1_000_000 + 7
    return Record(Kind.OUTCOME, "x", at_us, org="acme", team="t", key_id=key_id, status=status, error=error)


def test_rate_limits_are_told_up_to_the_rate_of_each_reason_and_second() -> None:
    counts = Refusals(2)
    assert [counts.counted(refused(), known=True) for _ in range(4)] == [False, False, True, True]
    assert not counts.counted(refused(error="budget_spent"), known=True)
    assert not counts.counted(refused(second=101), known=True)
    assert counts.take(101) == [
        Record(
            Kind.OUTCOME,
            "",
            100_000_000,
            org="acme",
            team="t",
            key_id="k",
            decision="refuse",
            ending="refused",
            error="rate_limited",
            action="refusals",
            subject="rate_limited",
            count=2,
        )
    ]


def test_other_refusals_are_told_much_longer() -> None:
    counts = Refusals(2)
    told = [not counts.counted(refused(error="model_denied", status=403), known=True) for _ in range(2 * OTHERS + 3)]
    assert (sum(told), told[-3:]) == (2 * OTHERS, [False, False, False])


def test_callers_nobody_knows_are_always_counted_and_not_named() -> None:
    counts = Refusals(1_000_000)
    for key_id in ("guess1", "guess2", "guess3"):
        assert counts.counted(refused(error="invalid_key", status=401, key_id=key_id), known=False)
    (row,) = counts.take(1_000)
    assert (row.count, row.org, row.team, row.key_id, row.subject) == (3, "", "", "", "invalid_key")


def test_each_key_has_its_row_and_too_many_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_ROWS", 3)
    counts = Refusals(0)
    for number in (1, 2, 3, 4, 5, 1):
        assert counts.counted(refused(key_id=f"k{number}"), known=True)
    rows = {(row.org, row.key_id): row.count for row in counts.take(101)}
    assert rows == {("acme", "k1"): 2, ("acme", "k2"): 1, ("acme", "k3"): 1, ("", ""): 2}


def test_a_second_is_given_out_once_and_when_it_is_over() -> None:
    counts = Refusals(0)
    for second in (102, 100, 101):
        counts.counted(refused(second), known=True)
    assert counts.take(100) == []
    assert [record.at_us for record in counts.take(102)] == [100_000_000, 101_000_000]
    assert [record.at_us for record in counts.take(1_000)] == [102_000_000]
    assert counts.take(1_000) == []


def test_requests_of_two_seconds_that_cross_share_no_rate_and_gain_none() -> None:
    counts = Refusals(1)
    told = [not counts.counted(refused(second), known=True) for second in (100, 101, 100, 101, 100)]
    assert told == [True, True, False, False, False]


def test_the_rate_may_change() -> None:
    counts = Refusals(0)
    counts.per_s = 1
    assert [counts.counted(refused(), known=True) for _ in range(2)] == [False, True]
