"""The prices as published: our reading of the package is held against its own calculation, model by model."""

import math
from datetime import UTC, date, datetime

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo

from gateway.ledger import catalogue, cost, prices
from gateway.ledger.prices import Book
from gateway.record import Usage

DAY = date(2026, 11, 21)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DIGITS = 2  # micro-USD by which a price with more than twelve decimals may differ
COUNTS = [(1_000, 100, 200, 50), (150_000, 0, 0, 4_000), (300_000, 250_000, 10_000, 9_000), (900_000, 1, 2, 3)]


@pytest.fixture(scope="module")
def book() -> Book:
    return catalogue.read(DAY)


def found_by_the_package(provider: str, model: str) -> ModelInfo | None:
    try:
        return get_snapshot().find_provider_model(model, None, provider, None)[1]
    except LookupError:  # an entry that does not match its own id
        return None


def by_the_hour(prices_: object) -> bool:
    return isinstance(prices_, list) and any(hasattr(one.constraint, "start_time") for one in prices_)


def test_every_price_is_read_as_the_package_reads_it(book: Book) -> None:
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            ours, theirs = (
                prices.resolve(provider.id, model.id, None, book),
                found_by_the_package(provider.id, model.id),
            )
            if theirs is None:
                assert ours is None
            if ours is None or theirs is None or by_the_hour(theirs.prices):
                continue
            for taken, read, written, given in COUNTS:
                compared += 1
                usage = Usage(taken, given, read, written)
                said = genai_prices.Usage(
                    input_tokens=taken, output_tokens=given, cache_read_tokens=read, cache_write_tokens=written
                )
                total = theirs.calc_price(said, provider, genai_request_timestamp=NOON).total_price
                exact = math.ceil(total * 10**6)
                assert exact <= cost.of(ours, usage) <= exact + DIGITS, (provider.id, model.id, taken)
    assert compared > 5_000


def test_a_price_by_the_hour_is_never_below_any_hours(book: Book) -> None:
    compared = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            if not by_the_hour(model.prices):
                continue
            ours = prices.resolve(provider.id, model.id, None, book)
            assert ours is not None
            for hour in range(24):
                compared += 1
                said = genai_prices.Usage(input_tokens=1000, output_tokens=1000)
                at = NOON.replace(hour=hour)
                total = model.calc_price(said, provider, genai_request_timestamp=at).total_price
                assert math.ceil(total * 10**6) <= cost.of(ours, Usage(1000, 1000)), (provider.id, model.id, hour)
    assert compared >= 24


@pytest.mark.parametrize("kind", ["openai", "azure", "anthropic", "bedrock", "gemini", "vertex"])
def test_every_kind_of_provider_has_a_shelf(book: Book, kind: str) -> None:
    assert prices._shelf(book, kind, "") is not None


@pytest.mark.parametrize(
    ("kind", "model", "usd"),
    [("openai", "gpt-4o-2024-11-20", (2.5, 10)), ("anthropic", "claude-sonnet-4-5-20250929", (3, 15))],
)
def test_well_known_prices(book: Book, kind: str, model: str, usd: tuple[float, float]) -> None:
    found = prices.resolve(kind, model, None, book)
    assert found is not None
    assert (found.rates.input, found.rates.output) == (usd[0] * 1e6, usd[1] * 1e6)
