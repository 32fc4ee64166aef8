"""A store in this process: the scripts in lupa behind a transport, no socket, and every way to misbehave.

`Wire` and `Store` talk to it as to a real one, through `create_connection`. It answers in the next turn of the loop,
unless told otherwise.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from gateway.limiter.resp import Parser, bulk
from gateway.limiter.scripts import load_scripts
from tests.fakes.lua_shim import LuaShim, ScriptError


class ShimStore:
    """What a test sees and turns: `commands` are those that arrived, `connections` those that are open."""

    def __init__(self) -> None:
        self.scripts = load_scripts()
        self.shim = LuaShim(51, self.scripts)
        self.loaded: set[bytes] = set()
        self.commands: list[list[bytes]] = []
        self.writes: list[bytes] = []
        self.connections: list[ShimTransport] = []
        self.dialled: list[tuple[str, int]] = []
        self.refuses: OSError | None = None  # what dialling raises
        self.silent = False  # takes calls and does not answer; `speak` answers all
        self.error = b""  # what every call but the greeting is answered with
        self.error_at: dict[int, bytes] = {}  # as `error`, on one port
        self.refuses_at: set[int] = set()  # ports where nobody listens
        self.black_holes: set[int] = set()  # ports where dialling never ends
        self.sentinels: dict[int, Callable[[list[bytes]], bytes]] = {}  # ports where others answer, and what
        self.password = b""
        self.plain: dict[bytes, bytes] = {}  # what plain SET has set
        self.full = False  # refuses plain SET, as a store short of memory
        self._kept: list[tuple[ShimTransport, bytes]] = []

    async def create_connection(
        self,
        make: Callable[[], asyncio.Protocol],
        host: str,
        port: int,
        **_options: Any,
    ) -> tuple["ShimTransport", asyncio.Protocol]:
        """Stands for the loop's own."""
        self.dialled.append((host, port))
        await asyncio.sleep(0)
        if port in self.black_holes:
            await asyncio.Event().wait()
        if self.refuses is not None:
            raise self.refuses
        if port in self.refuses_at:
            raise ConnectionRefusedError(111, "Connection refused")
        protocol = make()
        transport = ShimTransport(self, protocol, port)
        self.connections.append(transport)
        protocol.connection_made(transport)
        return transport, protocol

    def serving(self) -> Any:  # noqa: ANN401  # a patch, used as a context manager
        """Have the running loop connect to this store."""
        return mock.patch.object(asyncio.get_running_loop(), "create_connection", self.create_connection)

    def flush_scripts(self) -> None:
        self.loaded.clear()

    def break_all(self) -> None:
        """Close every connection."""
        for connection in list(self.connections):
            connection.abort()

    def speak(self) -> None:
        """Answer what was kept, and everything from now on at once."""
        self.silent = False
        kept, self._kept = self._kept, []
        for transport, reply in kept:
            transport.deliver(reply)

    def take(self, transport: "ShimTransport", data: bytes) -> None:
        """Bytes from a client."""
        self.writes.append(data)
        calls = [words for words in transport.parser.feed(data) if isinstance(words, list)]
        if transport.port in self.sentinels:
            transport.deliver(b"".join(map(self.sentinels[transport.port], calls)))
            return
        replies = b"".join(self._reply(words, self.error or self.error_at.get(transport.port, b"")) for words in calls)
        if self.silent:
            self._kept.append((transport, replies))
        else:
            transport.deliver(replies)

    def _reply(self, words: list[bytes], error: bytes) -> bytes:
        self.commands.append(words)
        name = words[0]
        if name == b"AUTH":
            return b"+OK\r\n" if words[-1] == self.password else b"-WRONGPASS invalid username-password pair\r\n"
        if name == b"SCRIPT":
            sha = next(script.sha for script in self.scripts.values() if script.text == words[2])
            self.loaded.add(sha)
            return bulk(sha)
        if error:
            return b"-" + error + b"\r\n"
        does: dict[bytes, Callable[..., bytes]] = {
            b"EVALSHA": self._run,
            b"MGET": self._mget,
            b"SET": self._set,
            b"DEL": self._del,
            b"PING": lambda: b"+PONG\r\n",
        }
        return does[name](*words[1:]) if name in does else b"+OK\r\n"

    def _mget(self, *keys: bytes) -> bytes:
        found = [bulk(self.plain[key]) if key in self.plain else b"$-1\r\n" for key in keys]
        return b"*%d\r\n%b" % (len(found), b"".join(found))

    def _del(self, *keys: bytes) -> bytes:
        return b":%d\r\n" % sum(self.shim.rows.pop(key, None) is not None for key in keys)

    def _set(self, key: bytes, value: bytes, *options: bytes) -> bytes:
        if self.full:
            return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
        if b"NX" in options and key in self.plain:
            return b"$-1\r\n"
        self.plain[key] = value
        return b"+OK\r\n"

    def _run(self, sha: bytes, *rest: bytes) -> bytes:
        if sha not in self.loaded:
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        self.shim.now_ms = int(time.time() * 1000)
        try:
            return bulk(self.shim.run_words([b"EVALSHA", sha, *rest]))
        except ScriptError as error:
            return f"-ERR {error}".splitlines()[0].encode() + b"\r\n"


class ShimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, store: ShimStore, protocol: asyncio.Protocol, port: int) -> None:
        super().__init__()
        self.parser = Parser()
        self.port = port
        self._store = store
        self._protocol = protocol
        self._closed = False

    def write(self, data: Any) -> None:  # noqa: ANN401
        assert not self._closed
        self._store.take(self, bytes(data))

    def deliver(self, data: bytes) -> None:
        """Hand bytes to the client, in a turn of its own."""
        asyncio.get_running_loop().call_soon(self._deliver, data)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._store.connections.remove(self)
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closed

    def _deliver(self, data: bytes) -> None:
        if not self._closed:
            self._protocol.data_received(data)
