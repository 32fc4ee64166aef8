"""Headers an operator may add cannot break the message, carry a credential or speak for us."""

import pytest

from gateway.config.headers import fault


@pytest.mark.parametrize(("name", "value"), [("x-org", "acme"), ("OpenAI-Beta", "a, b"), ("user-agent", "x/1 (y)")])
def test_ordinary_headers_pass(name: str, value: str) -> None:
    assert fault(name, value) == ""


REFUSED = [
    ("Connection", "close", "one connection"),
    ("transfer-encoding", "chunked", "one connection"),
    ("Content-Length", "3", "set by the gateway"),
    ("host", "x", "set by the gateway"),
    ("Authorization", "Bearer x", "credential"),
    ("x-api-key", "x", "credential"),
    ("X-Gateway-Route", "x", "gateway itself"),
    ("x org", "x", "not a header name"),
    ("", "x", "not a header name"),
    ("x:y", "x", "not a header name"),
    ("x", "", "no header can carry"),
    ("x", " a", "no header can carry"),
    ("x", "a\r\ny: b", "no header can carry"),
    ("x", "a\n", "no header can carry"),
    ("x", "é", "no header can carry"),
    ("x", "a" * 9000, "no header can carry"),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_the_others_are_refused_without_repeating_the_value(name: str, value: str, said: str) -> None:
    why = fault(name, value)
    assert said in why
    assert len(value) < 3 or value not in why
