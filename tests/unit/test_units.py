"""Units agree with each other."""

from gateway import units


def test_factors() -> None:
    assert units.NS_PER_S == units.NS_PER_US * units.US_PER_S == units.NS_PER_MS * 1000
    assert units.MIB == units.KIB * units.KIB == 2**20
