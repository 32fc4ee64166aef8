"""References are found wherever the published APIs put them, and nowhere else. Most cases are in corpus/json."""

import json

import pytest

from gateway.dialects.stored import named


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        ('"resp_1"', "previous_response_id", ("previous_response_id",)),
        ('""', "previous_response_id", ()),
        ("null", "previous_response_id", ()),
        ('["file-1","file-2"]', "file_ids", ("file_ids",)),
        ('[{"file_id":"a"},{"file_id":"b"}]', "x", ("x.file_id",)),
        ('{"File_ID":"a"}', "x", ("x.file_id",)),
        ('{"file_id":{"type":"string"}}', "x", ()),
        ('{"file_id":7}', "x", ()),
        ('{"container":{"type":"auto"}}', "tools", ()),
        ('{"container":{"id":"c"}}', "tools", ("tools.container.id",)),
        ('{"container":"c"}', "tools", ("tools.container",)),
        ('{"voice":"alloy"}', "audio", ()),
        ('{"audio":{"data":"AA"}}', "messages", ()),
        ('{"id":"msg_1"}', "messages", ()),
        ('[{"id":"msg_1","type":null}]', "input", ("input.id",)),
        ('[{"id":"msg_1","content":[]}]', "input", ()),
        ('{"metadata":{"file_id":"x"},"arguments":{"file_id":"x"}}', "x", ()),
        ('{"type":"server_tool_use","input":{"file_id":"x"}}', "x", ()),
        ('{"type":"message","input":{"file_id":"x"}}', "x", ("x.input.file_id",)),
        ('{"type":"anthropic","skill_id":"pptx"}', "x", ()),
        ('{"type":"anthropic","type":"custom","skill_id":"s"}', "x", ("x.skill_id",)),
        ('{"n":123456789012345678901234567890,"f":1.5e400,"t":true}', "x", ()),
    ],
)
def test_named(value: str, path: str, found: tuple[str, ...]) -> None:
    assert named(value.encode(), path) == found


def test_every_one_of_equal_keys_counts() -> None:
    assert named(b'{"a":{"file_id":"x"},"a":{}}', "m") == ("m.a.file_id",)


def test_half_surrogates_and_depth_are_no_trouble() -> None:
    deep = "[" * 126 + json.dumps({"file_id": "x", "t": "\ud800"}) + "]" * 126
    assert named(deep.encode(), "m") == ("m.file_id",)
