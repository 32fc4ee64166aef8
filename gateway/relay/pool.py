"""The connections of one worker to one origin: taken, used, put back.

The most recently used idle connection goes out first, so under light load few stay warm and the rest age out. A
connection is closed when it has been idle for `idle_s`, and is not used again after `max_age_s` less up to a tenth,
drawn for each: connections opened in the same second must not all have to be opened anew in the same second.

Invariants: an idle connection is open, complete, and in `_idle` only; `open` counts connecting, busy and idle ones and
never exceeds `max_connections`. `take` and `put` are plain calls without a task, a future or a lock.

Left out: waiting for a connection when all are in use. A queue here would hide overload from admission and breakers;
the caller is told at once. Racing an idle connection against a new one is left out too.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from gateway.errors import Overloaded, UpstreamConnectError
from gateway.relay.connect import Dialer
from gateway.relay.origin import Origin
from gateway.relay.upstream import Connection
from gateway.units import NS_PER_S

MAX_SWEEP_S: Final = 15
AGE_SPREAD: Final = 0.1  # of max_age_s


class Pool:
    """Connections to `origin`; belongs to one event loop.

    Making one may read TLS files, so it happens when a config is loaded. Raises ValueError, naming the setting, if
    they cannot be used. `jitter` answers a number in [0, 1).
    """

    def __init__(
        self,
        origin: Origin,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.origin = origin
        self._now_ns = now_ns
        self._jitter = jitter
        self._dialer = Dialer(origin, now_ns=now_ns)
        self._target_prefix = origin.target_prefix
        # Inside a tunnel only the CONNECT is for the proxy; without one each request is.
        self._proxy_header = origin.proxy_authorization if self._target_prefix else b""
        self._max_idle = origin.max_idle
        self._idle_ns = int(origin.idle_s * NS_PER_S)
        self._idle: dict[Connection, None] = {}  # in order of last use
        self._connected: set[Connection] = set()
        self._connecting = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        """Connections waiting to be taken."""
        return len(self._idle)

    @property
    def open(self) -> int:
        """All connections: connecting, busy and idle."""
        return len(self._connected) + self._connecting

    def take(self) -> Connection | None:
        """The most recently used idle connection, or None: then `connect`. Start an exchange on it, or abort it."""
        idle = self._idle
        if not idle:
            return None
        now_ns = self._now_ns()
        while idle:
            connection = idle.popitem()[0]
            if connection.usable_until_ns > now_ns and not connection.closing():
                return connection
            connection.retire()
        return None

    async def connect(self, timeout_s: float) -> Connection:
        """A new connection, within `timeout_s` for name, TCP, proxy and TLS together.

        Raises UpstreamConnectError, its UpstreamConnectTimeout, or Overloaded when `max_connections` are open.
        """
        if self.open >= self.origin.max_connections:
            raise Overloaded(
                "All connections this node may have to the provider are in use: retry, or raise `max_connections`.",
                retry_after_s=1,
                detail=self.origin.host_port,
            )
        connection = Connection(
            self,
            target_prefix=self._target_prefix,
            proxy_header=self._proxy_header,
            retire_at_ns=self._now_ns() + self._lifetime_ns(),
        )
        self._connecting += 1
        try:
            await self._dialer.dial(connection, timeout_s)
        finally:
            self._connecting -= 1
        if connection.closing():
            raise UpstreamConnectError("The provider closed the connection at once.", detail=self.origin.host_port)
        self._connected.add(connection)
        return connection

    def close(self) -> None:
        """Close idle connections now and busy ones when their exchange ends; safe to call twice."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle:
            self._idle.popitem()[0].retire()

    def sweep(self) -> None:
        """Close the idle connections whose time has come; a timer calls this while there are any."""
        now_ns = self._now_ns()
        for connection in [c for c in self._idle if c.usable_until_ns <= now_ns]:
            del self._idle[connection]
            connection.retire()

    # --- called by connections --------------------------------------------------------------------------------------

    def put(self, connection: Connection) -> None:
        """Keep a connection whose exchange ended well, unless there are enough or its time has come."""
        now_ns = self._now_ns()
        if self._closed or connection.retire_at_ns <= now_ns or len(self._idle) >= self._max_idle:
            connection.retire()
            return
        until_ns = now_ns + self._idle_ns
        retire_at_ns = connection.retire_at_ns
        connection.usable_until_ns = until_ns if until_ns < retire_at_ns else retire_at_ns  # noqa: FURB136 - 0.1 us
        self._idle[connection] = None
        if self._timer is None:
            self._arm()

    def forget(self, connection: Connection) -> None:
        """A connection is closed; it is counted no more."""
        self._idle.pop(connection, None)
        self._connected.discard(connection)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _lifetime_ns(self) -> int:
        return int(self.origin.max_age_s * (1 - AGE_SPREAD * self._jitter()) * NS_PER_S)

    def _arm(self) -> None:
        after_s = min(max(self.origin.idle_s / 4, 0.05), MAX_SWEEP_S)
        self._timer = asyncio.get_running_loop().call_later(after_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.sweep()
        if self._idle:
            self._arm()
