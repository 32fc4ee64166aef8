"""A body behind an offer to upgrade is read, and so is what follows it."""

import httptools
import pytest

from gateway.listener.detour import parser_of_body


class Noted:
    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self.calls.append(url)

    def on_body(self, data: bytes) -> None:
        self.calls.append(data)

    def on_message_complete(self) -> None:
        self.calls.append(b"end")


NEXT = b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(("length", "sent"), [(5, b"hello"), (-1, b"5\r\nhello\r\n0\r\n\r\n")])
def test_the_body_and_the_next_request_are_read(length: int, sent: bytes) -> None:
    noted = Noted()
    parser = parser_of_body(noted, length)
    noted.calls.clear()  # of the head that nobody sent
    parser.feed_data(sent + NEXT)
    assert noted.calls == [b"hello", b"end", b"/next", b"end"]


def test_its_framing_is_as_strict_as_any() -> None:
    parser = parser_of_body(Noted(), -1)
    with pytest.raises(httptools.HttpParserError):
        parser.feed_data(b"xyz\r\n")
