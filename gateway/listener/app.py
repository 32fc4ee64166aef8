"""What all connections of a worker share: the Listener.

A `Listener` holds what outlives a snapshot (deadlines, the watch on paused connections, memory budgets, counts) and
points at the current `Gateway`; swapping a snapshot replaces that pointer, and open exchanges finish on the one they
began with.

Invariants: one exchange is counted and recorded once (`finished`); nothing here waits.
"""

from collections.abc import Callable

from gateway import pipeline
from gateway.exchange import Exchange
from gateway.listener.address import Trust
from gateway.listener.body import Limits, Spool
from gateway.listener.connection import DownstreamConnection
from gateway.listener.head import Head
from gateway.listener.respond import Responder, full_answer
from gateway.listener.settings import ListenerSettings
from gateway.listener.watch import Watch
from gateway.pipeline import Gateway

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
        # How often a connection is looked at: in between it may have begun something with a shorter limit.
        self.look_ns = min(settings.header_timeout_ns, settings.body_timeout_ns, settings.keepalive_ns)
        self.max_header_bytes = settings.max_header_bytes
        self.max_connections = settings.max_connections
        self.proxy_protocol = settings.proxy_protocol
        self.trust = Trust(settings.trusted_proxies)
        self._spool.total = settings.spool_total_bytes
        self.limits = Limits(settings.max_body_bytes, settings.spool_bytes, self._spool)

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

    def identify(self, ex: Exchange, head: Head) -> None:
        """Who is calling, before the body is read. Raises the identity errors."""
        if head.forwarded_for:
            ex.client_ip = self.trust.client_ip(ex.client_ip, head.forwarded_for)
        pipeline.identify(ex, self.gateway)

    def answer_health(self, ex: Exchange, responder: Responder, *, body_follows: bool) -> None:
        """/healthz: this worker serves. /readyz: and the node may be sent traffic."""
        reason = self._unready() if ex.head.path == "/readyz" else ""
        if body_follows:
            responder.closing = True
        body = b'{"status":"ok"}' if not reason else b'{"status":"unavailable","reason":"%b"}' % reason.encode()
        responder.answer(503 if reason else 200, body)

    def finished(self, ex: Exchange) -> None:
        """The exchange is over: record it."""
        pipeline.finish(ex, self.gateway)
        ex.release()

    def on_stream(self, change: int) -> None:
        """Count event streams in and out."""
        self.open_streams += change
