"""Prices follow the installed package and the day, are never replaced by none, and what is wrong with them is said."""

import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path

import pytest

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.config.load import read_text
from gateway.control import pricing
from gateway.control.pricing import PricesUnreadable, Pricing, at_start, installed, make, named, unpriced_warning
from gateway.ledger.book import bound, decode, edition
from gateway.ledger.prices import Book, PriceList

DAY, NEXT = date(2026, 11, 21), date(2026, 11, 22)
OLD = bound(Book("old"), "1.0", DAY)


class Package:
    """What is installed, by the day, and what reading it gives."""

    def __init__(self) -> None:
        self.version = "1.0"
        self.day = DAY
        self.source = "old"
        self.problem = ""
        self.read = 0

    def make(self, version: str, day: date) -> bytes:
        self.read += 1
        if self.problem:
            raise PricesUnreadable(self.problem)
        return bound(Book(self.source), version, day)


@pytest.fixture
def package() -> Package:
    return Package()


@pytest.fixture
def made(package: Package, caplog: pytest.LogCaptureFixture) -> Pricing:
    caplog.set_level(logging.INFO)
    return Pricing(package.make, lambda: package.version, lambda: package.day)


def test_prices_of_today_and_the_installed_version_stay(made: Pricing, package: Package) -> None:
    assert made.renewed(OLD) is OLD
    assert package.read == 0


def test_a_node_without_prices_gets_them(made: Pricing, package: Package) -> None:
    assert made.renewed(b"") == OLD
    assert package.read == 1


def test_a_day_that_changes_no_price_is_read_once_and_changes_nothing(made: Pricing, package: Package) -> None:
    package.day = NEXT
    assert made.renewed(OLD) is OLD
    assert made.renewed(OLD) is OLD
    assert package.read == 1


@pytest.mark.parametrize(("version", "day"), [("1.0", NEXT), ("2.0", DAY), ("0.9", DAY)])
def test_other_prices_of_another_day_or_version_come_in_force(
    made: Pricing, package: Package, version: str, day: date
) -> None:
    package.version, package.day, package.source = version, day, "new"
    found = made.renewed(OLD)
    assert found == bound(Book("new"), version, day)
    assert made.renewed(OLD) == found  # not published yet: a full disk, say
    assert package.read == 1
    assert made.renewed(found) is found


def test_what_another_build_laid_out_is_made_again(made: Pricing) -> None:
    assert made.renewed(b"of another build") == OLD


def test_a_package_that_has_gone_leaves_its_prices_in_force(
    made: Pricing, package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    package.version = ""
    assert made.renewed(OLD) is OLD
    assert made.renewed(OLD) is OLD
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == (
        "genai-prices is not installed any more (install 'sluice-gateway[prices]'); "
        "the prices of genai-prices 1.0 on 2026-11-21 stay in force"
    )


def test_a_node_that_never_had_the_package_hears_of_it_quietly(
    made: Pricing, package: Package, caplog: pytest.LogCaptureFixture
) -> None:
    package.version = ""
    assert made.renewed(b"") == b""
    assert package.read == 0
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (
            logging.INFO,
            "no published prices: genai-prices is not installed (install 'sluice-gateway[prices]' to have them)",
        )
    ]


@pytest.mark.parametrize(
    ("kept", "then"),
    [
        (OLD, "the prices of genai-prices 1.0 on 2026-11-21 stay in force"),
        (b"", "until they can be, only models with a `price` in the config have one"),
    ],
)
def test_what_cannot_be_read_is_said_once_and_tried_again(
    made: Pricing, package: Package, caplog: pytest.LogCaptureFixture, kept: bytes, then: str
) -> None:
    package.version, package.problem = "2.0", "install another version"
    said = f"the prices of genai-prices 2.0 cannot be read: install another version; {then}"
    assert [made.renewed(kept) for _ in range(2)] == [kept] * 2
    assert (package.read, caplog.messages) == (2, [said])
    assert made.asked(kept) == kept  # an operator reloads
    assert caplog.messages == [said, said]
    package.problem, package.source = "", "new"
    assert made.renewed(kept) == bound(Book("new"), "2.0", DAY)


def test_a_start_keeps_what_is_there_however_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "Pricing", lambda: pytest.fail("looked for others"))
    assert at_start(OLD) is OLD


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which a package may be installed, before all others, here and in children."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "genai_prices"]:
        del sys.modules[name]


