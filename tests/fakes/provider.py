"""A provider without a socket: real connections and a real pool over transports that a test plays by hand.

    provider = FakeProvider()
    ...                      # something asks provider.target()
    provider.line.says(b"HTTP/1.1 200 OK\r\n…")

Only dialling and the transport are played, so what the relay is told is what `relay/upstream.py` would tell it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gateway.dialects.base import Surface
from gateway.dialects.registry import find
from gateway.dialects.surfaces import SURFACES
from gateway.errors import UpstreamError
from gateway.ledger.prices import Price
from gateway.providers.base import Account, HeaderPairs
from gateway.providers.headers import forwarded
from gateway.providers.registry import vendor
from gateway.record import Usage
from gateway.relay.origin import Origin
from gateway.relay.outgoing import Outgoing, Target
from gateway.relay.pool import Pool
from gateway.relay.upstream import Connection
from gateway.routing.match import Terms
from gateway.units import NS_PER_S

JSON = b"application/json"
SSE = b"text/event-stream"
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"choices":[{"message":{"content":"Hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
USED = Usage(input_tokens=3, output_tokens=2)
TERMS = Terms(
    connect_ns=2 * NS_PER_S,
    first_byte_ns=60 * NS_PER_S,
    first_content_ns=600 * NS_PER_S,
    idle_ns=300 * NS_PER_S,
    total_ns=1800 * NS_PER_S,
    hold_ns=10 * NS_PER_S,
    comment_ns=15 * NS_PER_S,
    max_attempts=3,
    synced=False,
    unrecorded=False,
)


def answer(status: int, body: bytes, content_type: bytes = JSON, *lines: bytes) -> bytes:
    """A whole answer with its length."""
    head = [b"HTTP/1.1 %d Word" % status, b"content-length: %d" % len(body), *lines]
    if content_type:
        head.append(b"content-type: " + content_type)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked answer; of nothing, the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(*events: bytes, status: int = 200) -> bytes:
    """The beginning of a chunked event stream."""
    head = b"HTTP/1.1 %d OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" % status
    return head + b"".join(chunk(event) for event in events)


END = chunk(b"")


def surface(name: str) -> Surface:
    """A surface by its name."""
    return next(surface for surface in SURFACES if surface.name == name)


def ask(body: bytes = b'{"model":"gpt","messages":[]}', name: str = "chat.completions", **fields: Any) -> Outgoing:
    """A request on its way out, read as its dialect reads it."""
    asked = surface(name)
    dialect = find(asked.dialect)
    raw = name == "passthrough"
    facts = None if raw or asked.method == "GET" else dialect.read_request(asked, body)
    given: dict[str, Any] = {
        "surface": asked,
        "dialect": dialect,
        "method": "POST",
        "path": asked.upstream_path,
        "query": "",
        "headers": forwarded(()),
        "body": body,
        "length": len(body),
        "facts": facts,
        "raw": raw,
        "streamed": facts is not None and facts.stream,
    }
    return Outgoing(**{**given, **fields})


STREAMED = b'{"model":"gpt","messages":[],"stream":true}'


class FakeTransport(asyncio.Transport):
    """A socket that goes nowhere. As uvloop's, it raises when it is written to after it was closed.

    `fail_write` counts down: at 0 a write finds the connection reset. A write of more than `high_water` bytes leaves
    the buffer full until the test calls the protocol's `resume_writing`; as in asyncio that is said once.
    """

    def __init__(self, protocol: asyncio.Protocol, wrote: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.protocol = protocol
        self.sent = b""
        self._reading = True
        self.closed = False
        self.gone = False
        self.buffered = 0
        self.fail_write = -1
        self.high_water = 1 << 62
        self._wrote = wrote

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "uvloop raises here"
        self.fail_write -= 1
        if self.fail_write == -1:
            self.lose(ConnectionResetError())
            return
        self.sent += bytes(data)
        if len(data) > self.high_water:
            self.high_water = 1 << 62
            self.protocol.pause_writing()
        self._wrote()

    def writelines(self, list_of_data: Any) -> None:  # noqa: ANN401 - the base class's word
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """The connection goes, which its protocol hears on the loop's next turn."""
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._lost, error)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading and not self.closed

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401, ARG002 - as above
        return default

    def _lost(self, error: Exception | None) -> None:
        self.gone = True
        self.protocol.connection_lost(error)


