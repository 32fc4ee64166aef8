"""A question about limits: every word is understood, or said to be wrong."""

import pytest

from gateway.control.limits_question import DEFAULT_PATH, MAX_TOKENS, BadQuestion, Question, parse


def test_a_whole_question() -> None:
    words = {
        "key": "ann",
        "model": "large",
        "path": "/v1/messages",
        "end_user": "u-1",
        "provider": "big",
        "tokens": "500",
        "output_tokens": "0",
    }
    assert parse(words.items()) == Question("ann", "large", "/v1/messages", "u-1", "big", 500, 0)


def test_what_is_not_said() -> None:
    assert parse([("key", "ann")]) == Question("ann", path=DEFAULT_PATH)
    assert parse([("key", "ann"), ("tokens", ""), ("path", "")]) == Question("ann", path=DEFAULT_PATH)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "key: say whose request it is"),
        ([("key", "")], "key: say whose request it is"),
        ([("key", "a"), ("key", "b")], "key: it is said more than once"),
        ([("key", "a"), ("modle", "m")], 'modle: there is no such word; did you mean "model"?'),
        ([("key", "a"), ("\x1b[2J", "m")], "there is no such word; there are key, model"),
        ([("key", "a" * 2049)], "key: it is longer than 2048 characters"),
        ([("key", "a"), ("tokens", "1e3")], "tokens: '1e3' is no whole number from 0 to 100000000"),
        ([("key", "a"), ("tokens", "-1")], "is no whole number"),
        ([("key", "a"), ("tokens", "²")], "is no whole number"),
        ([("key", "a"), ("output_tokens", str(MAX_TOKENS + 1))], "output_tokens: '100000001' is no whole number"),
        ([("key", "a"), ("tokens", "9" * 2000)], "is no whole number"),
    ],
)
def test_what_makes_no_sense(words: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(BadQuestion) as error:
        parse(words)
    assert said in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200
