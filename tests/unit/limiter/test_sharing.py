"""A node's part of each kind of limit: never less than its share, together not much more than the whole."""

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


@pytest.mark.parametrize(("nodes", "parts"), [(1, [500_000, 100, 5]), (3, [166_667, 34, 2]), (10_000, [1_000, 1, 1])])
def test_a_part_is_rounded_up_and_at_least_one_of_what_is_counted(nodes: int, parts: list[int]) -> None:
    lines = limits_of(*RULES).lines(START_MS)
    shared = Shares(nodes).of(lines, lines.takes(estimate(10)))
    assert [amount.spec.limit for _, amount in shared] == parts
    assert [(index, amount.bucket, amount.amount) for index, amount in shared] == [
        (0, "tpm", 10_000),
        (1, "budget", 10),
        (2, "slots", 1),
    ]
    assert [amount.spec.shadow for _, amount in shared] == [False, False, True]


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
