"""Orders pass through the environment whole."""

import pytest

from bench.load import orders
from bench.load.orders import Orders


def test_they_survive_the_environment() -> None:
    given = Orders(key="gw-1", neighbours_key="gw-2", model="m", rate_per_user=0.25, outcome="out.json")
    assert orders.read({orders.VARIABLE: given.written()}) == given


def test_without_any_there_are_defaults() -> None:
    assert orders.read({}) == Orders()


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown rates"):
        orders.read({orders.VARIABLE: '{"rates": 1}'})
