"""How much each surface's request asks for, in the shapes that its API documents, and in none of them."""

import json
import struct
from base64 import b64encode

import pytest

from gateway.dialects import measure
from gateway.dialects.asked import UNREAD, Asked
from gateway.dialects.base import BodyMode, Reply
from gateway.dialects.media import Kind, Media
from gateway.dialects.surfaces import SURFACES

PNG = b64encode(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1024, 768) + b"\0" * 50_000).decode()
PICTURE = Media(Kind.IMAGE, 1024, 768)
PDF = b64encode(b"%PDF /Type /Page /Type /Page").decode()
TEXT = b64encode(b"x" * 300).decode()


def read(surface: str, **members: object) -> Asked:
    return measure.read(surface, json.dumps({"model": "m", **members}).encode())


def chat(*content: object, **members: object) -> Asked:
    return read("chat.completions", messages=[{"role": "user", "content": list(content)}], **members)


def messages(*content: object, **members: object) -> Asked:
    return read("messages", messages=[{"role": "user", "content": list(content)}], **members)


def response(*items: object, **members: object) -> Asked:
    return read("responses", input=list(items), **members)


# --- text ---------------------------------------------------------------------------------------------------------


def test_a_conversation() -> None:
    talk = [
        {"role": "system", "content": "12345"},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "1234567"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "123"},
        {"role": "assistant", "content": "12", "reasoning_content": "1234", "refusal": "1"},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "12345"}},
        {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "123456"}}]},
    ]
    asked = read("chat.completions", messages=talk, max_tokens=50, n=2, stream=True)
    assert asked == Asked(5 + 7 + 2 + 3 + 2 + 4 + 1 + 5 + 6, messages=7, max_output=50, n=2, stream=True)


@pytest.mark.parametrize(
    ("more", "text_bytes", "whole"),
    [
        ({}, 2, True),
        ({"tool_calls": None, "refusal": None}, 2, True),
        ({"tool_calls": []}, 2, True),
        ({"tool_calls": [{"function": {"arguments": "{}"}}]}, 4, True),
        ({"function_call": {"arguments": "{}"}}, 4, True),
        ({"reasoning_content": "hm"}, 4, True),
        ({"refusal": "no"}, 4, True),
        ({"audio": {"id": "audio_1"}}, 2, False),
        ({"audio": None}, 2, True),
    ],
)
def test_what_a_message_has_beside_its_content_counts(more: dict[str, object], text_bytes: int, whole: bool) -> None:
    asked = read("chat.completions", messages=[{"role": "assistant", "content": "hi", **more}])
    assert (asked.text_bytes, asked.whole) == (text_bytes, whole)


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_text_is_counted_unescaped_in_utf_8(ensure_ascii: bool) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": 'größe "x"\n数'}]}, ensure_ascii=ensure_ascii)
    assert measure.read("chat.completions", body.encode()).text_bytes == len('größe "x"\n数'.encode())


def test_definitions_count_as_json() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    schema = {"type": "json_schema", "json_schema": {"name": "s"}}
    asked = chat(tools=tools, response_format=schema, functions=[{"name": "g"}])
    assert asked.text_bytes == sum(len(json.dumps(said)) for said in (tools, schema, [{"name": "g"}]))
    assert asked.whole


def test_a_message_request() -> None:
    asked = read(
        "messages",
        system=[{"type": "text", "text": "12345", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "123"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1234"}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "content": [{"type": "text", "text": "12"}], "is_error": False}],
            },
        ],
        tools=[{"name": "f", "input_schema": {}}],
        max_tokens=64,
    )
    tools = len(json.dumps([{"name": "f", "input_schema": {}}]))
    assert asked == Asked(5 + 3 + len('{"a": 1}') + 4 + 2 + tools, messages=4, max_output=64)


