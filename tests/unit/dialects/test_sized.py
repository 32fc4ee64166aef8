"""Shapes: they take every published member that has a size, and step over all else."""

import msgspec
import pytest

from gateway.dialects import sized


@pytest.mark.parametrize("body", [b"{}", b'{"messages": [], "metadata": {"a": [1, {"b": null}]}, "seed": 1.5}'])
def test_unknown_members_are_stepped_over(body: bytes) -> None:
    assert msgspec.json.decode(body, type=sized.Chat).messages == []


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ({"content": "hi"}, True),
        ({"content": None}, True),
        ({"content": "hi", "tool_calls": None, "refusal": None}, True),
        ({"content": "hi", "tool_calls": []}, False),
        ({"content": "hi", "function_call": {"arguments": "{}"}}, False),
        ({"content": "hi", "reasoning_content": "hm"}, False),
        ({"content": "hi", "refusal": "no"}, False),
        ({"content": "hi", "audio": {"id": "audio_1"}}, False),
    ],
)
def test_a_plain_message_is_its_content(message: dict[str, object], plain: bool) -> None:
    assert msgspec.json.decode(msgspec.json.encode(message), type=sized.Message).plain() == plain
