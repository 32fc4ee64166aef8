"""HTTP/1.1 on a socket: requests in, players out.

One protocol object per connection, no task per request. Requests are parsed by llhttp; a body is hashed as it
arrives and kept up to KEPT_BYTES. Answers go out one at a time; requests pipelined behind them wait, up to
MAX_WAITING, beyond which the connection is closed. Reading is never paused, because reading is how a peer's leaving
is noticed: EOF or an error while an answer plays counts as the peer's abort, at that moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import sys
import time
from collections import deque
from dataclasses import replace
from typing import cast

import httptools

from bench.sim.app import Answered, App
from bench.sim.faults import PLAIN
from bench.sim.log import Log
from bench.sim.play import Player
from bench.sim.wire import Headers, Reply, Request, head

KEPT_BYTES = 64 << 20
MAX_WAITING = 64
BACKLOG = 4096
BAD_REQUEST = head(400, [("content-length", "0"), ("connection", "close")])
CONTINUE = head(100, [])

logger = logging.getLogger("sim")


class Connection(asyncio.Protocol):
    """One downstream connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._player: Player | None = None
        self._playing: Answered | None = None
        self._url = b""
        self._headers: Headers = []
        self._body = bytearray()
        self._body_len = 0
        self._digest = hashlib.sha256()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to be counted."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop whatever was playing: nobody hears it."""
        del exc
        self._server.forget(self)
        self._abandon()
        self._waiting.clear()

    def eof_received(self) -> bool:
        """Take a half-close during an answer for the peer leaving; no provider's client does otherwise."""
        if self._player is not None and self._transport is not None:
            self._abandon()
            self._transport.abort()
        return False

    def pause_writing(self) -> None:
        """Let the player wait for the peer."""
        if self._player is not None:
            self._player.pipe.pause()

    def resume_writing(self) -> None:
        """Let the player go on."""
        if self._player is not None:
            self._player.pipe.resume()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse()

    def abort(self) -> None:
        """Drop the connection now: the process is stopping."""
        if self._transport is not None:
            self._transport.abort()

    def on_message_begin(self) -> None:
        """Forget the request before."""
        self._url, self._headers, self._body, self._body_len = b"", [], bytearray(), 0
        self._digest = hashlib.sha256()

    def on_url(self, url: bytes) -> None:
        """Keep the target, which may come in parts."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, in its place among the others."""
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """Invite the body of a caller that waits to be asked."""
        if self._transport and any(name == "expect" and "100" in value for name, value in self._headers):
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Hash a part of the body, and keep it within bounds."""
        self._body_len += len(body)
        self._digest.update(body)
        if len(self._body) < KEPT_BYTES:
            self._body += body

    def on_message_complete(self) -> None:
        """Answer, or queue behind the answer that is playing."""
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._url.decode("latin-1"),
            self._headers,
            self._parser.get_http_version() == "1.0",
            bytes(self._body),
            self._body_len,
            self._digest.hexdigest(),
            time.monotonic(),
        )
        self._body = bytearray()
        self._waiting.append(request)
        if self._player is None:
            self._next()
        elif len(self._waiting) > MAX_WAITING:
            self.abort()

    def _next(self) -> None:
        transport = self._transport
        if not self._waiting or transport is None or transport.is_closing():
            return
        request = self._waiting.popleft()
        answered = self._playing = self._server.answer(request)
        self._player = Player(transport, answered.reply, answered.behaviour, answered.entry, self._done)
        self._player.start()

    def _done(self, keep: bool) -> None:  # noqa: FBT001 - a callback with one argument
        self._player = None
        self._report()
        if keep:
            self._next()

    def _abandon(self) -> None:
        player, self._player = self._player, None
        if player is not None:
            player.abandon()
            self._report()

    def _report(self) -> None:
        answered, self._playing = self._playing, None
        if answered is not None and answered.entry.status and not self._server.quiet:
            entry = answered.entry
            shown = f"{entry.method} {entry.path} {entry.status} {entry.ended} {entry.ended_ms or 0:.1f}ms"
            print(f"sim: {shown} {entry.model} {entry.behaviour}".rstrip(), file=sys.stderr, flush=True)

    def _refuse(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(BAD_REQUEST)
            self._transport.close()


class Server:
    """A listening sim: `await start()`, read `url`, `await stop()`."""

    def __init__(self, app: App, *, quiet: bool = True) -> None:
        self.app, self.quiet = app, quiet
        self.connections: set[Connection] = set()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._emptied = asyncio.Event()
        self._emptied.set()

    async def start(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen; port 0 takes a free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, ssl=tls, backlog=BACKLOG)
        bound = self._server.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.url = f"http{'s' if tls else ''}://{shown}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        if self.connections:
            self._emptied.clear()
        for connection in list(self.connections):
            connection.abort()
        await self._emptied.wait()

    def forget(self, connection: Connection) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        if not self.connections:
            self._emptied.set()

    def answer(self, request: Request) -> Answered:
        """The app's answer; a bug in it is reported and becomes a 500 nobody asked for."""
        try:
            answered = self.app.answer(request)
        except Exception:
            logger.exception("sim failed on %s %s", request.method, request.path)
            body = b'{"error":{"message":"sim has a bug; see its log","type":"sim_bug","param":null,"code":null}}'
            return Answered(Reply(500, [("content-type", "application/json")], body), PLAIN, Log().open(request))
        if request.method == "HEAD" or request.http10:
            return _old_or_bodiless(request, answered)
        return answered


def _old_or_bodiless(request: Request, answered: Answered) -> Answered:
    """HEAD wants no body; HTTP/1.0 knows no chunks."""
    if request.method == "HEAD":
        answered.reply.body = b""
    return answered._replace(behaviour=replace(answered.behaviour, http10=request.http10 or answered.behaviour.http10))


def tls_context(cert: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """A server context; with a client CA, callers must show a certificate it signed. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["http/1.1"])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
