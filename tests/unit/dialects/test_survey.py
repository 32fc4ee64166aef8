"""Odd bodies: everything is counted once, files are not text, and nothing fails."""

from base64 import b64encode

import pytest

from gateway.dialects import survey
from gateway.dialects.asked import Asked
from gateway.dialects.media import Kind, Media

FILE = b64encode(bytes(range(256)) * 8).decode()


def test_every_string_is_text() -> None:
    document = {"messages": ["hello", {"deep": {"er": ["wörld"]}}, 7, None, True], "model": "m"}
    assert survey.read(document) == Asked(5 + 6 + 1, messages=5, whole=False)


@pytest.mark.parametrize(
    ("member", "value", "found"),
    [
        ("url", "data:image/png;base64," + FILE, (Media(Kind.IMAGE),)),
        ("url", "data:audio/mp3;base64," + FILE, (Media(Kind.AUDIO, ms=256),)),
        ("url", "data:application/pdf;base64," + FILE, (Media(Kind.DOCUMENT, pages=1),)),
        ("data", FILE, (Media(Kind.DOCUMENT, pages=1),)),
        ("signature", FILE, ()),
        ("encrypted_content", FILE, ()),
    ],
)
def test_files_are_not_text(member: str, value: str, found: tuple[Media, ...]) -> None:
    asked = survey.read({"x": [{member: value}]})
    assert asked.media == found
    assert asked.text_bytes == 0


@pytest.mark.parametrize("text", ["data", "no more than words " * 50, "数据" * 500, "short" * 20])
def test_text_under_a_files_key_is_text(text: str) -> None:
    assert survey.read({"data": text}).text_bytes == len(text.encode())


def test_a_text_file_as_a_data_url_is_text() -> None:
    asked = survey.read({"u": "data:text/plain;base64," + b64encode(b"some words " * 20).decode()})
    assert not asked.media
    assert asked.text_bytes > 0


@pytest.mark.parametrize(
    ("document", "max_output", "n", "stream"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 9, "n": 3, "stream": True}, 9, 3, True),
        ({"max_output_tokens": 7}, 7, 1, False),
        ({"max_tokens": 0, "n": -1}, None, 1, False),
        ({"prompt": ["a", "b"], "n": 2, "best_of": 5}, None, 10, False),
        ({"prompt": [], "best_of": -5}, None, 1, False),
        ({"prompt": [5, 6, 7], "n": 2}, None, 2, False),
        ({"prompt": [[5, 6, 7], [8]]}, None, 2, False),
        ({"max_tokens": -5, "n": 0}, None, 1, False),
        ({"max_tokens": 5, "max_completion_tokens": -1}, None, 1, False),
        ({"max_tokens": True, "n": "4", "stream": 1}, None, 1, False),
        ({"max_tokens": 1.5, "n": None}, None, 1, False),
        ([], None, 1, False),
        ("text", None, 1, False),
        (None, None, 1, False),
    ],
)
def test_numbers_that_are_numbers(document: object, max_output: int | None, n: int, stream: bool) -> None:
    asked = survey.read(document)
    assert (asked.max_output, asked.n, asked.stream) == (max_output, n, stream)
