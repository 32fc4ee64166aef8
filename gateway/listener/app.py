"""What all connections of a worker share: the Listener.

A `Listener` holds what outlives a snapshot (deadlines, the watch on paused connections, memory budgets, counts) and
points at the current `Gateway`; swapping a snapshot replaces that pointer, and open exchanges finish on the one they
began with.

Invariants: one exchange is counted and recorded once (`finished`); nothing here waits.
"""

from collections.abc import Callable
from typing import Final

from gateway import pipeline
from gateway.dialects.base import BodyMode, Dialect
from gateway.dialects.registry import find as dialect_named
from gateway.dialects.surfaces import known_path, match
from gateway.errors import InvalidRequest, MethodNotAllowed, MissingCredential, NotFound
from gateway.exchange import Exchange
from gateway.identity import credential
from gateway.listener.address import Trust
from gateway.listener.body import Body, Limits, Spool
from gateway.listener.connection import DownstreamConnection, full_answer
from gateway.listener.head import Framing, body_mode, value_of
from gateway.listener.respond import Responder
from gateway.listener.settings import ListenerSettings
from gateway.listener.watch import Watch
from gateway.pipeline import Gateway

_GATEWAY_KEY: Final = b"x-gateway-key"
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_ANTHROPIC_PATHS: Final = "/v1/messages"


Unready = Callable[[], str]
"""Why this node should not be sent traffic; "" when it should."""


class Listener:
    """What all connections of a worker share."""

    def __init__(self, settings: ListenerSettings, gateway: Gateway, unready: Unready, prefix: str) -> None:
        self.wheel = gateway.wheel
        self.watch = Watch()
        self.connections: set[DownstreamConnection] = set()
        self.open_streams = 0
        self.draining = False
        self.full_answer = full_answer()
        self._unready = unready
        self._spool = Spool(settings.spool_total_bytes)
        self._prefix = f"req_{prefix}"
        self._count = 0
        self.adopt(settings, gateway)

    def adopt(self, settings: ListenerSettings, gateway: Gateway) -> None:
        """Follow a snapshot; open connections follow from their next request on."""
        self.gateway = gateway
        self.header_timeout_ns = settings.header_timeout_ns
        self.body_timeout_ns = settings.body_timeout_ns
        self.keepalive_ns = settings.keepalive_ns
        self.max_header_bytes = settings.max_header_bytes
        self.max_connections = settings.max_connections
        self.proxy_protocol = settings.proxy_protocol
        self.trust = Trust(settings.trusted_proxies)
        self._spool.total = settings.spool_total_bytes
        self._limits = Limits(settings.max_body_bytes, settings.spool_bytes, self._spool)

    # --- connections ------------------------------------------------------------------------------------------------

    def admit(self, connection: DownstreamConnection) -> bool:
        """Count a new connection in; False when there are too many."""
        if len(self.connections) >= self.max_connections:
            return False
        self.connections.add(connection)
        return True

    def left(self, connection: DownstreamConnection) -> None:
        """The connection is closed."""
        self.connections.discard(connection)

    def busy(self) -> int:
        """Connections with an open exchange."""
        return sum(connection.busy for connection in self.connections)

    # --- requests ---------------------------------------------------------------------------------------------------

    def next_id(self) -> str:
        """A request id: random prefix of this process, then a count."""
        self._count += 1
        return f"{self._prefix}{self._count:010x}"

    def judge(self, ex: Exchange, framing: Framing) -> BodyMode | None:
        """Find the surface and the caller of a complete head; None for a health check.

        Raises what the caller must be told before its body is read.
        """
        headers = ex.headers
        found = match(ex.method, ex.path)
        ex.dialect = self._dialect_of(ex, found.surface.dialect if found is not None else "")
        if found is None:
            if ex.path in _HEALTH and ex.method in ("GET", "HEAD"):
                return None
            if known_path(ex.path):
                raise MethodNotAllowed(f"{ex.path} does not take {ex.method}")
            raise NotFound(f"there is no API at {ex.path[:200]}")
        ex.surface, ex.params = found
        ex.connection = framing.connection
        self._note_headers(ex, headers)
        pipeline.identify(ex, self.gateway)
        mode = body_mode(ex.surface, framing)
        if mode is BodyMode.NONE and framing.length:
            raise InvalidRequest(f"{ex.path} takes no body")
        return mode

    def body(self, mode: BodyMode, framing: Framing, connection: DownstreamConnection) -> Body:
        """The intake of a request's body. Raises BodyTooLarge when its announced length is."""
        return Body(
            mode=mode,
            length=framing.length,
            encoding=b"" if mode is BodyMode.RAW else framing.encoding,
            content_type=framing.content_type,
            limits=self._limits,
            ready=connection.start,
            pause=connection.pause_reading,
            resume=connection.resume_reading,
        )

    def responder(self, ex: Exchange, connection: DownstreamConnection) -> Responder:
        """The answering side of an exchange, in the caller's dialect."""
        dialect = ex.dialect if ex.dialect is not None else self._dialect_of(ex, "")
        return Responder(ex, connection, dialect, self._on_stream)

    def answer_health(self, ex: Exchange, responder: Responder, *, body_follows: bool) -> None:
        """/healthz: this worker serves. /readyz: and the node may be sent traffic."""
        reason = self._unready() if ex.path == "/readyz" else ""
        if body_follows:
            responder.closing = True
        body = b'{"status":"ok"}' if not reason else b'{"status":"unavailable","reason":"%b"}' % reason.encode()
        responder.answer(503 if reason else 200, body)

    def finished(self, ex: Exchange) -> None:
        """The exchange is over: record it."""
        pipeline.finish(ex, self.gateway)

    def _note_headers(self, ex: Exchange, headers: list[tuple[bytes, bytes]]) -> None:
        own_key = forwarded_for = b""
        for name, value in headers:
            if name == b"user-agent":
                ex.user_agent = value[:256].decode("latin-1")
            elif name == b"traceparent":
                ex.traceparent = ex.traceparent + b"," + value if ex.traceparent else value
            elif name == b"tracestate":
                ex.tracestate = ex.tracestate + b"," + value if ex.tracestate else value
            elif name == b"x-forwarded-for":
                forwarded_for = forwarded_for + b"," + value if forwarded_for else value
            elif name == _GATEWAY_KEY:
                own_key = value
        if forwarded_for:
            ex.client_ip = self.trust.client_ip(ex.client_ip, forwarded_for)
        found = credential.find(headers)
        ex.credential = own_key or found or b""
        ex.provider_credential = found or b""
        if not ex.credential:
            raise MissingCredential("no API key: send it as `Authorization: Bearer …` or `x-api-key`")

    def _dialect_of(self, ex: Exchange, surface_dialect: str) -> Dialect:
        """The dialect to speak: the surface's, or what the request looks like where it names no surface."""
        if surface_dialect not in ("", "openai") or ex.path.startswith(_ANTHROPIC_PATHS):
            return dialect_named(surface_dialect or "anthropic")
        if ex.method == "GET" and value_of(ex.headers, b"anthropic-version"):
            return dialect_named("anthropic")
        return dialect_named("openai")

    def _on_stream(self, change: int) -> None:
        self.open_streams += change
