"""Units agree with each other, and cost nothing at run time."""

from gateway import units


def test_factors() -> None:
    assert units.NS_PER_S == units.NS_PER_US * units.US_PER_S == units.NS_PER_MS * 1000
    assert units.MIB == units.KIB * units.KIB == 2**20


def test_a_unit_is_the_integer_itself() -> None:
    assert type(units.Milliseconds(5)) is int
    assert [units.MicroUsd(7), units.Microseconds(7), units.Nanoseconds(7)] == [7, 7, 7]
