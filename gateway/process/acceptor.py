"""Accepting from some of the node's listening sockets, as the supervisor shares them out.

A worker inherits every socket and accepts from those its board names. Taking one up or leaving one alone touches only
a duplicate of the descriptor: the socket, and what is queued on it, lives on in the other processes.

With an `ssl_context` every connection is wrapped in TLS, and its protocol is made once the handshake is done: a caller
who connects and says nothing, or something else than TLS, costs a bounded wait and is never seen by the App.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final
from weakref import WeakSet

from gateway.tls import TlsConnection

_HANDSHAKE_S: Final = 10.0
_LAST_HANDSHAKES_S: Final = 2.0  # for who connected just before we closed; the App knows nothing of them yet
_GOODBYE_S: Final = 2.0  # for the caller's close_notify; asyncio's default keeps a vanished caller for 30 s


class Acceptor:
    """The data port as one worker sees it; `connection` makes the protocol of each accepted connection."""

    ssl_context: ssl.SSLContext | None = None  # to be set before the first `accept_from`; None: plain

    def __init__(
        self, sockets: Sequence[socket.socket], connection: Callable[[], asyncio.BaseProtocol], backlog: int
    ) -> None:
        self._sockets = sockets
        self._connection = connection
        self._backlog = backlog
        self._servers: dict[int, asyncio.AbstractServer] = {}
        self._shaking: WeakSet[asyncio.Future[None]] = WeakSet()  # weak: a failed accept tells nobody

    @property
    def accepting(self) -> int:
        """Bit set of the sockets accepted from."""
        return sum(1 << index for index in self._servers)

    async def accept_from(self, bits: int) -> None:
        """Accept from these sockets and no others."""
        for index in [index for index in self._servers if not bits >> index & 1]:
            self._servers.pop(index).close()
        for index in range(len(self._sockets)):
            if bits >> index & 1 and index not in self._servers:
                self._servers[index] = await self._server(self._sockets[index])

    async def close(self, *, take_queued: bool) -> None:
        """Stop accepting and let go of all sockets; with `take_queued` serve first what waits on them.

        Closing the last descriptor of a socket resets its queue, so whoever may be last empties it first.
        """
        await self.accept_from(0)
        await asyncio.sleep(0)  # one turn for the loop to close the duplicates
        taken = [connection for listener in self._sockets for connection in _let_go(listener, take_queued=take_queued)]
        loop = asyncio.get_running_loop()
        adoptions = (loop.connect_accepted_socket(self._accepted, connection) for connection in taken)
        await asyncio.gather(*adoptions, return_exceptions=True)  # a caller who left meanwhile is no trouble of ours

    async def shaken(self) -> None:
        """Return when the handshakes that have begun are over, or have had a moment: the App has not seen them yet."""
        if shaking := set(self._shaking):
            await asyncio.wait(shaking, timeout=_LAST_HANDSHAKES_S)

    async def _server(self, listener: socket.socket) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._accepted, sock=listener.dup(), backlog=self._backlog)

    def _accepted(self) -> asyncio.BaseProtocol:
        if self.ssl_context is None:
            return self._connection()
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shaking.add(ready)
        ready.add_done_callback(self._shaken)
        return TlsConnection(
            self._connection, self.ssl_context, ready=ready, handshake_s=_HANDSHAKE_S, goodbye_s=_GOODBYE_S
        )

    def _shaken(self, ready: "asyncio.Future[None]") -> None:
        self._shaking.discard(ready)
        ready.exception()  # a caller whose handshake fails is no trouble of ours either


def _let_go(listener: socket.socket, *, take_queued: bool) -> list[socket.socket]:
    taken = []
    with listener, suppress(OSError):  # BlockingIOError: empty; EINVAL: a socket in reserve, which never listened
        listener.settimeout(0)
        while take_queued:
            connection, _ = listener.accept()
            connection.settimeout(0)
            taken.append(connection)
    return taken