def install(directory: Path, version: str, code: str) -> None:
    """The package by its name and version, with this code in it."""
    (directory / "genai_prices").mkdir(exist_ok=True)
    (directory / "genai_prices" / "__init__.py").write_text(f"__version__ = {version!r}\n{code}")
    info = directory / "genai_prices-0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: genai-prices\nVersion: {version}\n")


def test_the_first_prices_of_a_node_are_those_of_the_installed_package(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    raw = at_start(b"")
    assert caplog.messages == [f"{named(raw)} come in force"]
    found, book = edition(raw), decode(raw)
    assert found is not None
    assert found.version == installed() == metadata.version("genai-prices")
    assert abs(datetime.now(UTC).date() - date.fromisoformat(found.day)).days <= 1
    assert book is not None
    assert book.source == f"genai-prices {found.version}"


def test_an_installation_is_noticed_while_the_process_runs(directory: Path) -> None:
    before = installed()
    install(directory, "99.1", "")
    assert installed() == "99.1" != before


def test_a_package_that_is_not_there_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "PACKAGE", "surely-not-installed")
    assert installed() == ""


def test_an_installation_that_was_cut_short_is_none(directory: Path) -> None:
    install(directory, "99.1", "")
    (directory / "genai_prices-0.dist-info" / "METADATA").write_text("")
    assert installed() == ""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('half installed')", "ImportError: half installed"),
        ("import surely_not_there", "surely_not_there is not installed: pip install 'sluice-gateway"),
        ("import os; os._exit(3)", "reading them ended with code 3"),
        ("import os; os._exit(0)", "reading them ended with code 0"),
    ],
)
def test_a_package_that_is_broken_says_how(directory: Path, code: str, why: str) -> None:
    install(directory, "99.1", code)
    with pytest.raises(PricesUnreadable) as caught:
        make("99.1", DAY)
    assert why in str(caught.value)


def test_reading_has_a_limit_of_time(directory: Path) -> None:
    install(directory, "99.1", "import time; time.sleep(60)")
    with pytest.raises(PricesUnreadable, match=r"they were not read within 0\.3 s"):
        make("99.1", DAY, limit_s=0.3)


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(PricesUnreadable, match="/no/python cannot be run: No such file"):
        make("99.1", DAY, ("/no/python",))


def test_nothing_is_taken_from_where_the_node_was_started(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    install(directory, "99.1", "raise ImportError('of somebody else')")
    monkeypatch.chdir(directory)
    assert edition(make("1.0", DAY)) is not None
    assert "PYTHONPATH" not in os.environ


KEYS = [KeyRecord(bytes(32), "a", allowance=Allowance(usd_per_month=5))]
PROVIDER = "providers: {p: {kind: openai, api_key: x}}\n"


def models(count: int, more: str = "") -> str:
    rows = "".join(f"  m{number}: {{targets: [{{provider: p, model: u{number}}}]}}\n" for number in range(count))
    return f"{PROVIDER}models:\n{rows}{more}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            models(1),
            "no price is known of m0 (p/u0): requests for them, also as a fallback, are refused where a limit in USD ",
        ),
        (models(1), "; give them a `price`, or install or upgrade 'sluice-gateway[prices]', and reload"),
        (models(7), "no price is known of m0 (p/u0), m1 (p/u1), m2 (p/u2), m3 (p/u3), m4 (p/u4) and 2 more: "),
        (
            models(1, "limits: {unpriced: zero}\n"),
            "m0 (p/u0): requests for them, also as a fallback, count as nothing in limits in USD; ",
        ),
    ],
)
def test_models_that_a_limit_in_money_cannot_count_are_named(text: str, said: str) -> None:
    config = read_text(text, "f", Path("/etc"), (), {}).config
    assert said in unpriced_warning(config, KEYS, PriceList())


@pytest.mark.parametrize("keys", [[], [KeyRecord(bytes(32), "a")]])
def test_where_nothing_counts_money_nothing_is_said(keys: list[KeyRecord]) -> None:
    config = read_text(models(1), "f", Path("/etc"), (), {}).config
    assert unpriced_warning(config, keys, PriceList()) == ""


def test_where_all_have_a_price_nobody_looks_for_keys() -> None:
    priced = "  m: {targets: [{provider: p, model: u}], price: {input: 1, output: 1}}\n"
    config = read_text(models(0, priced), "f", Path("/etc"), (), {}).config
    keys = iter(KEYS)
    assert unpriced_warning(config, keys, PriceList()) == ""
    assert next(keys).id == "a"


def test_prices_have_a_name() -> None:
    assert named(OLD) == "the prices of genai-prices 1.0 on 2026-11-21"
    assert named(b"") == "no published prices"
