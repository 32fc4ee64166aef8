"""A Book as bytes: what was bound is read again, what another build bound is none, and the same bytes are read once."""

from datetime import date

import msgspec
import pytest

from gateway.ledger import book as module
from gateway.ledger.book import LAYOUT, PriceReader, bound, decode, edition
from gateway.ledger.prices import Band, Book, Clause, Entry, Price, Rates, Shelf

DAY = date(2026, 11, 21)
RATES = Rates(1, 2, 3, 4, 5, 6, 7)
PRICE = Price(RATES, (Band(200_000, RATES),), 8, "a list: acme/m", 128_000)
SHELF = Shelf("acme", "https://acme", Clause("or", parts=(Clause("equals", "a"),)), (Entry(Clause(""), None),), ("b",))
BOOK = Book("a list", (SHELF, Shelf("other", "", Clause("equals", "x"), (Entry(Clause("equals", "m"), PRICE),))))


def test_what_was_bound_is_read_again() -> None:
    raw = bound(BOOK, "1.2.3", DAY)
    assert decode(raw) == BOOK
    found = edition(raw)
    assert found is not None
    assert (found.version, found.day) == ("1.2.3", "2026-11-21")


@pytest.mark.parametrize("damage", [b"", b"\x00", b"not an edition", bound(BOOK, "1", DAY)[:-1]])
def test_what_is_no_edition_has_no_prices(damage: bytes) -> None:
    assert edition(damage) is None
    assert decode(damage) is None


def test_an_edition_of_another_layout_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = bound(BOOK, "1.2.3", DAY)
    monkeypatch.setattr(module, "LAYOUT", LAYOUT + 1)
    assert edition(raw) is None
    assert decode(raw) is None


def test_a_book_that_is_none_is_found_out_when_it_is_opened() -> None:
    raw = msgspec.msgpack.encode([LAYOUT, "1.2.3", "2026-11-21", ["a list", "no shelves"]])
    assert edition(raw) is not None
    assert decode(raw) is None


def test_the_layout_is_of_these_fields() -> None:
    """Whoever changes a field raises LAYOUT: a build would take the other's numbers for its own."""
    fields = {kind.__name__: kind.__struct_fields__ for kind in (Book, Shelf, Entry, Clause, Price, Band, Rates)}
    assert LAYOUT == 1
    assert fields == {
        "Book": ("source", "shelves"),
        "Shelf": ("provider", "address", "name", "entries", "fallbacks"),
        "Entry": ("match", "price"),
        "Clause": ("kind", "text", "parts"),
        "Price": ("rates", "bands", "request_picousd", "source", "context_tokens"),
        "Band": ("above", "rates"),
        "Rates": ("input", "output", "cache_read", "cache_write", "reasoning", "audio_input", "audio_output"),
    }


def test_the_same_prices_on_another_day() -> None:
    first, second = edition(bound(BOOK, "1", DAY)), edition(bound(BOOK, "2", date(2026, 11, 22)))
    other = edition(bound(Book("a list"), "1", DAY))
    assert first is not None
    assert first.same_prices(second)
    assert not first.same_prices(other)
    assert not first.same_prices(None)


def test_a_list_is_kept_while_the_prices_stay() -> None:
    reader = PriceReader()
    none = reader.read(b"")
    assert none.resolve("other", "m") is None
    assert reader.read(b"") is none
    prices = reader.read(bound(BOOK, "1", DAY))
    assert prices.resolve("other", "m") == PRICE
    assert reader.read(bound(BOOK, "1", DAY)) is prices
    assert reader.read(b"").resolve("other", "m") is None