def test_a_response() -> None:
    asked = response(
        {"role": "user", "content": [{"type": "input_text", "text": "12345"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1234"},
        {"type": "function_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "123"}]},
        {"type": "custom_tool_call", "call_id": "e", "input": "12"},
        instructions="123",
        text={"format": {"type": "text"}},
        max_output_tokens=99,
    )
    schema = len(json.dumps({"format": {"type": "text"}}))
    assert asked == Asked(5 + 2 + 4 + 3 + len('"12"') + 3 + schema, messages=5, max_output=99)


def test_a_response_to_a_string() -> None:
    assert read("responses", input="12345") == Asked(5, messages=1)


@pytest.mark.parametrize(
    ("members", "asked"),
    [
        ({"prompt": "12345", "suffix": "12", "max_tokens": 5}, Asked(7, max_output=5)),
        ({"prompt": ["123", "45"], "n": 2}, Asked(5, n=4)),
        ({"prompt": "1", "n": 2, "best_of": 5}, Asked(1, n=5)),
        ({"prompt": [1, 2, 3]}, Asked(tokens=3)),
        ({"prompt": [[1, 2, 3], [4]], "n": 3}, Asked(tokens=4, n=6)),
        ({"prompt": []}, Asked()),
        ({}, Asked()),
    ],
)
def test_completions_of_bare_prompts(members: dict[str, object], asked: Asked) -> None:
    assert read("completions", **members) == asked


@pytest.mark.parametrize("surface", ["embeddings", "moderations"])
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("12345", Asked(5, max_output=0)),
        (["123", "45"], Asked(5, max_output=0)),
        ([1, 2, 3], Asked(tokens=3, max_output=0)),
        ([[1, 2], [3]], Asked(tokens=3, max_output=0)),
        ([{"type": "text", "text": "1234"}], Asked(4, max_output=0)),
    ],
)
def test_where_nothing_is_written(surface: str, given: object, asked: Asked) -> None:
    assert read(surface, input=given) == asked


@pytest.mark.parametrize(
    ("surface", "members", "asked"),
    [
        ("images.generations", {"prompt": "12345", "n": 3}, Asked(5, n=3)),
        ("audio.speech", {"input": "12345", "instructions": "12", "voice": "alloy"}, Asked(7)),
        (
            "images.edits",
            {"prompt": "12", "images": [{"image_url": f"data:image/png;base64,{PNG}"}]},
            Asked(2, media=(PICTURE,), whole=False),
        ),
    ],
)
def test_pictures_and_speech_to_be_made(surface: str, members: dict[str, object], asked: Asked) -> None:
    assert read(surface, **members) == asked


def test_counting_tokens_uses_none() -> None:
    assert read("messages.count_tokens", messages=[{"role": "user", "content": "x" * 1000}]) == Asked(
        max_output=0, whole=False
    )


# --- limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "max_output", "n"),
    [
        ({}, None, 1),
        ({"max_tokens": 5}, 5, 1),
        ({"max_completion_tokens": 7}, 7, 1),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7, 1),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 9, 1),
        ({"max_tokens": None, "n": None, "stream": None}, None, 1),
        ({"max_tokens": 0, "n": 0}, None, 1),
        ({"max_tokens": -1, "n": -3}, None, 1),
        ({"max_tokens": 5, "max_completion_tokens": -1}, None, 1),
        ({"max_tokens": -1, "max_completion_tokens": 5}, None, 1),
        ({"max_tokens": 5, "max_completion_tokens": 0}, None, 1),
    ],
)
def test_the_largest_limit_counts_and_zero_or_less_is_none(
    members: dict[str, object], max_output: int | None, n: int
) -> None:
    asked = chat(**members)
    assert (asked.max_output, asked.n) == (max_output, n)


@pytest.mark.parametrize(("audio", "spoken"), [({"voice": "ash", "format": "wav"}, True), (None, False)])
def test_an_answer_that_is_to_be_heard(audio: object, *, spoken: bool) -> None:
    assert chat(audio=audio).spoken is spoken
    assert not chat().spoken


