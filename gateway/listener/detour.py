"""Reading on behind an offer to upgrade, which HTTP/1.1 lets a server ignore.

A caller that would rather speak another protocol sends `Connection: Upgrade` with an ordinary request (Java's
HttpClient does so with every first request on plain HTTP). The parser takes what follows such a head for the other
protocol and would lose the request's body. So a parser of its own, told only how that body is framed, takes over from
the first byte behind the head, and stays for what follows on the connection.
"""

from typing import Final

import httptools

_HEAD: Final = b"POST / HTTP/1.1\r\n%b\r\n\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked"
_LENGTH: Final = b"content-length: %d"


def parser_of_body(protocol: object, length: int) -> httptools.HttpRequestParser:
    """A parser that is about to read a body of `length` bytes (-1: chunked) and then whole requests.

    Making it calls the protocol's callbacks for a head that nobody sent: they must be deaf meanwhile.
    """
    parser = httptools.HttpRequestParser(protocol)
    parser.feed_data(_HEAD % (_CHUNKED if length < 0 else _LENGTH % length))
    return parser
