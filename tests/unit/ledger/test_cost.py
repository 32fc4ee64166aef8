"""Costs: every kind of token once, at its own rate, rounded up to a micro-USD."""

import pytest

from gateway.ledger import cost
from gateway.ledger.cost import MAX_COST_MICROUSD
from gateway.ledger.prices import Band, Price, Rates, quoted
from gateway.record import Usage

EACH = Price(Rates(1_000_000, 2_000_000, 3_000_000, 5_000_000, 7_000_000, 11_000_000, 13_000_000))
DOUBLE = Rates(2_000_000, 4_000_000, 6_000_000, 10_000_000, 14_000_000, 22_000_000, 26_000_000)


@pytest.mark.parametrize(
    ("usage", "microusd"),
    [
        (Usage(), 0),
        (Usage(input_tokens=10, output_tokens=10), 10 + 20),
        (Usage(input_tokens=10, cache_read_tokens=4), 6 + 12),
        (Usage(input_tokens=10, cache_write_tokens=4), 6 + 20),
        (Usage(input_tokens=10, audio_input_tokens=4), 6 + 44),
        (Usage(input_tokens=10, cache_read_tokens=1, cache_write_tokens=2, audio_input_tokens=3), 4 + 3 + 10 + 33),
        (Usage(output_tokens=10, reasoning_tokens=4), 12 + 28),
        (Usage(output_tokens=10, audio_output_tokens=4, reasoning_tokens=6), 52 + 42),
        (Usage(input_tokens=10, cache_read_tokens=12), 36),  # contradiction: nothing is given back for it
        (Usage(input_tokens=-5, output_tokens=-5), 0),
    ],
)
def test_every_token_is_charged_once_at_its_rate(usage: Usage, microusd: int) -> None:
    assert cost.of(EACH, usage) == microusd


def test_a_published_example() -> None:
    price = quoted({"input": 2.5, "output": 10, "cache_read": 1.25})
    usage = Usage(input_tokens=1_000_000, output_tokens=100_000, cache_read_tokens=400_000)
    assert cost.of(price, usage) == 1_500_000 + 500_000 + 1_000_000  # 1.5 + 0.5 + 1 USD


@pytest.mark.parametrize(("tokens", "microusd"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (8, 2)])
def test_a_part_of_a_micro_usd_is_a_whole_one(tokens: int, microusd: int) -> None:
    assert cost.of(quoted({"input": 0.25, "output": 0}), Usage(input_tokens=tokens)) == microusd


def test_a_free_model_costs_nothing() -> None:
    free = quoted({"input": 0, "output": 0})
    assert cost.of(free, Usage(input_tokens=10**9, output_tokens=10**9)) == 0
    assert cost.at_most(free, 10**9, 10**9) == 0


def test_above_a_band_every_token_costs_the_bands_rate() -> None:
    price = Price(EACH.rates, (Band(100, DOUBLE),))
    assert cost.of(price, Usage(input_tokens=100, output_tokens=10)) == 120
    assert cost.of(price, Usage(input_tokens=101, output_tokens=10)) == 2 * 121


def test_a_request_may_have_a_price_itself() -> None:
    price = Price(EACH.rates, request_picousd=5_000_000_000)
    assert cost.of(price, Usage()) == 5_000
    assert cost.at_most(price, 0, 0) == 5_000


def test_at_most_takes_the_dearest_kind_and_sound_only_where_there_may_be_some() -> None:
    assert cost.at_most(EACH, 10, 10) == 50 + 70
    assert cost.at_most(EACH, 10, 10, audio=True) == 110 + 130


def test_at_most_knows_that_less_input_may_be_dearer() -> None:
    cheaper_above = Price(EACH.rates, (Band(100, Rates(0, 0, 0, 0, 0, 0, 0)),))
    assert cost.at_most(cheaper_above, 200, 0) == 1000
    assert cost.at_most(cheaper_above, 200, 0) >= cost.of(cheaper_above, Usage(input_tokens=100))


def test_a_cost_stays_what_the_limiter_can_count() -> None:
    dear = quoted({"input": 100_000, "output": 100_000})
    assert cost.of(dear, Usage(input_tokens=10**12)) == MAX_COST_MICROUSD
    assert cost.at_most(dear, 10**12, 0) == MAX_COST_MICROUSD
