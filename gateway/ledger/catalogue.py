"""The published prices of the package genai-prices, read once into a `Book`.

The package is an extra (`pip install 'sluice-gateway[prices]'`) and is imported only where a Book is made, which is a
process of its own (`control/pricing.py`): it brings pydantic and an HTTP client with it, 0.2 to 0.5 s and 32 MB, and no
worker needs any of that, since a Book is plain data. Nothing is fetched: the prices are those of the installed version.
As a program, `python -m gateway.ledger.catalogue DAY VERSION`, this module writes them to its standard output as an
edition (`book.py`) of that day and version.

What a Price cannot hold is settled here, never in the caller's favour. Of prices that begin on a day, the one in force
on the given day is taken. Of prices that depend on the hour, the dearest rate of each kind. Not read: what a response
does not count (searches, images, storage, audio by the hour) and rates of service tiers, which the caller chooses by
the request. A model that is sold only by such units has no price; one that is listed without any is free.

Invariant: what is read through here is the package's public structure (providers, models, clauses, prices), by
attribute; a test holds this reading against the package's own calculation.
"""

import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any, Final

from gateway.ledger.book import bound
from gateway.ledger.prices import Band, Book, Clause, Entry, Price, Rates, Shelf, complete, rate

PACKAGE: Final = "genai_prices"
EXTRA: Final = "prices"

_KINDS: Final[dict[str, tuple[str, ...]]] = {  # ours to theirs; the first that is there
    "input": ("input_mtok", "input_text_mtok"),
    "output": ("output_mtok", "output_text_mtok", "output_image_mtok"),
    "cache_read": ("cache_read_mtok",),
    "cache_write": ("cache_write_mtok",),
    "reasoning": ("output_reasoning_mtok",),
    "audio_input": ("input_audio_mtok",),
    "audio_output": ("output_audio_mtok",),
}
_REQUESTS: Final = "requests_kcount"
_REQUESTS_PER_KCOUNT: Final = 1000
_PICO_PER_USD: Final = 10**12
_COMPARISONS: Final = ("equals", "starts_with", "ends_with", "contains", "regex")
_NEVER: Final = Clause("or")


class CatalogueUnusable(Exception):
    """The package with the prices is not installed, or not as this build knows it; the message says what to do."""


def main(arguments: Sequence[str]) -> int:
    """Write the edition of a day and a version; 1 and the reason where there is none."""
    day = date.fromisoformat(arguments[0])
    try:
        book = read(day)
    except CatalogueUnusable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.buffer.write(bound(book, arguments[1], day))
    return 0


def read(day: date) -> Book:
    """The prices in force on that day (UTC). Raises CatalogueUnusable."""
    try:
        package = importlib.import_module(PACKAGE)
        snapshot = importlib.import_module(f"{PACKAGE}.data_snapshot").get_snapshot()
    except ModuleNotFoundError as error:
        raise CatalogueUnusable(
            f"the prices of models come from the package genai-prices, and {error.name} is not installed:"
            f" pip install 'sluice-gateway[{EXTRA}]', or give the models a `price` of their own"
        ) from None
    source = f"genai-prices {package.__version__}"
    try:
        shelves = tuple(_shelf(provider, day, source) for provider in snapshot.providers)
    except (AttributeError, TypeError, LookupError) as error:
        raise CatalogueUnusable(
            f"the prices of {source} are not laid out as this build reads them ({error}): install another version of"
            " genai-prices, or give the models a `price` of their own"
        ) from error
    if not any(shelf.entries for shelf in shelves):
        raise CatalogueUnusable(f"{source} lists no model: install another version of genai-prices")
    return Book(source, shelves)


def _shelf(provider: Any, day: date, source: str) -> Shelf:  # noqa: ANN401 - the package is not there to be typed
    entries = (Entry(_clause(model.match), _priced(provider, model, day, source)) for model in provider.models)
    name = _clause(provider.provider_match) if provider.provider_match is not None else _NEVER
    fallbacks = tuple(provider.fallback_model_providers or ())
    return Shelf(provider.id, provider.api_pattern, name, tuple(entries), fallbacks)


def _clause(match: Any) -> Clause:  # noqa: ANN401 - as above
    for kind in _COMPARISONS:
        text = getattr(match, kind, None)
        if text is not None:
            return Clause(kind, text if kind == "regex" else text.lower())
    for kind in ("or", "and"):
        parts = getattr(match, f"{kind}_", None)
        if parts is not None:
            return Clause(kind, parts=tuple(_clause(part) for part in parts))
    return _NEVER


def _priced(provider: Any, model: Any, day: date, source: str) -> Price | None:  # noqa: ANN401 - as above
    try:
        return _price(model.prices, day, f"{source}: {provider.id}/{model.id}", model.context_window or 0)
    except ValueError:  # a number that is no price: this one model has none
        return None


def _price(prices: Any, day: date, source: str, context_tokens: int) -> Price | None:  # noqa: ANN401 - as above
    candidates = [_said(one) for one in _in_force(prices, day)]
    units = {unit for candidate in candidates for unit in candidate}
    ours = {unit for theirs in _KINDS.values() for unit in theirs} | {_REQUESTS}
    if units and not units & ours:
        return None
    starts = sorted({tier.start for said in candidates for value in said.values() for tier in _tiers(value)})
    requests = max((_at(said[_REQUESTS], 0) for said in candidates if _REQUESTS in said), default=0)
    return Price(
        rates=_dearest(candidates, 0),
        bands=tuple(Band(start, _dearest(candidates, start + 1)) for start in starts),
        request_picousd=-(-int(requests * _PICO_PER_USD) // _REQUESTS_PER_KCOUNT),
        source=source,
        context_tokens=context_tokens,
    )


def _in_force(prices: Any, day: date) -> Iterator[Any]:  # noqa: ANN401 - as above
    """The price of that day, and those of some hours of the day."""
    if not isinstance(prices, list):
        yield prices
        return
    if not prices:
        return
    standard = prices[0].prices
    for conditional in prices:
        constraint = conditional.constraint
        if hasattr(constraint, "start_time"):
            yield conditional.prices
        elif constraint is None or constraint.start_date <= day:
            standard = conditional.prices
    yield standard


def _said(prices: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Units with a price, by their names."""
    return {unit: value for unit, value in vars(prices).items() if value is not None and not unit.startswith("_")}


def _dearest(candidates: Iterable[dict[str, Any]], input_tokens: int) -> Rates:
    rates = [_rates(said, input_tokens) for said in candidates]
    each = (max((getattr(one, kind) for one in rates), default=0) for kind in Rates.__struct_fields__)
    return Rates(*each)


def _rates(said: dict[str, Any], input_tokens: int) -> Rates:
    known: dict[str, int] = {}
    for kind, units in _KINDS.items():
        unit = next((unit for unit in units if unit in said), None)
        if unit is not None:
            known[kind] = rate(unit, _at(said[unit], input_tokens))
    return complete(known)


def _at(value: Any, input_tokens: int) -> Any:  # noqa: ANN401 - as above
    """A price, or the one of its tiers that so many input tokens are in."""
    found = getattr(value, "base", value)
    for tier in _tiers(value):
        if input_tokens > tier.start:
            found = tier.price
    return found


def _tiers(value: Any) -> Any:  # noqa: ANN401 - as above
    return getattr(value, "tiers", ())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
