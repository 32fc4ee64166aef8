"""One credential, in any of the headers SDKs use; two that differ are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidCredential
from gateway.identity.credential import MAX_CREDENTIAL_BYTES, find

FOUND = [
    ([(b"Authorization", b"Bearer gw-x")], b"gw-x"),
    ([(b"AUTHORIZATION", b"  bEARER   gw-x ")], b"gw-x"),
    ([(b"x-api-key", b"gw-x")], b"gw-x"),
    ([(b"Api-Key", b" gw-x ")], b"gw-x"),
    ([(b"x-goog-api-key", b"gw-x")], b"gw-x"),
    ([(b"authorization", b"Bearer gw-x"), (b"x-api-key", b"gw-x")], b"gw-x"),
    ([(b"authorization", b"Bearer gw-x"), (b"authorization", b"Bearer gw-x")], b"gw-x"),
    ([(b"x-api-key", b""), (b"authorization", b"Bearer gw-x")], b"gw-x"),
    ([(b"authorization", b"Bearer "), (b"x-api-key", b"gw-x")], b"gw-x"),
    ([(b"authorization", b"")], None),
    ([(b"authorization", b"Bearer")], None),
    ([(b"content-type", b"x"), (b"cookie", b"gw-x")], None),
    ([], None),
]


@pytest.mark.parametrize(("headers", "credential"), FOUND)
def test_where_credentials_are(headers: list[tuple[bytes, bytes]], credential: bytes | None) -> None:
    assert find(headers) == credential


REFUSED = [
    ([(b"authorization", b"Bearer gw-x"), (b"x-api-key", b"gw-y")], "two different"),
    ([(b"authorization", b"Bearer gw-x"), (b"authorization", b"Bearer gw-y")], "two different"),
    ([(b"api-key", b"gw-x"), (b"x-goog-api-key", b"gw-y")], "two different"),
    ([(b"authorization", b"Basic Z3ct")], "not `Bearer`"),
    ([(b"authorization", b"gw-x")], "not `Bearer`"),
    ([(b"x-api-key", b"x" * (MAX_CREDENTIAL_BYTES + 1))], "too long"),
]


@pytest.mark.parametrize(("headers", "said"), REFUSED)
def test_what_cannot_be_told_is_refused_without_repeating_it(headers: list[tuple[bytes, bytes]], said: str) -> None:
    with pytest.raises(InvalidCredential, match=said) as raised:
        find(headers)
    assert "gw-" not in raised.value.message
    assert raised.value.status == 401


@given(st.lists(st.tuples(st.sampled_from([b"x-api-key", b"api-key", b"accept"]), st.binary(min_size=1, max_size=3))))
def test_the_result_is_a_value_that_was_sent(headers: list[tuple[bytes, bytes]]) -> None:
    sent = {value.strip() for name, value in headers if name != b"accept"} - {b""}
    if len(sent) > 1:
        with pytest.raises(InvalidCredential):
            find(headers)
    else:
        assert find(headers) == (sent.pop() if sent else None)
