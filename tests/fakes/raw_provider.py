"""A provider reduced to its socket: it answers with exactly the bytes a test gives it, and cuts when told.

`RawProvider` and `Recorder` are the two ends of an exchange as the relay sees it: a server with a script, and a sink
that writes down what it hears.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import msgspec
import uvloop

from gateway.errors import UpstreamError
from gateway.relay.origin import Origin
from gateway.relay.pool import Pool
from gateway.relay.upstream import Connection, ResponseHead
from tests.fakes.patience import PATIENCE_S

T = TypeVar("T")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GET = b"GET /v1/models HTTP/1.1\r\nhost: provider\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a test on the loop we run on in production, and never for long."""
    return uvloop.run(asyncio.wait_for(work, PATIENCE_S))


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST instead of a FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request with its content-length body; raises IncompleteReadError when the client leaves."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line[15:]))
    return head


class RawProvider:
    """Listens on a free loopback port; `handler` owns each connection, which is closed when it returns."""

    def __init__(self, handler: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self.host = host
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def origin(self, **options: str | float) -> Origin:
        """Where it listens; https by a TLS context or an option."""
        scheme = "http" if self._tls is None else "https"
        return msgspec.convert({"scheme": scheme, "host": self.host, "port": self.port} | options, Origin)


@asynccontextmanager
async def pooled(handler: Handler, **options: str | float) -> AsyncIterator[Pool]:
    """A pool in front of a provider."""
    async with RawProvider(handler) as provider:
        pool = Pool(provider.origin(**options))
        yield pool
        pool.close()


def answering(*answers: bytes, then: Callable[[asyncio.StreamWriter], None] | None = None) -> Handler:
    """Answer the Nth request of a connection with the Nth answer; afterwards close, or do `then`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()
        if then is not None:
            then(writer)

    return handle


def forever(answer: bytes) -> Handler:
    """Answer every request alike."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)

    return handle


class Recorder:
    """A sink that keeps what it heard; `events` is the order of the calls."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.head: ResponseHead | None = None
        self.body = b""
        self.error: UpstreamError | None = None
        self.stale = False
        self.writable: list[bool] = []
        self.over = asyncio.Event()

    def on_head(self, head: ResponseHead) -> None:
        self.events.append("head")
        self.head = head

    def on_body(self, data: bytes) -> None:
        self.events.append("body")
        self.body += data

    def on_end(self) -> None:
        self.events.append("end")
        self.over.set()

    def on_lost(self, error: UpstreamError, *, stale: bool) -> None:
        self.events.append("lost")
        self.error = error
        self.stale = stale
        self.over.set()

    def on_writable(self, writable: bool) -> None:
        self.writable.append(writable)


async def exchange(connection: Connection, head: bytes = GET, body: bytes = b"", **options: bool) -> Recorder:
    """One exchange, to its end."""
    heard = Recorder()
    connection.start(head, body, heard, **options)
    await heard.over.wait()
    return heard


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something is so; the test's time limit is the limit."""
    while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of us
        await asyncio.sleep(0.001)
