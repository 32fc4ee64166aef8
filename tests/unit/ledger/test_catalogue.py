"""Reading the published prices: against a stand-in of the package's structure, so that each rule is seen alone."""

import sys
from datetime import date, time
from decimal import Decimal
from types import ModuleType, SimpleNamespace

import pytest

from gateway.ledger import catalogue, prices
from gateway.ledger.book import decode, edition
from gateway.ledger.catalogue import PACKAGE, CatalogueUnusable
from gateway.ledger.prices import Band, Clause, Price, Rates

DAY = date(2026, 11, 21)
WINDOW = 128_000


class Clauses(SimpleNamespace):
    """A clause of the package: one attribute, named after its comparison."""


def usd(**units: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{unit: value if hasattr(value, "base") else Decimal(str(value)) for unit, value in units.items()}
    )


def tiered(base: str, *tiers: tuple[int, str]) -> SimpleNamespace:
    return SimpleNamespace(
        base=Decimal(base), tiers=[SimpleNamespace(start=start, price=Decimal(price)) for start, price in tiers]
    )


def from_day(day: date, units: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(constraint=SimpleNamespace(start_date=day), prices=units)


def always(units: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(constraint=None, prices=units)


def at_night(units: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(constraint=SimpleNamespace(start_time=time(0), end_time=time(6)), prices=units)


def model(name: str, priced: object) -> SimpleNamespace:
    return SimpleNamespace(id=name, match=Clauses(equals=name.upper()), prices=priced, context_window=WINDOW)


def provider(*models: SimpleNamespace, **said: object) -> SimpleNamespace:
    settings = {"id": "acme", "api_pattern": r"https://acme\.example", "provider_match": None}
    return SimpleNamespace(**{**settings, "fallback_model_providers": None, **said, "models": list(models)})


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """The package's providers, to be filled by a test."""
    providers: list[SimpleNamespace] = []
    top, data = ModuleType(PACKAGE), ModuleType(f"{PACKAGE}.data_snapshot")
    top.__dict__["__version__"] = "9.8.7"
    data.__dict__["get_snapshot"] = lambda: SimpleNamespace(providers=providers)
    monkeypatch.setitem(sys.modules, PACKAGE, top)
    monkeypatch.setitem(sys.modules, f"{PACKAGE}.data_snapshot", data)
    return providers


def only_price(package: list[SimpleNamespace], priced: object) -> Price | None:
    package.append(provider(model("m", priced)))
    return catalogue.read(DAY).shelves[0].entries[0].price


def test_prices_of_tokens(package: list[SimpleNamespace]) -> None:
    found = only_price(
        package,
        usd(input_mtok="2.5", output_mtok=10, cache_read_mtok="1.25", input_audio_mtok=40, output_reasoning_mtok=12),
    )
    assert found == Price(
        Rates(2_500_000, 10_000_000, 1_250_000, 2_500_000, 12_000_000, 40_000_000, 10_000_000),
        source="genai-prices 9.8.7: acme/m",
        context_tokens=WINDOW,
    )


def test_tiers_become_bands_that_hold_every_rate(package: list[SimpleNamespace]) -> None:
    found = only_price(package, usd(input_mtok=tiered("1", (100, "2"), (500, "3")), output_mtok=4))
    assert found is not None
    assert found.rates == Rates(1_000_000, 4_000_000, 1_000_000, 1_000_000, 4_000_000, 1_000_000, 4_000_000)
    assert [(band.above, band.rates.input, band.rates.output) for band in found.bands] == [
        (100, 2_000_000, 4_000_000),
        (500, 3_000_000, 4_000_000),
    ]


def test_tiers_that_begin_apart_are_kept_apart(package: list[SimpleNamespace]) -> None:
    found = only_price(package, usd(input_mtok=tiered("1", (100, "2")), output_mtok=tiered("4", (50, "8"))))
    assert found is not None
    assert [(band.above, band.rates.input, band.rates.output) for band in found.bands] == [
        (50, 1_000_000, 8_000_000),
        (100, 2_000_000, 8_000_000),
    ]
    assert all(isinstance(band, Band) for band in found.bands)


@pytest.mark.parametrize(
    ("priced", "input_rate"),
    [
        ([always(usd(input_mtok=1)), from_day(DAY, usd(input_mtok=2))], 2_000_000),
        ([always(usd(input_mtok=1)), from_day(date(2026, 11, 22), usd(input_mtok=2))], 1_000_000),
        ([from_day(date(2027, 1, 1), usd(input_mtok=3))], 3_000_000),  # the package: none in force means the first
        ([always(usd(input_mtok=1)), at_night(usd(input_mtok="0.5"))], 1_000_000),
        ([always(usd(input_mtok=1)), at_night(usd(input_mtok=5)), from_day(DAY, usd(input_mtok=2))], 5_000_000),
    ],
)
def test_of_several_prices_the_one_in_force_and_the_dearest_hour(
    package: list[SimpleNamespace], priced: object, input_rate: int
) -> None:
    found = only_price(package, priced)
    assert found is not None
    assert found.rates.input == input_rate


def test_a_price_for_every_request(package: list[SimpleNamespace]) -> None:
    found = only_price(package, usd(requests_kcount=5))
    assert found is not None
    assert found.request_picousd == 5_000_000_000
    assert found.rates == Rates(0, 0, 0, 0, 0, 0, 0)


def test_what_is_sold_by_the_hour_has_no_price_here(package: list[SimpleNamespace]) -> None:
    assert only_price(package, usd(audio_hours="0.36")) is None


@pytest.mark.parametrize("priced", [usd(), []])
def test_what_is_listed_without_a_price_is_free(package: list[SimpleNamespace], priced: object) -> None:
    found = only_price(package, priced)
    assert found is not None
    assert found.rates == Rates(0, 0, 0, 0, 0, 0, 0)


def test_how_providers_and_models_are_recognised(package: list[SimpleNamespace]) -> None:
    nested = Clauses(or_=[Clauses(starts_with="A"), Clauses(and_=[Clauses(ends_with="B"), Clauses(contains="C")])])
    odd = SimpleNamespace(id="odd", match=Clauses(sounds_like="m"), prices=usd(), context_window=None)
    regex = SimpleNamespace(id="r", match=Clauses(regex="^M[0-9]$"), prices=usd(), context_window=None)
    package.append(provider(model("M", usd()), odd, regex, provider_match=nested, fallback_model_providers=["other"]))
    shelf = catalogue.read(DAY).shelves[0]
    assert shelf.name == Clause(
        "or", "", (Clause("starts_with", "a"), Clause("and", "", (Clause("ends_with", "b"), Clause("contains", "c"))))
    )
    assert [entry.match for entry in shelf.entries] == [
        Clause("equals", "m"),
        Clause("or"),  # a comparison we do not know: never
        Clause("regex", "^M[0-9]$"),
    ]
    assert shelf.fallbacks == ("other",)


def test_a_book_read_is_a_book_to_resolve_with(package: list[SimpleNamespace]) -> None:
    package.append(provider(model("m", usd(input_mtok=1, output_mtok=2))))
    found = prices.resolve("acme", "M", None, catalogue.read(DAY))
    assert found is not None
    assert found.rates.output == 2_000_000


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(
        CatalogueUnusable, match=r"pip install 'sluice-gateway\[prices\]', or give the models a `price`"
    ):
        catalogue.read(DAY)


def test_a_number_that_is_no_price_is_the_models_own_trouble(package: list[SimpleNamespace]) -> None:
    package.append(provider(model("odd", usd(input_mtok=-1)), model("m", usd(input_mtok=1))))
    odd, good = catalogue.read(DAY).shelves[0].entries
    assert odd.price is None
    assert good.price is not None


@pytest.mark.parametrize("broken", [SimpleNamespace(id="acme"), provider(SimpleNamespace(id="m"))])
def test_another_layout_is_refused_with_its_version(package: list[SimpleNamespace], broken: SimpleNamespace) -> None:
    package.append(broken)
    with pytest.raises(CatalogueUnusable, match=r"genai-prices 9\.8\.7 are not laid out .*: install another version"):
        catalogue.read(DAY)


def test_a_package_without_models_is_no_price_list(package: list[SimpleNamespace]) -> None:
    package.append(provider())
    with pytest.raises(CatalogueUnusable, match=r"genai-prices 9\.8\.7 lists no model: install another version"):
        catalogue.read(DAY)


def test_as_a_program_it_writes_the_edition_of_that_day_and_version(
    package: list[SimpleNamespace], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    package.append(provider(model("m", usd(input_mtok=1))))
    assert catalogue.main(["2026-11-21", "9.8.7"]) == 0
    raw = capsysbinary.readouterr().out
    found = edition(raw)
    assert found is not None
    assert (found.version, found.day) == ("9.8.7", "2026-11-21")
    assert decode(raw) == catalogue.read(DAY)


def test_as_a_program_it_says_why_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    assert catalogue.main(["2026-11-21", "9.8.7"]) == 1
    said = capsysbinary.readouterr()
    assert said.out == b""
    assert said.err.endswith(b"or give the models a `price` of their own\n")
