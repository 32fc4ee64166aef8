"""Measuring a request: any JSON of any shape, never an exception, never more text than there are bytes."""

import json
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import measure
from gateway.dialects.openai import request
from gateway.dialects.surfaces import SURFACES

NAMES = st.sampled_from(
    [
        *(
            "messages",
            "input",
            "prompt",
            "system",
            "content",
            "text",
            "type",
            "source",
            "image_url",
            "url",
            "data",
            "file",
        ),
        *("file_data", "input_audio", "output", "summary", "tools", "max_tokens", "max_output_tokens", "n", "stream"),
        *("tool_calls", "function", "arguments", "conversation", "container", "role", "refusal", "title", "filename"),
    ]
)
TYPES = st.sampled_from(
    ["text", "image_url", "image", "document", "input_file", "file", "tool_result", "reasoning", "url"]
)
FILES = st.binary(max_size=200).map(lambda data: b64encode(data).decode())
DATA_URLS = st.builds(
    "data:{};base64,{}".format, st.sampled_from(["image/png", "text/plain", "application/pdf"]), FILES
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False),
    st.text(),
    TYPES,
    FILES,
    DATA_URLS,
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=30
)
CHAT = next(surface for surface in SURFACES if surface.name == "chat.completions")
SURFACE = st.sampled_from([surface.name for surface in SURFACES])


@given(SURFACE, st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_any_body_is_measured(surface: str, document: dict[str, object], ensure_ascii: bool) -> None:
    body = json.dumps(document, ensure_ascii=ensure_ascii).encode(errors="surrogatepass")
    asked = measure.read(surface, body)
    assert 0 <= asked.text_bytes <= len(body)
    assert asked.tokens <= len(body)
    assert asked.n >= 1
    assert asked.max_output is None or asked.max_output >= 0


@given(SURFACE, st.binary(max_size=200))
def test_what_is_no_json_is_measured_as_well(surface: str, body: bytes) -> None:
    assert 0 <= measure.read(surface, body).text_bytes <= len(body)


@given(st.binary(min_size=400, max_size=2_000), st.text(st.characters(codec="utf-8"), max_size=50))
def test_a_file_is_never_text(data: bytes, words: str) -> None:
    file = b64encode(data).decode()
    parts = [
        {"type": "text", "text": words},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{file}"}},
        {"type": "input_audio", "input_audio": {"data": file, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": file}},
    ]
    asked = measure.read("chat.completions", json.dumps({"messages": [{"role": "user", "content": parts}]}).encode())
    assert asked.text_bytes == len(words.encode())
    assert len(asked.media) == 3


WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
PARTS = st.lists(st.one_of(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS})), max_size=2)
CALLS = st.lists(st.fixed_dictionaries({"function": st.fixed_dictionaries({"arguments": WORDS})}), max_size=2)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": st.one_of(WORDS, WORDS, WORDS, st.none(), PARTS)},
        optional={
            "name": WORDS,
            "tool_calls": st.none() | CALLS,
            "function_call": st.none() | st.fixed_dictionaries({"arguments": WORDS}),
            "reasoning_content": st.none() | WORDS,
            "refusal": st.none() | WORDS,
            "audio": st.none(),
        },
    ),
    max_size=3,
)
NUMBERS = st.none() | st.integers(-2, 3000)
CHATS = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": MESSAGES},
    optional={
        "max_tokens": NUMBERS,
        "max_completion_tokens": NUMBERS,
        "n": NUMBERS,
        "stream": st.none() | st.booleans(),
        "user": st.just("ann"),
        "temperature": st.just(0.5),
        "tools": st.none() | st.just([{"type": "function"}]),
        "response_format": st.none() | st.just({"type": "json_object"}),
        "functions": st.just([]),
        "web_search_options": st.none() | st.just({}),
        "audio": st.none() | st.just({"voice": "v"}),
    },
)


@given(CHATS, st.booleans())
def test_what_is_known_of_a_chat_is_what_is_read_of_it(chat: dict[str, object], ensure_ascii: bool) -> None:
    body = json.dumps(chat, ensure_ascii=ensure_ascii).encode()
    known = measure.known(request.read(CHAT, body))
    assert known is None or known == measure.read(CHAT.name, body)
    text_alone = all(message.keys() <= {"role", "content", "name"} for message in chat["messages"])  # type: ignore[attr-defined]
    if text_alone and all(isinstance(message["content"], str) for message in chat["messages"]):  # type: ignore[attr-defined]
        assert (known is None) == bool(
            chat.keys() & {"tools", "functions", "response_format", "web_search_options", "audio"}
        )
