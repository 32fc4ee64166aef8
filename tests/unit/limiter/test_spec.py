"""Specs: what is in bounds can be made, one step outside cannot, and the bounds keep every product below 2^53."""

from collections.abc import Callable

import pytest

from gateway.limiter.spec import (
    EXACT,
    MAX_AMOUNT,
    MAX_LEASE_MS,
    MAX_PERIOD_MS,
    MAX_RATE_USED,
    MAX_SLOTS,
    MAX_WALL_MS,
    MAX_WINDOW_USED,
    MIN_PERIOD_MS,
    Kind,
    Spec,
    prove,
    prove_amount,
    prove_lease,
    rate,
    slots,
    window,
)


@pytest.mark.parametrize(
    "spec",
    [
        rate(0, 1, MIN_PERIOD_MS),
        rate(MAX_AMOUNT, 1, MAX_PERIOD_MS),
        rate(1, MAX_AMOUNT, MIN_PERIOD_MS),
        rate(MAX_AMOUNT, MAX_AMOUNT, MAX_PERIOD_MS),
        window(0, 1, 2),
        window(MAX_AMOUNT, MAX_WALL_MS - 1, MAX_WALL_MS),
        slots(0),
        slots(MAX_SLOTS),
    ],
)
def test_the_bounds_themselves_are_allowed(spec: Spec) -> None:
    prove(spec)
    assert not spec.shadow


@pytest.mark.parametrize(
    ("make", "arguments", "bound"),
    [
        (rate, (-1, 1, 1000), "limit is -1"),
        (rate, (MAX_AMOUNT + 1, 1, 1000), f"limit is {MAX_AMOUNT + 1}, must be 0 to {MAX_AMOUNT}"),
        (rate, (1, 0, 1000), "amount is 0.*set the limit to 0"),
        (rate, (1, MAX_AMOUNT + 1, 1000), "amount is"),
        (rate, (1, 1, MIN_PERIOD_MS - 1), "period_ms is 999"),
        (rate, (1, 1, MAX_PERIOD_MS + 1), "period_ms is.*budget window"),
        (window, (-1, 1, 2), "limit is -1"),
        (window, (MAX_AMOUNT + 1, 1, 2), "limit is"),
        (window, (1, 0, 2), "start_ms is 0"),
        (window, (1, 5, 5), "end_ms is 5, must be 6"),
        (window, (1, 5, MAX_WALL_MS + 1), "end_ms is"),
        (slots, (-1,), "limit is -1"),
        (slots, (MAX_SLOTS + 1,), "limit is 1000001, must be 0 to 1000000 holds in flight"),
    ],
)
def test_one_step_outside_is_refused_by_name(make: Callable[..., Spec], arguments: tuple[int, ...], bound: str) -> None:
    with pytest.raises(ValueError, match=bound):
        make(*arguments)


def test_a_spec_cannot_be_made_around_the_proof() -> None:
    with pytest.raises(ValueError, match="period_ms is 0"):
        Spec(Kind.RATE, 1, 1, 0)


def test_shadow_is_carried() -> None:
    assert rate(1, 1, 1000, shadow=True).shadow
    assert window(1, 1, 2, shadow=True).shadow
    assert slots(1, shadow=True).shadow


def test_amounts_and_leases_have_bounds_too() -> None:
    assert prove_amount(0) == 0
    assert prove_amount(MAX_AMOUNT) == MAX_AMOUNT
    assert prove_lease(MAX_LEASE_MS) == MAX_LEASE_MS
    for amount in (-1, MAX_AMOUNT + 1):
        with pytest.raises(ValueError, match="amount is"):
            prove_amount(amount)
    for lease_ms in (0, MAX_LEASE_MS + 1):
        with pytest.raises(ValueError, match="lease_ms is"):
            prove_lease(lease_ms)


def test_the_proof_of_the_module_head_adds_up() -> None:
    half, eleven = 2**16, 2**11
    assert MAX_PERIOD_MS < 2**32
    assert MAX_AMOUNT < 2**40
    assert MAX_RATE_USED + MAX_AMOUNT < EXACT
    assert (2**32 - 1) * half + (2**32 - 1) * half + 2**32 < EXACT
    assert (2**40 - 1) * eleven + (2**40 - 1) * eleven < EXACT
    assert MAX_WINDOW_USED + MAX_AMOUNT < EXACT
    assert MAX_WALL_MS < EXACT
