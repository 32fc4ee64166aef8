"""A sim in the test's own loop, and a client that sees bytes: what was received, and how the connection ended."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.sim import script
from bench.sim.app import App
from bench.sim.faults import parse
from bench.sim.log import Entry
from bench.sim.server import Server
from tests.fakes.patience import PATIENCE_S

QUIET_TURNS, QUIET_TURN_S = 20, 0.002
CHAT: dict[str, Any] = {"model": "m+tokens=3", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE: dict[str, Any] = {**CHAT, "max_tokens": 100}


@dataclass
class Heard:
    """All bytes of one answer; `ended` is fin, reset, or open when the connection still stands."""

    raw: bytes
    ended: str

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        """The body, out of its chunks; whatever follows a broken chunk is lost."""
        rest = self.raw.partition(b"\r\n\r\n")[2]
        if b"transfer-encoding: chunked" not in self.head:
            return rest
        out = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            out, rest = out + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return out

    @property
    def json(self) -> Any:  # noqa: ANN401 - a test reads what it expects, and fails where it is not
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON payloads of the body's events, without [DONE]."""
        lines = self.body.decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def whole(raw: bytes) -> bool:
    """Whether these bytes hold a whole answer on a connection that stays."""
    head, blank, body = raw.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 1"):
        return whole(body)
    if not blank or b"connection: close" in head:
        return False
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    claimed = re.search(rb"content-length: (\d+)", head)
    return claimed is not None and len(body) >= int(claimed[1])


@dataclass
class Sim:
    server: Server

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    async def send(self, raw: bytes, *, stalls: bool = False) -> Heard:
        """Send bytes and listen: to the end of one answer, of the connection where it says close, or of patience.

        Where an answer stalls, until nothing has come for a while.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(raw)
        heard, ended = b"", "open"
        try:
            while not whole(heard):
                data = await (_soon(reader) if stalls else asyncio.wait_for(reader.read(65536), PATIENCE_S))
                if not data:
                    ended = "fin"
                    break
                heard += data
        except TimeoutError:
            pass
        except ConnectionResetError:
            ended = "reset"
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return Heard(heard, ended)

    async def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Heard:
        return await self.send(request(path, body, headers))

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Heard:
        return await self.send(request(path, b"", headers, "GET"))

    async def chat(self, behaviour: str, *, stream: bool = True) -> Heard:
        """A chat completion of three tokens, behaving as told. A stall is waited for a little, all else to its end."""
        model = f"m+tokens=3+{behaviour}" if behaviour else CHAT["model"]
        raw = request("/v1/chat/completions", {**CHAT, "model": model, "stream": stream})
        return await self.send(raw, stalls="stall" in behaviour)


async def _soon(reader: asyncio.StreamReader) -> bytes:
    """What comes within some turns of the loop, which is the sim's too. Raises TimeoutError.

    Turns are counted beside the time, since a loop that was kept from running has heard nothing meanwhile.
    """
    reading = asyncio.ensure_future(reader.read(65536))
    for _ in range(QUIET_TURNS):
        if (await asyncio.wait({reading}, timeout=QUIET_TURN_S))[0]:
            return await reading
    reading.cancel()
    raise TimeoutError


async def ending(sim: Sim) -> Entry:
    """The last request's log entry, once its answer has ended; fails if that takes long."""
    entry = sim.server.app.log.entries[-1]
    async with asyncio.timeout(PATIENCE_S):
        while not entry.ended:  # noqa: ASYNC110 - the sim under test offers no event to wait for
            await asyncio.sleep(0.001)
    return entry


def request(path: str, body: object, headers: Mapping[str, str] | None = None, method: str = "POST") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: sim", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def with_sim(
    scenario: Callable[[Sim], Awaitable[None]], *, rules: object = None, behave: str = "", api_key: str | None = None
) -> None:
    """Run a scenario against a sim on a free port, on uvloop as in production."""

    async def run() -> None:
        server = Server(App(script.build(rules or {}), parse(behave), api_key))
        await server.start()
        try:
            await scenario(Sim(server))
        finally:
            await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
