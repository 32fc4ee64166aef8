"""What is said: tokens partition a text, limits cut it where they say, samples fit their schema."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sim import text


@given(st.text())
def test_pieces_joined_are_the_text(said: str) -> None:
    assert "".join(text.pieces(said)) == said


@given(st.text(max_size=80), st.integers(0, 60))
def test_an_answer_of_n_tokens_has_n_tokens(said: str, tokens: int) -> None:
    visible = said.strip() and said.rstrip()  # trailing space would join the filler's first token
    assert text.count(text.sized(visible, tokens, None)) == tokens


@pytest.mark.parametrize("size", [0, 1, 85, 86, 100_000])
def test_a_big_answer_is_exactly_as_big(size: int) -> None:
    answer = text.limited(text.sized("x", None, size), None, (), big=True)
    assert len(answer.text.encode()) == size
    assert "".join(answer.deltas()) == answer.text


def test_the_limit_cuts_and_says_so() -> None:
    answer = text.limited("one two three", 2, ())
    assert (answer.text, answer.tokens, answer.finish) == ("one two", 2, "length")


def test_the_earliest_stop_sequence_ends_the_answer() -> None:
    answer = text.limited("one two three", None, ["three", "two", ""])
    assert (answer.text, answer.finish, answer.stop) == ("one ", "stop_sequence", "two")


def test_the_sentence_quotes_the_prompt_and_bounds_it() -> None:
    assert "“hello there”" in text.sentence("hello\n there")
    assert len(text.sentence("x" * 10_000)) < 500


def test_the_prompt_is_what_the_user_said_last() -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    contents = (("user", "first"), ("user", parts), ("assistant", "x"))
    said = [{"role": role, "content": content} for role, content in contents]
    assert text.prompt_of(said) == "look"
    assert text.prompt_of([{"role": "system", "content": "only"}]) == "only"
    assert text.prompt_of("not messages") == ""
    assert text.prompt_tokens(said) == 3 * text.MESSAGE_TOKENS + text.IMAGE_TOKENS + 2 + 1 + 1


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": 2.5}}}, {"a": 3}),
        ({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2}, ["x", "x"]),
        ({"type": ["string", "null"]}, "example"),
        ({"anyOf": [{"const": 7}, {"type": "null"}]}, 7),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "boolean"}}}, True),
        ({"type": "null"}, None),
    ],
)
def test_a_sample_fits_its_schema(schema: dict[str, object], expected: object) -> None:
    assert text.sample(schema) == expected


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"next": {"$ref": "#/$defs/A"}}}}}
    assert isinstance(text.sample(schema), dict)
