"""A request's head, judged: what llhttp accepts and two HTTP parsers could still read differently is refused here.

A `Head` is everything the head alone says, in one object that does not change. Callers keep connections open and send
the same head again and again but for its length and its trace, so a connection remembers its last head and compares
before it reads anew: that is why `content-length` and `traceparent` are kept apart.

Sources: RFC 9112 (one Host, one meaning of the body's length, absolute form), RFC 9110 (Expect). llhttp has already
refused bare line feeds, folded lines, control bytes, and conflicting or malformed lengths.
"""

import re
from typing import Final

from gateway.config.keys import digest
from gateway.dialects.base import BodyMode, Dialect, Surface
from gateway.dialects.registry import find as dialect_named
from gateway.dialects.surfaces import known_path, match
from gateway.errors import MalformedHTTP, MethodNotAllowed, MissingCredential, NotFound, UnsupportedEncoding, UriTooLong
from gateway.identity import credential
from gateway.providers.headers import Forwarded, forwarded
from gateway.units import KIB

MAX_TARGET_BYTES: Final = 8 * KIB
HEALTH: Final = frozenset({"/healthz", "/readyz"})
_ONCE: Final = (b"host", b"content-type", b"content-encoding")  # two could be read as either
_GATEWAY_KEY: Final = b"x-gateway-key"
_ABSOLUTE: Final = (b"http://", b"https://")
_PLAIN_TARGET: Final = re.compile(rb"[!$-;=?-\[\]-~]*\Z")  # printable ASCII less " # < > \
_CHARSET: Final = re.compile(rb"""(?i)charset\s*=\s*["']?([^"';\s]*)""")
_UTF_8: Final = frozenset({b"utf-8", b"utf8"})
_MAX_LOWERED: Final = 1024
_MAX_AGENT_BYTES: Final = 256
_OPENAI: Final = dialect_named("openai")  # whose errors are told before a path is known
_lowered: Final[dict[bytes, bytes]] = {}

Headers = list[tuple[bytes, bytes]]


class Head:
    """What one request head says. `surface` None: a health check. `chunked` and `length` tell the body's framing."""

    path = ""
    query = ""
    surface: Surface | None = None
    params: dict[str, str]
    forwarded: Forwarded
    chunked = False
    expects_continue = False
    encoding = b""
    content_type = b""
    connection = b""
    key_digest = b""  # of the credential that proves who the caller is to us: taken once, not at each request
    provider_credential = b""  # forwarded where an account says `credential: caller`
    tracestate = b""
    forwarded_for = b""
    user_agent = ""

    def __init__(self, method: str, *, version_11: bool) -> None:
        self.method = method
        self.version_11 = version_11
        self.dialect: Dialect = _OPENAI
        self.mode: BodyMode = BodyMode.NONE


def lower(name: bytes) -> bytes:
    """A header name in lower case; a bounded number of spellings is remembered."""
    known = _lowered.get(name)
    if known is None:
        known = name.lower()
        if len(_lowered) < _MAX_LOWERED:
            _lowered[name] = known
    return known


def read_head(head: Head, url: bytes, given: Headers) -> None:
    """Fill a Head in the order in which it can be refused, so that an error finds what was known before it.

    `given` lacks content-length and traceparent. Raises MalformedHTTP, UriTooLong, NotFound, MethodNotAllowed,
    MissingCredential, InvalidCredential or UnsupportedEncoding.
    """
    head.path, head.query = read_target(url)
    headers = [(lower(name), value) for name, value in given]
    _read_framing(head, headers)
    found = match(head.method, head.path)
    head.dialect = _dialect_of(head, found.surface.dialect if found is not None else "openai", headers)
    if found is None:
        _refuse_path(head)
        return
    surface, head.params = found
    _read_credential(head, headers)
    head.mode = _body_mode(surface, head.content_type)
    if head.encoding and head.mode is not BodyMode.RAW:
        if head.mode is BodyMode.MULTIPART:
            raise UnsupportedEncoding(f"{surface.path} takes forms without content-encoding")
        headers = [pair for pair in headers if pair[0] != b"content-encoding"]  # it is undone before the body goes on
    head.forwarded = forwarded(headers, head.connection)
    head.surface = surface


