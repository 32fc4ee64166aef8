"""The data plane as the process model drives it: start, swap a snapshot, drain, stop.

Knows nothing of processes: it is handed a loader (generation → Gateway) and the node's board, and runs on one loop.
"""

import asyncio
import secrets
import ssl
from collections.abc import Callable
from typing import Final

from gateway.listener.app import Listener
from gateway.listener.connection import DownstreamConnection
from gateway.listener.settings import ListenerSettings
from gateway.listener.tls import ServerTls
from gateway.nodestate import NodeState
from gateway.pipeline import Gateway

_TICK_S: Final = 1.0
_POLL_S: Final = 0.2
_DRAIN_POLL_S: Final = 0.02

Load = Callable[[int], Gateway]


class DataPlane:
    """One worker's App."""

    def __init__(self, load: Load, node: NodeState, generation: int) -> None:
        self._load = load
        self._node = node
        self._generation = generation
        self._tls: ServerTls | None = None
        self._listener: Listener
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """What the data port's connections are wrapped in; None for plain HTTP. Known once started."""
        return self._tls.context if self._tls is not None else None

    async def start(self) -> None:
        """Load the snapshot and be ready for connections; raising ends the process."""
        gateway = self._load(self._generation)
        config = gateway.config
        if config.listen.tls is not None:
            self._tls = ServerTls(config.listen.tls)
        self._listener = Listener(ListenerSettings.of(config), gateway, self._unready, secrets.token_hex(6))
        gateway.wheel.start()
        self._tick()
        self._poll()

    def connection(self) -> asyncio.BaseProtocol:
        """The protocol of a newly accepted connection."""
        return DownstreamConnection(self._listener)

    async def swap(self, generation: int) -> None:
        """Adopt another snapshot; raising keeps the one in use. Open exchanges finish on the one they began with."""
        gateway = self._load(generation)
        tls = gateway.config.listen.tls
        if self._tls is not None and tls is not None:
            self._tls.reload(tls)
        old = self._listener.gateway
        self._listener.adopt(ListenerSettings.of(gateway.config), gateway)
        self._generation = generation
        old.retire(gateway)

    def begin_drain(self) -> None:
        """Answer with `Connection: close` from now on; /readyz fails."""
        self._listener.draining = True
        for connection in self._listener.connections:
            connection.close_after_answer()

    async def drained(self) -> None:
        """Close idle connections, and return when no exchange is open."""
        while True:
            for connection in tuple(self._listener.connections):
                connection.close_if_idle()
            if not self._listener.busy():
                return
            await asyncio.sleep(_DRAIN_POLL_S)

    async def stop(self) -> None:
        """Close what is left."""
        for timer in self._timers.values():
            timer.cancel()
        for connection in tuple(self._listener.connections):
            connection.abort()
        await asyncio.sleep(0)  # one turn, in which aborted exchanges are recorded
        await asyncio.sleep(0)
        gateway = self._listener.gateway
        gateway.wheel.stop()
        await gateway.close()

    def _unready(self) -> str:
        if self._listener.draining or self._node.draining:
            return "draining"
        return "reading what was used of limits" if self._node.recounting else ""

    def _tick(self) -> None:
        self._timers["tick"] = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        self._listener.gateway.tick(self._listener.open_streams, len(self._listener.connections))

    def _poll(self) -> None:
        self._timers["poll"] = asyncio.get_running_loop().call_later(_POLL_S, self._poll)
        self._listener.gateway.poll()