class Line:
    """The provider's end of one connection."""

    def __init__(self, connection: asyncio.Protocol, provider: "FakeProvider") -> None:
        self.connection = connection
        self.transport = FakeTransport(connection, self._hears)
        self.answered = 0  # bytes of what was asked that have been answered already
        self._provider = provider
        connection.connection_made(self.transport)

    @property
    def asked(self) -> bytes:
        """Every byte the gateway sent here."""
        return self.transport.sent

    @property
    def request(self) -> bytes:
        """What the gateway sent since the last answer began."""
        return self.asked[self.answered :]

    def is_open(self) -> bool:
        return not self.transport.closed

    def says(self, *parts: bytes) -> None:
        """Each part is one read of the gateway's; none is delivered once it has closed."""
        self.answered = len(self.asked)
        for data in parts:
            if not self.transport.closed:
                self.connection.data_received(data)

    def ends(self) -> None:
        """FIN."""
        if not self.transport.closed and not self.connection.eof_received():
            self.transport.close()

    def resets(self) -> None:
        """RST."""
        self.transport.lose(ConnectionResetError())

    def _hears(self) -> None:
        if self._provider.always and is_whole(self.request):
            asyncio.get_running_loop().call_soon(self.says, *self._provider.always)


class FakeProvider:
    """One provider account. `always` is what it answers by itself to every whole request; without, a test speaks.

    `refusals` are what the next dials come to: an error, or None for a connection. `fail_write` is given to each new
    transport. While `hangs` is set a dial waits for it.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        kind: str = "openai",
        api_key: str = "sk-own",
        price: Price | None = None,
        context_tokens: int | None = None,
        **settings: Any,
    ) -> None:
        self.price = price
        self.context_tokens = context_tokens
        self.account = Account(
            name,
            vendor(kind),
            base_url=settings.pop("base_url", "http://provider.test/v1"),
            api_key=api_key,
            caller_credential=settings.pop("caller_credential", False),
            headers=settings.pop("headers", ()),
            dedicated_to=settings.pop("dedicated_to", frozenset()),
        )
        self.pool = Pool(Origin(scheme="http", host="provider.test", port=80, **settings))
        self.pool._dialer = cast("Any", self)
        self.lines: list[Line] = []
        self.refusals: list[UpstreamError | None] = []
        self.fail_write = -1
        self.hangs: asyncio.Event | None = None
        self.always: tuple[bytes, ...] = ()
        self.on_dial: Callable[[Line], None] = lambda _: None
        self.dials = 0

    @property
    def line(self) -> Line:
        """The newest connection."""
        return self.lines[-1]

    def target(self, model: str = "gpt-real", headers: HeaderPairs = (), **options: Any) -> Target:
        """A target at this provider."""
        return Target(
            account=self.account,
            pool=self.pool,
            model=model,
            headers=headers,
            price=lambda _name: self.price,
            context_tokens=self.context_tokens,
            **options,
        )

    async def dial(self, protocol: asyncio.Protocol, timeout_s: float) -> None:  # noqa: ARG002 - as Dialer.dial
        """In place of TCP and TLS."""
        self.dials += 1
        if self.hangs is not None:
            await self.hangs.wait()
        refused = self.refusals.pop(0) if self.refusals else None
        if refused is not None:
            raise refused
        line = Line(protocol, self)
        line.transport.fail_write = self.fail_write
        self.lines.append(line)
        self.on_dial(line)

    async def warm(self) -> Line:
        """Leave one idle connection in the pool, that has served before."""
        connection = await self.pool.connect(1)
        connection.start(b"GET / HTTP/1.1\r\n\r\n", b"", Ignoring())
        self.line.says(answer(200, b"{}"))
        assert self.pool.idle == 1
        return self.line

    @property
    def busy(self) -> int:
        """Connections that are neither idle nor gone: a leak once every exchange is over."""
        return self.pool.open - self.pool.idle


class Ignoring:
    """A sink that does not listen."""

    def on_head(self, head: object) -> None: ...

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_lost(self, error: UpstreamError, *, stale: bool) -> None: ...

    def on_writable(self, writable: bool) -> None: ...


def is_whole(request: bytes) -> bool:
    """Whether a request has arrived to its end."""
    head, blank, body = request.partition(b"\r\n\r\n")
    if not blank:
        return False
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= sum(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))


def body_of(request: bytes) -> bytes:
    """The body of a request's bytes, without chunks."""
    head, _, body = request.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    plain = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        plain += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return plain


async def turns(count: int = 10) -> None:
    """Let the loop run what is due."""
    for _ in range(count):
        await asyncio.sleep(0)


def connection_of(line: Line) -> Connection:
    """The gateway's end of a line."""
    assert isinstance(line.connection, Connection)
    return line.connection
