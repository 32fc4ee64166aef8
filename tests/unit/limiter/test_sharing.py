"""A node's part of each kind of limit: together never more than the whole, unless that is not one for each."""

import pytest

from gateway.config.limits import Rule
from gateway.limiter.sharing import Shares
from gateway.limiter.spec import Spec
from tests.fakes.limits import START_MS, estimate, limits_of

RULES = (
    Rule(name="tpm", tokens=1000, every="minute", capacity=500),
    Rule(name="budget", tokens=100, every="day", budget=True),
    Rule(name="slots", in_flight=5, shadow=True),
    Rule(name="open", requests=9, every="minute", on_store_failure="open"),
)


@pytest.mark.parametrize(("nodes", "parts"), [(1, [500_000, 100, 5]), (3, [166_666, 33, 1]), (10_000, [1_000, 1, 1])])
def test_a_part_is_rounded_down_and_at_least_one_of_what_is_counted(nodes: int, parts: list[int]) -> None:
    lines = limits_of(*RULES).lines(START_MS)
    shared = Shares(nodes).of(lines, lines.takes(estimate(10)))
    assert [amount.spec.limit for _, amount in shared] == parts
    assert [(index, amount.bucket, amount.amount) for index, amount in shared] == [
        (0, "tpm", 10_000),
        (1, "budget", 10),
        (2, "slots", 1),
    ]
    assert [amount.spec.shadow for _, amount in shared] == [False, False, True]


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("limit", [1, 2, 3, 8, 999, 1_000, 12_345])
def test_all_parts_together_are_no_more_than_the_limit(nodes: int, limit: int) -> None:
    rules = (Rule(name="rate", requests=limit, every="minute"), Rule(name="slots", in_flight=limit))
    lines = limits_of(*rules, Rule(name="budget", tokens=limit, every="day", budget=True)).lines(START_MS)
    for index, part in Shares(nodes).of(lines, lines.takes(estimate(1))):
        line = lines.lines[index]
        assert nodes * part.spec.limit <= max(line.spec.limit, nodes * line.unit)
        assert part.spec.limit >= line.unit
        assert nodes * part.spec.amount <= max(line.spec.amount, nodes)


def test_a_rate_refills_by_its_part_and_a_budget_keeps_its_window() -> None:
    lines = limits_of(*RULES).lines(START_MS)
    (_, tpm), (_, budget), _ = Shares(4).of(lines, lines.takes(estimate(10)))
    assert (tpm.spec.amount, tpm.spec.period_ms) == (250_000, 60_000)
    assert (budget.spec.start_ms, budget.spec.end_ms) == (lines.lines[1].spec.start_ms, lines.lines[1].spec.end_ms)


def test_parts_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limiter.sharing._MAX_REMEMBERED", 2)
    lines, shares = limits_of(*RULES).lines(START_MS), Shares(4)
    shares.of(lines, lines.takes(estimate(10)))
    assert len(shares._known) <= 2


def test_a_part_is_one_object_as_the_engines_want_it() -> None:
    lines, shares = limits_of(*RULES).lines(START_MS), Shares(4)

    def specs() -> list[Spec]:
        return [amount.spec for _, amount in shares.of(lines, lines.takes(estimate(10)))]

    assert all(one is other for one, other in zip(specs(), specs(), strict=True))
