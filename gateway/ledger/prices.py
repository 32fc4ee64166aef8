"""What a model's tokens cost, and how the price of one is found.

A `Price` is what one target charges. Rates are whole picodollars a token, which is the same number as micro-USD per
million tokens, the unit published prices are exact in. Above some number of input tokens another `Band` may apply, then
to all tokens of the request (every vendor that has such tiers charges them so). A kind of token without a price of its
own costs what the kind it is part of costs: cached, written and spoken input as input, reasoning and speech as output.

A price comes from the config, whole, or else from the `Book`: the shelf of the provider that the base URL or the kind
of the account names, the first entry that matches the model, its fallback providers' shelves. Where nothing matches
there is no price, and None is the answer: what that means to a money limit is the limit's question.

Invariants: a Price is exact integers within MAX_USD_PER_MTOK, so no cost computed from one exceeds what the limiter
counts. Left out: time. A price that depends on the hour or the day is settled when the Book is made (`catalogue.py`).
"""

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final

import msgspec

MAX_USD_PER_MTOK: Final = 100_000
PICOUSD_PER_USD_MTOK: Final = 1_000_000  # one USD per million tokens, in picodollars a token
REMEMBERED: Final = 4096
_JOINS: Final = {"or": any, "and": all}
_COMPARISONS: Final[dict[str, Callable[[str, str], bool]]] = {
    "equals": str.__eq__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
    "regex": lambda name, pattern: re.search(pattern, name) is not None,
}
_COMPACT_DATE: Final = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=[-:]|\Z)")


class Rates(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Picodollars a token, by the kinds of `record.Usage`."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    audio_input: int
    audio_output: int


class Band(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Rates that apply to all tokens of a request with more than `above` input tokens."""

    above: int
    rates: Rates


class Price(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one target charges. `bands` ascend by `above`, and what none of them covers is charged by `rates`.

    `request_picousd` is charged for every request; `source` says for people where the price is from. `context_tokens`
    is the model's window, 0 where it is not known: no answer is longer, which a budget never overspent must rest on.
    """

    rates: Rates
    bands: tuple[Band, ...] = ()
    request_picousd: int = 0
    source: str = ""
    context_tokens: int = 0

    def rates_of(self, input_tokens: int) -> Rates:
        """The rates of a request with so many input tokens."""
        found = self.rates
        for band in self.bands:
            if input_tokens > band.above:
                found = band.rates
        return found


class Clause(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A test of a lower-case name: `kind` of comparison with `text`, or of `parts` ("or", "and")."""

    kind: str
    text: str = ""
    parts: tuple["Clause", ...] = ()

    def matches(self, name: str) -> bool:
        """Whether the name passes. A kind this build does not know matches nothing."""
        if self.kind in _JOINS:
            return _JOINS[self.kind](part.matches(name) for part in self.parts)
        compare = _COMPARISONS.get(self.kind)
        return compare is not None and compare(name, self.text)


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One model of a shelf; `price` None when it is sold by something other than tokens and requests."""

    match: Clause
    price: Price | None


class Shelf(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One provider's models, how its address and its name are recognised, and whose models it sells besides."""

    provider: str
    address: str  # a regular expression, matched from the start of a base URL
    name: Clause
    entries: tuple[Entry, ...]
    fallbacks: tuple[str, ...] = ()


class Book(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Published prices, as data that goes into a snapshot. `source` names the package and its version."""

    source: str
    shelves: tuple[Shelf, ...] = ()


class PriceList:
    """A Book, or none, with the answers it has given: wildcard models are named by callers, request by request."""

    def __init__(self, book: Book | None = None) -> None:
        self._book = book
        self._known: dict[tuple[str, str, str], Price | None] = {}

    def resolve(
        self,
        kind: str,
        model: str,
        override: Mapping[str, object] | None = None,
        *,
        base_url: str = "",
        context_tokens: int | None = None,
    ) -> Price | None:
        """As the function `resolve`, remembered; `context_tokens` is what the config says of the model's window."""
        found = quoted(override) if override is not None else self._published(kind, model, base_url)
        if found is None or context_tokens is None:
            return found
        return msgspec.structs.replace(found, context_tokens=context_tokens)

    def _published(self, kind: str, model: str, base_url: str) -> Price | None:
        key = (kind, model, base_url)
        if key in self._known:
            return self._known[key]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        found = self._known[key] = resolve(kind, model, None, self._book, base_url=base_url)
        return found


def resolve(
    kind: str,
    model: str,
    override: Mapping[str, object] | None = None,
    book: Book | None = None,
    *,
    base_url: str = "",
) -> Price | None:
    """The price of an upstream model at an account of that kind, None when it is not known.

    `override` is the config's own price (see `quoted`), `base_url` the account's where it is not the vendor's usual
    one. Raises ValueError for an override that is no price.
    """
    if override is not None:
        return quoted(override)
    if book is None:
        return None
    shelf = _shelf(book, kind.lower(), base_url)
    if shelf is None:
        return None
    name = model.lower()
    dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", name)  # some write gpt-x-20251211 for what is priced as gpt-x-2025-12-11
    return _find(book, shelf, name) or (_find(book, shelf, dashed) if dashed != name else None)


def quoted(usd_per_mtok: Mapping[str, object]) -> Price:
    """A price as the config says it: USD per million tokens by the names of `Rates`; None is not said.

    It replaces the published one whole. `input` and `output` must be there. Raises ValueError saying what is wrong.
    """
    known = Rates.__struct_fields__
    said = {name: rate(name, value) for name, value in usd_per_mtok.items() if name in known and value is not None}
    unknown = sorted(set(usd_per_mtok) - set(known))
    if unknown:
        raise ValueError(f"price has no `{unknown[0]}`: known are {', '.join(known)}")
    for name in ("input", "output"):
        if name not in said:
            raise ValueError(f"price needs `{name}`: USD per million tokens, 0 if it is free")
    return Price(complete(said), source="config")


def rate(name: str, usd_per_mtok: object) -> int:
    """USD per million tokens as picodollars a token, rounded up. Raises ValueError."""
    try:
        usd = Decimal(str(usd_per_mtok))
    except InvalidOperation:
        usd = Decimal("nan")
    if not usd.is_finite() or not 0 <= usd <= MAX_USD_PER_MTOK:
        raise ValueError(f"price `{name}` is {usd_per_mtok}, must be 0 to {MAX_USD_PER_MTOK} USD per million tokens")
    return int((usd * PICOUSD_PER_USD_MTOK).to_integral_value(ROUND_CEILING))


def complete(said: Mapping[str, int]) -> Rates:
    """Rates with what is not said filled in from the kind it is part of."""
    taken, given = said.get("input", 0), said.get("output", 0)
    return Rates(
        input=taken,
        output=given,
        cache_read=said.get("cache_read", taken),
        cache_write=said.get("cache_write", taken),
        reasoning=said.get("reasoning", given),
        audio_input=said.get("audio_input", taken),
        audio_output=said.get("audio_output", given),
    )


def _shelf(book: Book, kind: str, base_url: str) -> Shelf | None:
    if base_url:
        for shelf in book.shelves:
            if re.match(shelf.address, base_url):
                return shelf
    exact = (shelf for shelf in book.shelves if shelf.provider == kind)
    return next(exact, None) or next((shelf for shelf in book.shelves if shelf.name.matches(kind)), None)


def _find(book: Book, shelf: Shelf, name: str) -> Price | None:
    others = (other for wanted in shelf.fallbacks for other in book.shelves if other.provider == wanted)
    for candidate in (shelf, *others):
        for entry in candidate.entries:
            if entry.match.matches(name):
                return entry.price
    return None
