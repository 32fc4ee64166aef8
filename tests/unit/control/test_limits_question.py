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
    asked = Question("ann", "large", DEFAULT_PATH)
    assert parse([("key", "ann"), ("model", "large")]) == asked
    assert parse([("key", "ann"), ("model", "large"), ("tokens", ""), ("path", "")]) == asked


def test_an_api_may_have_a_model_of_its_own_or_show_none() -> None:
    assert parse([("key", "ann"), ("path", "/v1/moderations")]).model == "omni-moderation-latest"
    assert parse([("key", "ann"), ("path", "/passthrough/big/x")]).model == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "key: say whose request it is"),
        ([("key", "")], "key: say whose request it is"),
        ([("key", "a"), ("key", "b")], "key: it is said more than once"),
        ([("key", "a"), ("modle", "m")], 'modle: there is no such word; did you mean "model"?'),
        ([("key", "a"), ("\x1b[2J", "m")], "there is no such word; there are key, model"),
        ([("key", "a" * 2049)], "key: it is longer than 2048 characters"),
        ([("key", "a")], "model: say which model"),
        ([("key", "a"), ("path", "/v1/chat/completion")], 'did you mean "/v1/chat/completions"?'),
        ([("key", "a"), ("path", "/\x1b[2J" * 200)], "path: callers have no API at"),
        ([("key", "a"), ("path", "/v1/models")], "path: '/v1/models' is answered by the gateway itself"),
        ([("key", "a"), ("model", "m"), ("path", "/passthrough/big/x")], "model: a request on a passthrough path"),
        ([("key", "a"), ("model", "m"), ("tokens", "1e3")], "tokens: '1e3' is no whole number from 0 to 100000000"),
        ([("key", "a"), ("model", "m"), ("tokens", "-1")], "is no whole number"),
        ([("key", "a"), ("model", "m"), ("tokens", "²")], "is no whole number"),
        (
            [("key", "a"), ("model", "m"), ("output_tokens", str(MAX_TOKENS + 1))],
            "output_tokens: '100000001' is no whole number",
        ),
        ([("key", "a"), ("model", "m"), ("tokens", "9" * 2000)], "is no whole number"),
    ],
)
def test_what_makes_no_sense(words: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(BadQuestion) as error:
        parse(words)
    assert said in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200
