"""Shapes: they take every published member that has a size, and step over all else."""

import msgspec
import pytest

from gateway.dialects import sized


@pytest.mark.parametrize("body", [b"{}", b'{"messages": [], "metadata": {"a": [1, {"b": null}]}, "seed": 1.5}'])
def test_unknown_members_are_stepped_over(body: bytes) -> None:
    assert msgspec.json.decode(body, type=sized.Chat).messages == []
