"""Coefficients are solved from measurements, stored and read back; what is missing is told."""

from pathlib import Path

import pytest

from bench.capacity import coefficients
from bench.capacity.coefficients import Measured, NoCoefficients
from tests.unit.bench.capacity.test_plan import COSTS


def measured(large_us: float = 220, long_us: float = 3202) -> Measured:
    return Measured(
        small_us=102,
        small_kb=1,
        large_us=large_us,
        large_kb=60,
        short_stream_us=402,
        short_chunks=20,
        long_stream_us=long_us,
        long_chunks=300,
    )


def test_slopes_and_what_is_left_without_them() -> None:
    found = measured()
    assert (found.prompt_kb_us, found.request_us, found.chunk_us, found.stream_us) == (2, 100, 10, 200)


def test_noise_makes_no_cost_negative() -> None:
    found = measured(large_us=90, long_us=300)
    assert (found.prompt_kb_us, found.chunk_us, found.request_us) == (0, 0, 102)


def test_they_are_stored_and_read(tmp_path: Path) -> None:
    COSTS.stored(tmp_path / "c.json")
    assert coefficients.load(tmp_path / "c.json") == COSTS


@pytest.mark.parametrize("text", ["", "[]", '{"date": "x"}', "{"])
def test_what_cannot_be_read_is_told_with_the_way_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(NoCoefficients, match="--calibrate"):
        coefficients.load(tmp_path / "c.json")
    with pytest.raises(NoCoefficients, match="nothing was measured yet"):
        coefficients.load(tmp_path / "absent.json")
