"""Messages of providers' error answers."""

import pytest

from gateway.dialects.error_text import MAX_MESSAGE_CHARS, read


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no","type":"x"}}', "no"),
        (b'{"type":"error","error":{"type":"x","message":"no"},"request_id":"r"}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"message":"no"}', "no"),
        (b'{"detail":"no"}', "no"),
        (b'{"error":null,"message":"no"}', "no"),
        (b'{"error":{"message":7}}', ""),
        (b'{"error":{}}', ""),
        (b'{"error":7}', ""),
        (b'{"detail":[{"msg":"x"}]}', ""),
        (b"<html>502</html>", ""),
        (b"[]", ""),
        (b"", ""),
        (b"[" * 5000, ""),
    ],
)
def test_read(body: bytes, message: str) -> None:
    assert read(body) == message


def test_a_long_message_is_cut() -> None:
    assert len(read(b'{"message":"' + b"x" * 9000 + b'"}')) == MAX_MESSAGE_CHARS
