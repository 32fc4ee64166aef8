"""The kinds a config may name are the kinds there are."""

from typing import get_args, get_type_hints

import pytest

from gateway.config.schema import Anchor as AnchorSettings
from gateway.journal.anchor.registry import ANCHORS, anchor_of


def test_every_kind_of_the_config_is_here_and_no_other() -> None:
    assert tuple(kind for kind, _ in ANCHORS) == get_args(get_type_hints(AnchorSettings)["kind"])


@pytest.mark.parametrize(("kind", "made"), ANCHORS, ids=[kind for kind, _ in ANCHORS])
def test_an_anchor_is_made_without_touching_anything(kind: "str", made: type) -> None:
    settings = AnchorSettings(kind=kind, path="/nowhere", url="http://127.0.0.1:9", bucket="b")  # type: ignore[arg-type]
    anchor = anchor_of(settings)
    assert isinstance(anchor, made)
    assert anchor.name.startswith(kind)
