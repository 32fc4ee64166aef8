"""The vendors: one row each, equal to what the config's checks know of them."""

import pytest

from gateway.config.kinds import KINDS
from gateway.dialects.registry import find
from gateway.providers.registry import PROVIDERS, vendor


def test_every_built_kind_has_its_vendor_and_its_dialect() -> None:
    built = {name: kind.dialect for name, kind in KINDS.items() if kind.built}
    assert {row.kind: row.dialect for row in PROVIDERS} == built
    for row in PROVIDERS:
        assert vendor(row.kind) is row
        assert find(row.dialect).name == row.dialect


def test_every_vendor_is_reached_by_tls_unless_the_operator_says_otherwise() -> None:
    assert all(row.base_url.startswith("https://") for row in PROVIDERS)


def test_a_kind_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        vendor("telepathy")
