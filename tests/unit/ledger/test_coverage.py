"""Which models an operator is told of: those the data plane would find without a price, if anything counts money."""

from pathlib import Path

import pytest

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.config.load import read_text
from gateway.config.schema import Config
from gateway.ledger.coverage import counts_money, unpriced
from gateway.ledger.prices import Book, Clause, Entry, Price, PriceList, Rates, Shelf

PRICE = Price(Rates(1, 1, 1, 1, 1, 1, 1))
SHELVES = (
    Shelf("openai", "https://api", Clause("or"), (Entry(Clause("starts_with", "known"), PRICE),)),
    Shelf("reseller", "https://resold", Clause("or"), (Entry(Clause("equals", "theirs"), PRICE),)),
)
CONFIG = """\
providers:
  a: {kind: openai, api_key: x}
  b: {kind: openai, base_url: "https://resold.example/v1", api_key: x}
models:
  known: {targets: [{provider: a, model: known-1}]}
  both: {targets: [{provider: a, model: known-1}, {provider: b, model: ours}, {provider: a, model: theirs}]}
  resold: {targets: [{provider: b, model: theirs}]}
  own: {targets: [{provider: a, model: ours}], price: {input: 0, output: 1}}
  "any/*": {targets: [{provider: a, model: "*"}]}
"""


def config(text: str = "") -> Config:
    return read_text(CONFIG + text, "f", Path("/etc"), (), {}).config


def test_models_without_a_price_are_named_with_their_targets() -> None:
    assert unpriced(config(), PriceList(Book("", SHELVES))) == ("both (b/ours, a/theirs)",)


def test_without_a_book_all_but_those_with_a_price_of_their_own() -> None:
    names = [name.partition(" ")[0] for name in unpriced(config(), PriceList())]
    assert names == ["known", "both", "resold"]


RULES = "limits: {rules: [{name: r, per: [team], %s, every: month}]}"


@pytest.mark.parametrize(
    ("text", "allowance", "counts"),
    [
        ("", None, False),
        ("", Allowance(rpm=1), False),
        ("", Allowance(usd_per_month=1), True),
        (RULES % "tokens: 5", None, False),
        (RULES % "usd: 5", None, True),
        ("teams: {search: {rpm: 5}}", None, False),
        ("teams: {search: {usd_per_month: 5}}", None, True),
    ],
)
def test_what_counts_money(text: str, allowance: Allowance | None, *, counts: bool) -> None:
    keys = [KeyRecord(bytes(32), "a"), KeyRecord(bytes(32), "b", allowance=allowance)]
    assert counts_money(config(text), keys) is counts


def test_keys_are_not_looked_through_where_a_rule_tells() -> None:
    keys = iter([KeyRecord(bytes(32), "a")])
    assert counts_money(config(RULES % "usd: 5"), keys)
    assert next(keys).id == "a"
