"""Prices: whose price a model has, and that a price that is no price is refused with its name."""

from decimal import Decimal

import msgspec
import pytest

from gateway.ledger import prices
from gateway.ledger.prices import REMEMBERED, Band, Book, Clause, Entry, Price, PriceList, Rates, Shelf

FLAT = Rates(1, 2, 1, 1, 2, 1, 2)


def price(tokens: int) -> Price:
    return Price(Rates(tokens, 0, 0, 0, 0, 0, 0))


def equals(name: str) -> Clause:
    return Clause("equals", name)


BOOK = Book(
    "a list",
    (
        Shelf(
            "acme",
            r"https://api\.acme\.example",
            Clause("contains", "acme"),
            (
                Entry(Clause("starts_with", "big-2026-01-31"), price(1)),
                Entry(equals("big"), price(2)),
                Entry(equals("sound"), None),
            ),
        ),
        Shelf(
            "reseller",
            r"https://([a-z]+\.)?reseller\.example",
            Clause("or", parts=(equals("re"), equals("resale"))),
            (Entry(equals("own"), price(3)), Entry(equals("big"), price(4))),
            ("gone", "acme"),
        ),
    ),
)


@pytest.mark.parametrize(
    ("kind", "model", "base_url", "tokens"),
    [
        ("acme", "big", "", 2),
        ("ACME", "BIG", "", 2),
        ("my-acme-account", "big", "", 2),  # recognised by the shelf's own clause
        ("reseller", "big", "", 4),  # its own price before that of a fallback
        ("resale", "big-2026-01-31-x", "", 1),  # sold by acme, found through the fallback
        ("acme", "big-20260131", "", 1),
        ("acme", "big-20261331", "", None),  # not a date
        ("acme", "bigger", "", None),
        ("acme", "sound", "", None),
        ("acme", "own", "", None),  # acme does not sell what its reseller has
        ("acme", "own", "https://eu.reseller.example/v1", 3),  # the address says more than the kind
        ("acme", "big", "http://127.0.0.1:9000/v1", 2),
        ("nobody", "big", "", None),
    ],
)
def test_whose_price_a_model_has(kind: str, model: str, base_url: str, tokens: int | None) -> None:
    found = prices.resolve(kind, model, None, BOOK, base_url=base_url)
    assert (found.rates.input if found else None) == tokens


def test_without_a_book_only_the_config_has_prices() -> None:
    assert prices.resolve("acme", "big") is None
    own = prices.resolve("acme", "big", {"input": 2.5, "output": 10})
    assert own is not None
    assert own.rates.input == 2_500_000


def test_a_price_of_the_config_replaces_the_published_one_whole() -> None:
    own = prices.resolve("acme", "big", {"input": 2.5, "output": 10, "cache_read": 1.25, "cache_write": None}, BOOK)
    assert own == Price(
        Rates(2_500_000, 10_000_000, 1_250_000, 2_500_000, 10_000_000, 2_500_000, 10_000_000), source="config"
    )


@pytest.mark.parametrize(
    ("usd", "picousd"),
    [(0, 0), (0.1, 100_000), ("0.0375", 37_500), (Decimal("0.0000001"), 1), (100_000, 10**11)],
)
def test_usd_per_million_tokens_is_picousd_per_token_rounded_up(usd: object, picousd: int) -> None:
    assert prices.rate("input", usd) == picousd


@pytest.mark.parametrize("usd", [-0.01, float("nan"), float("inf"), 100_000.01, "cheap", "", [1]])
def test_what_is_no_price_is_refused_by_name(usd: object) -> None:
    with pytest.raises(ValueError, match=r"price `cache_read` is .*, must be 0 to 100000 USD"):
        prices.quoted({"input": 1, "output": 1, "cache_read": usd})


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"input": 1}, "needs `output`"),
        ({"output": 1, "input": None}, "needs `input`"),
        ({"input": 1, "output": 1, "images": 3}, "no `images`: known are input, output, cache_read"),
    ],
)
def test_a_price_names_what_is_missing_and_what_is_unknown(said: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        prices.quoted(said)


def test_a_band_begins_above_its_number_of_tokens() -> None:
    dear, dearer = Rates(9, 9, 9, 9, 9, 9, 9), Rates(10, 9, 9, 9, 9, 9, 9)
    banded = Price(FLAT, (Band(100, dear), Band(200, dearer)))
    assert [banded.rates_of(tokens) for tokens in (0, 100, 101, 200, 201)] == [FLAT, FLAT, dear, dear, dearer]


@pytest.mark.parametrize(
    ("clause", "matching", "other"),
    [
        (equals("a"), "a", "ab"),
        (Clause("starts_with", "a"), "ab", "ba"),
        (Clause("ends_with", "a"), "ba", "ab"),
        (Clause("contains", "b"), "abc", "ac"),
        (Clause("regex", "a.c$"), "xabc", "abcx"),
        (Clause("or", parts=(equals("a"), equals("b"))), "b", "c"),
        (Clause("and", parts=(Clause("starts_with", "a"), Clause("ends_with", "c"))), "abc", "ab"),
    ],
)
def test_clauses(clause: Clause, matching: str, other: str) -> None:
    assert clause.matches(matching)
    assert not clause.matches(other)


def test_a_clause_of_a_later_build_matches_nothing() -> None:
    assert not Clause("glob", "*").matches("a")
    assert not Clause("or").matches("a")


def test_a_book_travels_as_bytes() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(BOOK), type=Book) == BOOK


def test_a_list_remembers_its_answers_and_no_more_than_it_may() -> None:
    known = PriceList(BOOK)
    first = known.resolve("acme", "big")
    assert first is known.resolve("acme", "big")
    assert known.resolve("acme", "nothing") is None
    assert known.resolve("acme", "big", {"input": 7, "output": 7}) != first
    for number in range(2 * REMEMBERED):
        known.resolve("acme", f"named-by-a-caller-{number}")
    assert len(known._known) <= REMEMBERED
    assert known.resolve("acme", "big") == first


def test_a_list_without_a_book_knows_no_price() -> None:
    assert PriceList().resolve("acme", "big") is None


def test_the_configs_word_on_the_context_takes_the_place_of_the_published_one() -> None:
    known = PriceList(BOOK)
    published, said = known.resolve("acme", "big"), known.resolve("acme", "big", context_tokens=9)
    assert published is not None
    assert said == msgspec.structs.replace(published, context_tokens=9)
    assert known.resolve("acme", "big") is published  # it is another entry's
    own = known.resolve("acme", "big", {"input": 7, "output": 7}, context_tokens=9)
    assert own is not None
    assert (own.source, own.context_tokens) == ("config", 9)
    assert known.resolve("acme", "nothing", context_tokens=9) is None