# --- media --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "media"),
    [
        (chat({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}), PICTURE),
        (
            chat({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}}),
            Media(Kind.IMAGE, 1024, 768, "low"),
        ),
        (chat({"type": "image_url", "image_url": "https://example.org/a.png"}), Media(Kind.IMAGE)),
        (chat({"type": "input_audio", "input_audio": {"data": TEXT, "format": "mp3"}}), Media(Kind.AUDIO, ms=37)),
        (chat({"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}), Media(Kind.DOCUMENT, pages=2)),
        (chat({"type": "file", "file": {"file_id": "file-1"}}), Media(Kind.DOCUMENT)),
        (
            response(
                {"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}]}
            ),
            PICTURE,
        ),
        (
            response({"role": "user", "content": [{"type": "input_image", "file_id": "file-1", "detail": "high"}]}),
            Media(Kind.IMAGE, detail="high"),
        ),
        (
            response({"role": "user", "content": [{"type": "input_file", "file_data": PDF, "filename": "a.pdf"}]}),
            Media(Kind.DOCUMENT, pages=2),
        ),
        (
            response({"role": "user", "content": [{"type": "input_file", "file_url": "https://example.org/a.pdf"}]}),
            Media(Kind.DOCUMENT),
        ),
        (
            response(
                {
                    "type": "computer_call_output",
                    "output": {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{PNG}"},
                }
            ),
            PICTURE,
        ),
        (messages({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}), PICTURE),
        (messages({"type": "image", "source": {"type": "url", "url": "https://x.org/a"}}), Media(Kind.IMAGE)),
        (messages({"type": "image", "source": {"type": "file", "file_id": "f"}}), Media(Kind.IMAGE)),
        (
            messages({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}),
            Media(Kind.DOCUMENT, pages=2),
        ),
        (messages({"type": "document", "source": {"type": "file", "file_id": "f"}}), Media(Kind.DOCUMENT)),
        (
            messages(
                {
                    "type": "tool_result",
                    "content": [
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
                    ],
                }
            ),
            PICTURE,
        ),
    ],
)
def test_media_are_no_text_and_teach_nothing(asked: Asked, media: Media) -> None:
    assert asked.media == (media,)
    assert asked.text_bytes == 0
    assert not asked.whole


@pytest.mark.parametrize(
    ("asked", "text_bytes"),
    [
        (messages({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "12345"}}), 5),
        (
            messages(
                {
                    "type": "document",
                    "title": "12",
                    "context": "123",
                    "source": {"type": "content", "content": [{"type": "text", "text": "1234"}]},
                }
            ),
            9,
        ),
        (messages({"type": "document", "source": {"type": "content", "content": "1234"}}), 4),
        (messages({"type": "document", "source": {"type": "base64", "media_type": "text/csv", "data": TEXT}}), 300),
        (
            messages(
                {
                    "type": "search_result",
                    "source": "https://a.b",
                    "title": "12",
                    "content": [{"type": "text", "text": "1"}],
                }
            ),
            14,
        ),
        (chat({"type": "file", "file": {"filename": "notes.md", "file_data": TEXT}}), 300),
        (response({"content": [{"type": "input_file", "file_data": f"data:text/plain;base64,{TEXT}"}]}), 300),
    ],
)
def test_documents_of_text_are_text(asked: Asked, text_bytes: int) -> None:
    assert asked.media == ()
    assert asked.text_bytes == text_bytes


# --- what does not stand in the body ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        chat(tools=[{"type": "web_search"}]),
        chat(web_search_options={}),
        read("chat.completions", messages=[{"role": "assistant", "audio": {"id": "audio_1"}}]),
        messages(tools=[{"type": "bash_20250124", "name": "bash"}]),
        messages(container="c_1"),
        messages(mcp_servers=[{"url": "https://x"}]),
        messages({"type": "thinking", "thinking": "hm", "signature": PNG}),
        messages({"type": "redacted_thinking", "data": PNG}),
        response(tools=[{"type": "function", "name": "f"}, {"type": "file_search"}]),
        response({"type": "item_reference", "id": "msg_1"}),
        response({"type": "reasoning", "summary": [{"type": "summary_text", "text": "1"}], "encrypted_content": PNG}),
        response(previous_response_id="resp_1"),
        response(conversation={"id": "conv_1"}),
        response(prompt={"id": "pmpt_1"}),
    ],
)
def test_what_stands_elsewhere_makes_a_body_less_than_whole(asked: Asked) -> None:
    assert not asked.whole
    assert not asked.media
    assert asked.text_bytes < 200


@pytest.mark.parametrize("name", ["container", "mcp_servers", "tools"])
def test_null_is_nothing(name: str) -> None:
    assert messages(**{name: None}).whole


