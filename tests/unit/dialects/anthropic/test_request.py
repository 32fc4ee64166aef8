"""Which surface decides on what; single bodies are in corpus/json."""

import pytest

from gateway.dialects.anthropic.request import read
from gateway.dialects.surfaces import SURFACES
from gateway.errors import InvalidRequest

SURFACE = {surface.name: surface for surface in SURFACES}


@pytest.mark.parametrize("name", ["messages", "messages.count_tokens"])
def test_both_surfaces_read_alike(name: str) -> None:
    body = b'{"max_tokens":5,"model":"claude","messages":[{"role":"user","content":"hi"}]}'
    facts = read(SURFACE[name], body)
    assert (facts.model, facts.stream, facts.stored, facts.stores) == ("claude", False, (), False)
    assert body[facts.model_start : facts.model_end] == b'"claude"'
    with pytest.raises(InvalidRequest, match="stands twice"):
        read(SURFACE[name], b'{"model":"m","messages":[],"messages":[]}')


def test_a_tool_s_input_is_not_searched_but_its_depth_counts() -> None:
    block = b'{"type":"tool_use","id":"t","name":"f","input":%b}'
    body = b'{"model":"m","messages":[{"role":"assistant","content":[%b]}]}' % block
    assert read(SURFACE["messages"], body % b'{"file_id":"x"}').stored == ()
    with pytest.raises(InvalidRequest, match="deeper"):
        read(SURFACE["messages"], body % (b"[" * 300 + b"]" * 300))


def test_the_end_user_stands_in_the_metadata() -> None:
    assert read(SURFACE["messages"], b'{"model":"m","metadata":{"user_id":"u"}}').end_user == "u"
    assert read(SURFACE["messages"], b'{"model":"m","metadata":{}}').end_user == ""
    assert read(SURFACE["messages"], b'{"model":"m","metadata":null}').end_user == ""
    with pytest.raises(InvalidRequest, match="must be a string"):
        read(SURFACE["messages"], b'{"model":"m","metadata":{"user_id":[]}}')


def test_a_user_profile_is_an_object_of_the_account() -> None:
    assert read(SURFACE["messages"], b'{"model":"m","user_profile_id":"up_1"}').stored == ("user_profile_id",)
