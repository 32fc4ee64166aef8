"""The families are well-formed, each is documented, and nothing undocumented is counted."""

import re
from pathlib import Path

import pytest

from gateway.telemetry import families
from gateway.telemetry.directory import Family, Kind
from gateway.telemetry.metrics import MAX_BOUNDS

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>[a-z_]+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*) \|", re.MULTILINE)


def declared() -> list[Family]:
    return [value for value in vars(families).values() if isinstance(value, Family)]


def test_every_declared_family_is_listed_once() -> None:
    assert sorted(family.name for family in declared()) == sorted(family.name for family in families.FAMILIES)
    assert len({family.name for family in families.FAMILIES}) == len(families.FAMILIES)


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.name)
def test_a_family_is_well_formed(family: Family) -> None:
    assert re.fullmatch(r"gateway_[a-z_]+", family.name)
    assert family.name.endswith("_total") is (family.kind is Kind.COUNTER)
    assert family.name.endswith("_seconds") is (family.kind is Kind.HISTOGRAM)
    assert bool(family.bounds_us) is (family.kind is Kind.HISTOGRAM)
    assert list(family.bounds_us) == sorted(set(family.bounds_us))
    assert len(family.bounds_us) <= MAX_BOUNDS
    assert family.help.endswith(".")
    assert not {"le", "quantile"} & set(family.labels)


def test_names_fixed_for_readers_outside() -> None:
    assert {
        "gateway_requests_total",
        "gateway_overhead_seconds",
        "gateway_time_to_first_token_seconds",
        "gateway_tokens_total",
        "gateway_attempts_total",
        "gateway_streams_truncated_total",
        "gateway_open_streams",
        "gateway_worker_rss_bytes",
    } <= {family.name for family in families.FAMILIES}


def test_the_page_in_docs_has_exactly_these_rows() -> None:
    documented = [(row["name"], row["kind"], row["labels"].strip()) for row in ROW.finditer(DOCS.read_text())]
    expected = [
        (family.name, family.kind.value, ", ".join(f"`{label}`" for label in family.labels) or "–")
        for family in families.FAMILIES
    ]
    assert documented == expected