# --- odd bodies ---------------------------------------------------------------------------------------------------


def test_half_of_a_surrogate_pair_is_a_character_like_any_other() -> None:
    body = b'{"messages": [{"role": "user", "content": "12\\ud83d45"}], "max_tokens": 3}'
    assert measure.read("chat.completions", body) == Asked(7, messages=1, max_output=3)


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": ["just text"], "max_tokens": 3}',
        b'{"messages": [{"content": [[{"text": "just text"}]]}], "max_tokens": 3}',
        b'{"messages": [{"content": "just text", "tool_calls": "none"}], "max_completion_tokens": 3}',
    ],
)
def test_shapes_of_nobody_are_surveyed(body: bytes) -> None:
    asked = measure.read("chat.completions", body)
    assert 9 <= asked.text_bytes <= 13
    assert asked.max_output == 3
    assert not asked.whole


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_nothing_is_raised_whatever_comes(body: bytes) -> None:
    assert measure.read("chat.completions", body).text_bytes <= len(body)


@pytest.mark.parametrize(
    ("surface", "length", "media"),
    [
        ("audio.transcriptions", 80_000, (Media(Kind.AUDIO, ms=10_000),)),
        ("audio.translations", 0, (Media(Kind.AUDIO),)),
        ("audio.transcriptions", -1, ()),
        ("images.edits", 80_000, (Media(Kind.IMAGE),)),
        ("files", 80_000, ()),
    ],
)
def test_a_form_is_its_file(surface: str, length: int, media: tuple[Media, ...]) -> None:
    assert measure.form(surface, length, 1) == Asked(media=media, whole=False)


@pytest.mark.parametrize(
    ("surface", "length", "n"),
    [
        ("images.edits", 80_000, 4),
        ("images.variations", -1, 4),
        ("audio.transcriptions", 80_000, 1),
        ("files", 80_000, 1),
    ],
)
def test_a_form_of_images_asks_for_as_many_as_it_says(surface: str, length: int, n: int) -> None:
    assert measure.form(surface, length, 4).n == n


def test_surfaces_without_a_json_body_are_not_read() -> None:
    assert measure.read("audio.transcriptions", b"--boundary") is UNREAD
    assert measure.read("passthrough", b"{}") is UNREAD


@pytest.mark.parametrize(
    "surface", [s.name for s in SURFACES if s.body is BodyMode.BUFFERED and s.reply is Reply.RELAYED]
)
def test_every_surface_with_a_json_body_is_read(surface: str) -> None:
    assert read(surface) is not UNREAD


# --- the text itself ----------------------------------------------------------------------------------------------


def texts(surface: str, **members: object) -> list[str] | None:
    return measure.texts(surface, json.dumps({"model": "m", **members}).encode())


def test_the_text_is_what_was_counted() -> None:
    talk = [
        {"role": "system", "content": "größe"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": PNG}]},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}], "refusal": "no"},
    ]
    tools = [{"type": "function"}]
    found = texts("chat.completions", messages=talk, tools=tools)
    assert found == ["größe", "one", "no", "{}", json.dumps(tools)]
    counted = read("chat.completions", messages=talk, tools=tools)
    assert sum(len(text.encode()) for text in found) == counted.text_bytes


def test_text_of_other_surfaces() -> None:
    assert texts("messages", system="a", messages=[{"content": [{"type": "tool_use", "input": {"b": 1}}]}]) == [
        "a",
        '{"b": 1}',
    ]
    assert texts("embeddings", input=["a", "b"]) == ["a", "b"]
    assert texts("responses", input="a", instructions="b") == ["b", "a"]


@pytest.mark.parametrize(
    ("surface", "body"),
    [
        ("passthrough", b"{}"),
        ("chat.completions", b"{"),
        ("chat.completions", b'{"messages": ["odd"]}'),
        (
            "chat.completions",
            json.dumps({"messages": [{"content": [{"file": {"filename": "a.txt", "file_data": TEXT}}]}]}).encode(),
        ),
    ],
)
def test_text_that_cannot_all_be_seen_is_not_given(surface: str, body: bytes) -> None:
    assert measure.texts(surface, body) is None
