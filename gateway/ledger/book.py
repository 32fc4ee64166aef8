"""A Book as bytes: made by the one process that can read the catalogue, carried by snapshots, read by every worker.

An `Edition` is a Book with what it was made from: the version of the package whose prices it has, and the day (UTC) on
which they are in force. Whether other prices are due is told by these two, without a look at the 2,300 prices beside
them. Bytes that are none, or that another build laid out, are no edition: then no price is published, and None says so.

Measured with genai-prices 0.2.3: 361 KB as bytes, 1.7 ms to decode and 2.2 MB of memory then; once in a worker for as
long as the prices stay the same, since a `PriceReader` gives out the list it has until the Book is another one.

Invariants: `LAYOUT` goes up whenever the bytes of a Book mean something else (a test holds it to the fields). Left
out: making an edition in a process apart, and when (`control/pricing.py`).
"""

import hashlib
from datetime import date
from typing import Final

import msgspec

from gateway.ledger.prices import Book, PriceList

LAYOUT: Final = 1


class Edition(msgspec.Struct, frozen=True, array_like=True):
    """A Book not yet decoded. `version` is of the package, `day` as in 2026-11-21."""

    layout: int
    version: str
    day: str
    book: msgspec.Raw

    def same_prices(self, other: "Edition | None") -> bool:
        """Whether both have the same Book, whatever they were made from."""
        return other is not None and bytes(self.book) == bytes(other.book)


_EDITION: Final = msgspec.msgpack.Decoder(Edition)
_BOOK: Final = msgspec.msgpack.Decoder(Book)


def bound(book: Book, version: str, day: date) -> bytes:
    """The edition of a Book, as a snapshot carries it."""
    raw = msgspec.Raw(msgspec.msgpack.encode(book))
    return msgspec.msgpack.encode(Edition(LAYOUT, version, day.isoformat(), raw))


def edition(raw: bytes) -> Edition | None:
    """What the bytes hold, None for what this build cannot read. The Book in it is not looked at."""
    try:
        found = _EDITION.decode(raw)
    except msgspec.DecodeError:  # b"" too, where there are no prices
        return None
    return found if found.layout == LAYOUT else None


def decode(raw: bytes) -> Book | None:
    """The Book, None for what this build cannot read."""
    found = edition(raw)
    try:
        return None if found is None else _BOOK.decode(found.book)
    except msgspec.DecodeError:
        return None


class PriceReader:
    """The prices of one snapshot after another: the list stays, with all it remembers, while its bytes do."""

    def __init__(self) -> None:
        self._last = b"", PriceList()

    def read(self, raw: bytes) -> PriceList:
        """The prices that a snapshot carries; those of the config alone where it carries none."""
        digest = hashlib.sha256(raw).digest()
        known, prices = self._last
        if digest != known:
            prices = PriceList(decode(raw))
            self._last = digest, prices
        return prices
