"""Sizes are exact bytes or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.sizes import format_size, parse_size

CASES = [
    ("0", 0),
    ("4096", 4096),
    ("4_096", 4096),
    ("1B", 1),
    ("32MiB", 32 * 2**20),
    ("32 mib", 32 * 2**20),
    ("50GB", 50 * 10**9),
    ("1.5KiB", 1536),
    ("2TiB", 2 * 2**40),
    ("0.3B", None),
    ("32M", None),
    ("MiB", None),
    ("-1", None),
    ("1e6", None),
    ("1 2", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "size"), CASES)
def test_spellings(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@given(st.integers(min_value=0, max_value=2**60))
def test_what_is_formatted_reads_back_exactly(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_the_shortest_exact_unit_is_used() -> None:
    assert [format_size(n) for n in (33554432, 32768, 50 * 10**9, 1001, 0)] == ["32MiB", "32KiB", "50GB", "1001", "0"]


@given(st.text())
def test_any_text_is_a_size_or_none(text: str) -> None:
    size = parse_size(text)
    assert size is None or size >= 0
