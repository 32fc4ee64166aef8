"""A request's head, judged: what llhttp accepts and two HTTP parsers could still read differently is refused here.

Sources: RFC 9112 (one Host, one meaning of the body's length, absolute form), RFC 9110 (Expect). llhttp has already
refused bare line feeds, folded lines, control bytes, and conflicting or malformed lengths.
"""

from typing import Final, NamedTuple

from gateway.dialects.base import BodyMode, Surface
from gateway.errors import MalformedHTTP, UnsupportedEncoding, UriTooLong
from gateway.units import KIB

MAX_TARGET_BYTES: Final = 8 * KIB
_ABSOLUTE: Final = (b"http://", b"https://")
_PRINTABLE: Final = frozenset(range(0x21, 0x7F)) - {ord("#"), ord('"'), ord("<"), ord(">"), ord("\\")}
_MAX_LOWERED: Final = 1024
_lowered: Final[dict[bytes, bytes]] = {}


class Target(NamedTuple):
    """Path and query of a request target."""

    path: str
    query: str


class Framing(NamedTuple):
    """How the body of a request is delimited: `length` -1 is chunked, 0 none."""

    length: int
    expects_continue: bool
    encoding: bytes
    content_type: bytes
    connection: bytes


def lower(name: bytes) -> bytes:
    """A header name in lower case; a bounded number of spellings is remembered."""
    known = _lowered.get(name)
    if known is None:
        known = name.lower()
        if len(_lowered) < _MAX_LOWERED:
            _lowered[name] = known
    return known


def read_target(url: bytes) -> Target:
    """Split a request target. Raises UriTooLong, or MalformedHTTP for what is no plain origin or absolute form."""
    if len(url) > MAX_TARGET_BYTES:
        raise UriTooLong(f"the request target is longer than {MAX_TARGET_BYTES} bytes")
    if not _PRINTABLE.issuperset(url):
        raise MalformedHTTP("the request target holds a character that must be percent-encoded")
    if url[:1] != b"/":
        url = _from_absolute(url)
    path, _, query = url.decode("ascii").partition("?")
    return Target(path, query)


def read_framing(headers: list[tuple[bytes, bytes]], *, version_11: bool) -> Framing:
    """What the headers say about the body. Raises MalformedHTTP where they allow two readings."""
    length, chunked, hosts = 0, False, 0
    expects, encoding, content_type, connection = False, b"", b"", b""
    for name, value in headers:
        if name == b"content-length":
            length = int(value)  # llhttp has read it as one number already
        elif name == b"host":
            hosts += 1
        elif name == b"content-type":
            content_type = value
        elif name == b"connection":
            connection = connection + b"," + value if connection else value
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or chunked or not version_11:
                raise MalformedHTTP("transfer-encoding must be `chunked`, alone, on HTTP/1.1")
            chunked = True
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise MalformedHTTP("the only expectation understood is `100-continue`")
            expects = version_11
        elif name == b"content-encoding":
            encoding = b"" if value.lower() == b"identity" else value
    if hosts > 1 or (version_11 and not hosts):
        raise MalformedHTTP("a request needs exactly one host header")
    return Framing(-1 if chunked else length, expects, encoding, content_type, connection)


def body_mode(surface: Surface, framing: Framing) -> BodyMode:
    """How this request's body is taken. Raises UnsupportedEncoding for a content type the surface does not read."""
    media = framing.content_type.partition(b";")[0].strip().lower()
    mode = surface.body
    if surface.json_or_multipart and media == b"application/json":
        mode = BodyMode.BUFFERED
    if mode is BodyMode.MULTIPART and media != b"multipart/form-data":
        raise UnsupportedEncoding(f"{surface.path} takes a multipart/form-data body")
    if mode is BodyMode.BUFFERED and media not in (b"application/json", b"") and not media.endswith(b"+json"):
        raise UnsupportedEncoding(f"{surface.path} takes a JSON body: send content-type application/json")
    return mode


def value_of(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first value of a header, b"" when it is absent."""
    for given, value in headers:
        if given == name:
            return value
    return b""


def _from_absolute(url: bytes) -> bytes:
    if not url.lower().startswith(_ABSOLUTE):
        raise MalformedHTTP("the request target must be a path")
    rest = url.partition(b"://")[2]
    slash = rest.find(b"/")
    return rest[slash:] if slash >= 0 else b"/"
