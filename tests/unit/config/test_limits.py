"""What is said of limits as values: defaults that follow from other settings."""

import pytest
from msgspec import structs

from gateway.config.limits import MAX_USD_PER_MTOK, RESOURCES, SHORT_FORMS, Allowance, Limits, Prices, Rule
from gateway.config.secrets import Secret
from gateway.ledger import prices


def test_the_short_forms_are_the_settings_of_an_allowance() -> None:
    assert SHORT_FORMS == ("rpm", "tpm", "max_in_flight", "usd_per_month")
    assert Allowance(tpm=5, usd_per_month=0.5).limits == ("tpm", "usd_per_month")
    assert Allowance().limits == ()


@pytest.mark.parametrize(
    ("rule", "is_budget"),
    [
        (Rule(name="r", tokens=1, every="day"), False),
        (Rule(name="r", tokens=1, every="day", budget=True), True),
        (Rule(name="r", usd=1, every="day"), True),
        (Rule(name="r", usd=1, every="day", budget=False), False),
    ],
)
def test_money_is_a_budget_unless_it_says_otherwise(rule: Rule, is_budget: bool) -> None:
    assert rule.is_budget is is_budget


@pytest.mark.parametrize("name", RESOURCES)
def test_a_rule_tells_which_resource_it_limits(name: str) -> None:
    assert structs.replace(Rule(name="r"), **{name: 1}).resources == (name,)
    assert Rule(name="r").resources == ()


def test_usage_is_counted_here_unless_a_store_is_named() -> None:
    assert Limits().store_url is None
    assert Limits(store=Secret("embedded")).store_url is None
    url = Limits(store=Secret("redis://h")).store_url
    assert url is not None
    assert url.reveal() == "redis://h"


def test_prices_are_what_the_ledger_quotes() -> None:
    assert Prices.__struct_fields__ == prices.Rates.__struct_fields__
    assert prices.MAX_USD_PER_MTOK == MAX_USD_PER_MTOK
    quoted = prices.quoted(structs.asdict(Prices(input=2.5, output=10, cache_read=1.25)))
    assert (quoted.rates.input, quoted.rates.cache_read, quoted.rates.reasoning) == (2_500_000, 1_250_000, 10_000_000)