def read_target(url: bytes) -> tuple[str, str]:
    """Path and query of a request target.

    Raises UriTooLong, or MalformedHTTP for what is neither origin form nor absolute form.
    """
    if len(url) > MAX_TARGET_BYTES:
        raise UriTooLong(f"the request target is longer than {MAX_TARGET_BYTES} bytes")
    if _PLAIN_TARGET.match(url) is None:
        raise MalformedHTTP("the request target holds a character that must be percent-encoded")
    if url[:1] != b"/":
        url = _from_absolute(url)
    path, _, query = url.decode("ascii").partition("?")
    return path, query


def _read_framing(head: Head, headers: Headers) -> None:
    _check_names([name for name, _ in headers], host_needed=head.version_11)
    for name, value in headers:
        if name == b"content-type":
            head.content_type = value
        elif name == b"transfer-encoding":
            _read_coding(head, value)
        elif name == b"user-agent":
            head.user_agent = value[:_MAX_AGENT_BYTES].decode("latin-1")
        elif name == b"content-encoding":
            head.encoding = b"" if value.lower() == b"identity" else value
        elif name in _JOINED:
            attribute = _JOINED[name]
            before = getattr(head, attribute)
            setattr(head, attribute, before + b"," + value if before else value)
        elif name == b"expect":
            _read_expectation(head, value)


_JOINED: Final = {b"connection": "connection", b"tracestate": "tracestate", b"x-forwarded-for": "forwarded_for"}


def _check_names(names: list[bytes], *, host_needed: bool) -> None:
    for name in _ONCE:
        if names.count(name) > 1:
            raise MalformedHTTP(f"a request has one {name.decode()} header")
    if host_needed and b"host" not in names:
        raise MalformedHTTP("a request needs a host header")


def _read_coding(head: Head, value: bytes) -> None:
    if value.lower() != b"chunked" or head.chunked or not head.version_11:
        raise MalformedHTTP("transfer-encoding must be `chunked`, alone, on HTTP/1.1")
    head.chunked = True


def _read_expectation(head: Head, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise MalformedHTTP("the only expectation understood is `100-continue`")
    head.expects_continue = head.version_11


def _read_credential(head: Head, headers: Headers) -> None:
    own_key = value_of(headers, _GATEWAY_KEY)
    found = credential.find(headers) or b""
    head.provider_credential = found
    if not (own_key or found):
        raise MissingCredential("no API key: send it as `Authorization: Bearer …` or `x-api-key`")
    head.key_digest = digest(own_key or found)


def _refuse_path(head: Head) -> None:
    if head.path in HEALTH and head.method in ("GET", "HEAD"):
        return
    if known_path(head.path):
        raise MethodNotAllowed(f"{head.path} does not take {head.method}")
    raise NotFound(f"there is no API at {head.path[:200]}")


def _dialect_of(head: Head, named: str, headers: Headers) -> Dialect:
    """The dialect to speak: the surface's, or what the request looks like where its path could be either's."""
    if head.path.startswith("/v1/messages") or (head.method == "GET" and value_of(headers, b"anthropic-version")):
        return dialect_named("anthropic")
    return dialect_named(named)


def _body_mode(surface: Surface, content_type: bytes) -> BodyMode:
    """How this request's body is taken. Raises UnsupportedEncoding for a content type the surface does not read."""
    mode = surface.body
    if content_type == b"application/json" and mode is BodyMode.BUFFERED:
        return mode
    media, _, parameters = content_type.partition(b";")
    media = media.strip().lower()
    if surface.json_or_multipart and media == b"application/json":
        mode = BodyMode.BUFFERED
    if mode is BodyMode.MULTIPART and media != b"multipart/form-data":
        raise UnsupportedEncoding(f"{surface.path} takes a multipart/form-data body")
    if mode is BodyMode.BUFFERED and media not in (b"application/json", b"") and media[-5:] != b"+json":
        raise UnsupportedEncoding(f"{surface.path} takes a JSON body: send content-type application/json")
    if mode is BodyMode.BUFFERED and any(found.lower() not in _UTF_8 for found in _CHARSET.findall(parameters)):
        raise UnsupportedEncoding("JSON is UTF-8: leave the charset out")  # a provider may believe another one
    return mode


def value_of(headers: Headers, name: bytes) -> bytes:
    """The first value of a header, given in lower case; b"" when it is absent."""
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
