"""The listener on a loopback socket, as a worker serves it, with providers that are played; and a caller.

    async with served() as node:
        caller = await node.caller()
        await caller.sends(chat())
        assert (await caller.answer()).status == 200

Leaving the block checks that every exchange was recorded once and that nothing was left open.
"""

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import orjson

from gateway.config.schema import Listen
from gateway.exchange import Exchange
from gateway.listener.app import Listener
from gateway.listener.connection import DownstreamConnection
from gateway.listener.respond import Responder
from gateway.listener.settings import ListenerSettings
from gateway.tls import TlsConnection
from gateway.units import NS_PER_S
from tests.fakes.patience import PATIENCE_S
from tests.fakes.provider import WHOLE, FakeProvider, answer
from tests.fakes.wired import KEY, Wired

CHAT = b'{"model":"gpt","messages":[]}'
OK = answer(200, WHOLE)


class Answer:
    """One answer as the caller read it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, *, whole: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.whole = whole  # ended as its framing promised

    @property
    def code(self) -> str:
        """The error code of a JSON refusal."""
        assert self.headers["content-type"] == "application/json"
        return str(orjson.loads(self.body)["error"]["code"])


class Caller:
    """A connection as a caller has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def sends(self, *parts: bytes) -> None:
        """Each part a write of its own, with a pause behind it in which the gateway reads it."""
        for index, data in enumerate(parts):
            if index:
                await asyncio.sleep(0.002)
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer, to its end. Raises IncompleteReadError when not even a head comes."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        headers = dict(pairs)
        assert len(headers) == len(pairs), "a header came twice"
        status = int(first.split()[1])
        if status < 200:
            return Answer(status, headers, b"", whole=True)
        body, whole = await self._body(method, status, headers)
        return Answer(status, headers, body, whole=whole)

    async def ended(self) -> bytes:
        """Wait for the gateway to close; returns what still came."""
        return await self.reader.read()

    def closes(self) -> None:
        """FIN."""
        self.writer.close()

    def resets(self) -> None:
        """RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def _body(self, method: str, status: int, headers: dict[str, str]) -> tuple[bytes, bool]:
        if method == "HEAD" or status in (204, 304):
            return b"", True
        if "content-length" in headers:
            try:
                return await self.reader.readexactly(int(headers["content-length"])), True
            except asyncio.IncompleteReadError as error:
                return error.partial, False
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read(), True
        body = b""
        while line := await self.reader.readline():
            size = int(line, 16)
            data = await self.reader.readexactly(size + 2)
            if size == 0:
                return body, True
            body += data[:-2]
        return body, False


class Node:
    """A listener, the providers behind it, and its port."""

    def __init__(self, wired: Wired, listener: Listener, port: int, tls: ssl.SSLContext | None) -> None:
        self.wired = wired
        self.listener = listener
        self.port = port
        self._tls = tls
        self.callers: list[Caller] = []

    @property
    def provider(self) -> FakeProvider:
        """The first one."""
        return self.wired.providers[0]

    async def caller(self, host: str = "127.0.0.1") -> Caller:
        """A new connection."""
        streams = await asyncio.open_connection(
            host, self.port, ssl=self._tls, server_hostname="gateway.test" if self._tls else None
        )
        self.callers.append(Caller(*streams))
        return self.callers[-1]

    async def call(self, *parts: bytes, method: str = "POST") -> Answer:
        """One answer on a connection of its own."""
        caller = await self.caller()
        await caller.sends(*parts)
        return await caller.answer(method)

    def passes(self, seconds: float) -> None:
        """Fire every deadline up to then, without waiting for it."""
        now_ns = time.monotonic_ns()
        for step in range(int(seconds * 10) + 1):
            self.listener.wheel.advance(now_ns + step * NS_PER_S // 10)


@asynccontextmanager
async def served(
    *providers: FakeProvider,
    always: Iterable[bytes] = (OK,),
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    unready: Callable[[], str] = str,
    unserved: int = 0,
    **settings: Any,
) -> AsyncIterator[Node]:
    """A node with these providers (or one that always answers); settings are the config's, or `listen`'s.

    `unserved` requests are never begun, because they stand behind one that closes the connection.
    """
    given = providers or (FakeProvider(),)
    if not providers:
        given[0].always = tuple(always)
    listen = {name: settings.pop(name) for name in list(settings) if name in Listen.__struct_fields__}
    wired = Wired(*given, listen=msgspec.convert(listen, Listen), **settings)
    listener = Listener(ListenerSettings.of(wired.config), wired.gateway, unready, "test")
    opened: list[str] = []
    next_id = listener.next_id

    def counted() -> str:
        opened.append(next_id())
        return opened[-1]

    def health(ex: Exchange, responder: Responder, *, body_follows: bool) -> None:
        opened.remove(ex.exchange_id)  # health checks leave no record
        answer_health(ex, responder, body_follows=body_follows)

    answer_health = listener.answer_health
    listener.next_id = counted  # type: ignore[method-assign] # every exchange takes one, so every one can be missed
    listener.answer_health = health  # type: ignore[method-assign]
    wired.gateway.wheel.start()
    loop = asyncio.get_running_loop()

    def accepted() -> asyncio.BaseProtocol:
        connection = DownstreamConnection(listener)
        return TlsConnection(lambda: connection, tls[0], handshake_s=PATIENCE_S, goodbye_s=1) if tls else connection

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    node = Node(wired, listener, server.sockets[0].getsockname()[1], tls[1] if tls else None)
    try:
        yield node
        for caller in node.callers:
            caller.closes()
        await until(lambda: not listener.connections)
        await until(lambda: not any(provider.busy for provider in given))
        await asyncio.sleep(0)
        recorded = [record.exchange_id for record in wired.recorded]
        assert len(set(recorded)) == len(recorded)
        assert set(recorded) <= set(opened)
        assert len(recorded) == len(opened) - unserved
        assert listener.open_streams == 0
    finally:
        server.close()
        wired.gateway.wheel.stop()
        for caller in node.callers:
            caller.writer.transport.abort()
        for connection in tuple(listener.connections):
            connection.abort()
        await asyncio.sleep(0.01)
        for provider in given:
            provider.pool.close()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what is waited for knows nothing of us
            await asyncio.sleep(0.001)


def chat(
    body: bytes = CHAT, *lines: str, path: str = "/v1/chat/completions", key: bytes = KEY, length: bool = True
) -> bytes:
    """A request's bytes."""
    given = ["host: gateway.test", "content-type: application/json", *lines]
    if key:
        given.append(f"authorization: Bearer {key.decode()}")
    if length:
        given.append(f"content-length: {len(body)}")
    return f"POST {path} HTTP/1.1\r\n".encode() + "\r\n".join(given).encode() + b"\r\n\r\n" + body


def get(path: str = "/v1/models", *lines: str, method: str = "GET", version: str = "1.1", key: bytes = KEY) -> bytes:
    """A request without a body."""
    given = ["host: gateway.test", *lines, *([f"x-api-key: {key.decode()}"] if key else [])]
    return f"{method} {path} HTTP/{version}\r\n".encode() + "\r\n".join(given).encode() + b"\r\n\r\n"
