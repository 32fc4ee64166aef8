"""Every dialect has its rule."""

import pytest

from gateway.dialects import mediarules
from gateway.dialects.media import Kind, Media
from gateway.dialects.registry import DIALECTS

PICTURE = Media(Kind.IMAGE, 1024, 1024, "high")


@pytest.mark.parametrize("name", [dialect.name for dialect in DIALECTS])
def test_every_dialect_has_a_rule(name: str) -> None:
    assert mediarules.rule(name, "*")(PICTURE) > 0


def test_the_model_decides() -> None:
    assert mediarules.rule("openai", "gpt-4o")(PICTURE) == 765
    assert mediarules.rule("anthropic", "claude-sonnet-4-5")(PICTURE) == 37 * 37


def test_a_dialect_of_nobody() -> None:
    with pytest.raises(KeyError):
        mediarules.rule("morse", "m")
