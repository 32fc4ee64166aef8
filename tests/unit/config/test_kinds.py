"""The kinds a config may name are the ones that providers/ can serve, in the same dialects."""

from gateway.config.kinds import BUILT, KINDS
from gateway.providers.registry import PROVIDERS


def test_this_table_and_the_providers_agree() -> None:
    assert {vendor.kind: vendor.dialect for vendor in PROVIDERS} == {name: KINDS[name].dialect for name in BUILT}


def test_the_promised_kinds_are_known() -> None:
    assert set(KINDS) == {"openai", "azure", "anthropic", "bedrock", "gemini", "vertex"}
