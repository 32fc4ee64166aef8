"""A body whose bulk is its own proof of UTF-8 is read as if every byte of it had been looked at."""

import json
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects import jsonguard
from gateway.dialects.base import RequestFacts
from gateway.dialects.openai.request import read
from gateway.dialects.surfaces import match
from gateway.errors import InvalidRequest

TEXT = st.text(st.sampled_from('aé“字😀"\\\n\x7f\u2028'), max_size=6)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "tool"]), "content": TEXT | st.none() | st.lists(TEXT, max_size=1)},
    optional={"name": TEXT, "tool_call_id": TEXT, "other": TEXT},
)
BODIES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "/v1/chat/completions": st.fixed_dictionaries(
        {"model": st.just("m"), "messages": st.lists(MESSAGE, max_size=3)},
        optional={"user": TEXT, "é": TEXT, "x": TEXT},
    ),
    "/v1/embeddings": st.fixed_dictionaries({"input": TEXT | st.lists(TEXT, max_size=3), "model": st.just("m")}),
    "/v1/responses": st.fixed_dictionaries(
        {"model": st.just("m"), "input": TEXT | st.lists(MESSAGE, max_size=2)}, optional={"instructions": TEXT}
    ),
}


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body for it: as clients spell it, with a member perhaps sent twice, and some bytes spoilt."""
    path = draw(st.sampled_from(sorted(BODIES)))
    wanted, separators = draw(BODIES[path]), draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", ":")]))
    body = json.dumps(wanted, separators=separators, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(wanted)))
        body = b"{%b:%b," % (json.dumps(name).encode(), json.dumps(draw(TEXT)).encode()) + body[1:]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(1, len(body) - 1))
        put = draw(
            st.sampled_from([b"\xff", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x82", b"\\ud800", b" "])
        )
        body = body[:at] + put + body[at + draw(st.integers(0, 1)) :]
    return path, body


def outcome(path: str, body: bytes) -> RequestFacts | str:
    found = match("POST", path)
    assert found is not None
    try:
        return read(found.surface, body)
    except InvalidRequest as refused:
        return f"{refused} {refused.param}"


@settings(max_examples=1000)
@given(asked())
def test_with_the_proof_or_without_it_a_body_is_read_alike(request: tuple[str, bytes]) -> None:
    path, body = request
    proven = outcome(path, body)
    with patch.object(jsonguard, "_decoded_all_but_ascii", return_value=False):
        assert outcome(path, body) == proven
