"""How many calls a request takes in a worker: a measure of work that no busy machine moves.

    python -m bench.calls          calls a plain request, one that four limits count, and a chunk of a stream; as JSON

A worker's own data plane, as `gateway serve` wires it (keys, metrics, journal), runs on its loop in this process. One
thread is its caller and its provider at once, in lock step: it sends a request, answers it, reads the answer, and only
then sends the next; each piece of a stream likewise. So the loop is given the same every time, and the number of Python
functions and of C functions it calls (`sys.setprofile`) repeats to about one in a hundred, the rest being timers.

It tells nothing of how long a call takes: a loop inside one function is one call. It catches what most often makes a
hot path slow, one more layer, property, callback or task a request, where a time would need a quiet machine.
"""

import argparse
import asyncio
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import uvloop
import yaml

from bench import program
from bench.speed import workload
from bench.speed.targets import Gateway, Limited, Place
from gateway.cli import serve
from gateway.config.load import load
from gateway.limiter.shared import Caretaker
from gateway.listener.worker import DataPlane
from gateway.nodestate import NodeState
from gateway.process.worker import WorkerContext
from gateway.segment import Segment

SECRET: Final = "gw-" + "c" * 43
WARMUP, REQUESTS, CHUNKS = 20, 200, 200
PATIENCE_S: Final = 20.0
ANSWER: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Yes."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":200,"completion_tokens":2,"total_tokens":202}}'
)
EVENT: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"delta":{"content":"word "},"finish_reason":null}]}\n\n'
)
STOP: Final = EVENT.replace(b'{"content":"word "},"finish_reason":null', b'{},"finish_reason":"stop"')
END: Final = STOP + b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Calls:
    """Calls of Python functions and of C functions, on average."""

    python: float
    c: float


class Counter:
    """Counts calls on the thread that `begin` and `end` are called on."""

    def __init__(self) -> None:
        self.python = 0
        self.c = 0

    def begin(self) -> None:
        """From zero."""
        self.python = self.c = 0
        sys.setprofile(self._event)

    def end(self) -> None:
        """No more."""
        sys.setprofile(None)

    def _event(self, _: FrameType, event: str, __: object) -> None:
        if event == "call":
            self.python += 1
        elif event == "c_call":
            self.c += 1

    def each(self, count: int) -> Calls:
        """On average over so many."""
        return Calls(self.python / count, self.c / count)


def head_end(data: bytes) -> int:
    """Where the head of a message ends; -1 when it has not ended yet."""
    at = data.find(b"\r\n\r\n")
    return at + 4 if at >= 0 else -1


def chunk(data: bytes) -> bytes:
    """As one piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Partner:
    """The worker's caller and its provider in one: blocking sockets, one step after the other."""

    def __init__(self, port: int, listening: socket.socket) -> None:
        self._caller = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._listening = listening
        self._provider: socket.socket | None = None

    def request(self, body: bytes) -> socket.socket:
        """Send one, and read it at the other side."""
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {SECRET}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._caller.sendall(head.encode() + body)
        if self._provider is None:
            self._provider, _ = self._listening.accept()
            self._provider.settimeout(PATIENCE_S)
        message(self._provider)
        return self._provider

    def plain(self, body: bytes) -> None:
        """A request and its whole answer."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
        self.request(body).sendall(head + ANSWER)
        if not message(self._caller).endswith(ANSWER[-20:]):
            raise RuntimeError("the worker answered otherwise than its provider")

    def begin_stream(self, body: bytes) -> None:
        """A request, the answer's head and its first event."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self.request(body).sendall(head + chunk(EVENT))
        self._until(b"word ")

    def event(self) -> None:
        """One more event through the worker."""
        if self._provider is None:
            raise RuntimeError("no stream has begun")
        self._provider.sendall(chunk(EVENT))
        self._until(b"word ")

    def end_stream(self) -> None:
        """The last of it."""
        if self._provider is None:
            raise RuntimeError("no stream has begun")
        self._provider.sendall(chunk(END) + b"0\r\n\r\n")
        self._until(b"0\r\n\r\n")

    def _until(self, wanted: bytes) -> None:
        data = b""
        while wanted not in data:
            got = self._caller.recv(65536)
            if not got:
                raise RuntimeError(f"the worker closed after {data!r}")
            data += got

    def close(self) -> None:
        """Both sides."""
        self._caller.close()
        if self._provider is not None:
            self._provider.close()


def message(connection: socket.socket) -> bytes:
    """One message with a content-length, whole."""
    data = b""
    while (end := head_end(data)) < 0:
        data += _more(connection)
    length = next(
        int(line.partition(b":")[2])
        for line in data[:end].lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while len(data) < end + length:
        data += _more(connection)
    return data


def _more(connection: socket.socket) -> bytes:
    got = connection.recv(65536)
    if not got:
        raise RuntimeError("the worker closed its connection")
    return got


def script(port: int, listening: socket.socket, on_loop: Callable[[Callable[[], None]], None]) -> dict[str, Calls]:
    """What the partner does, and what it counts: `on_loop` runs a function on the worker's thread and waits for it."""
    counter, partner = Counter(), Partner(port, listening)
    body = workload.Workload("plain").body()
    streamed = workload.Workload("stream", stream=True).body()
    try:
        for _ in range(WARMUP):
            partner.plain(body)
        on_loop(counter.begin)
        for _ in range(REQUESTS):
            partner.plain(body)
        on_loop(counter.end)
        found = {"request": counter.each(REQUESTS)}
        partner.begin_stream(streamed)
        for _ in range(WARMUP):
            partner.event()
        on_loop(counter.begin)
        for _ in range(CHUNKS):
            partner.event()
        on_loop(counter.end)
        partner.end_stream()
        return found | {"chunk": counter.each(CHUNKS)}
    finally:
        partner.close()


async def counted(folder: Path, gateway: Gateway) -> dict[str, Calls]:
    """Calls of a worker's data plane on this loop."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE_S)
        plane = data_plane(folder, gateway, listening.getsockname()[1])
        await plane.start()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(plane.connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        def on_loop(function: Callable[[], None]) -> None:
            done = threading.Event()

            def then_tell() -> None:
                function()
                done.set()

            loop.call_soon_threadsafe(then_tell)
            if not done.wait(PATIENCE_S):
                raise RuntimeError("the worker's loop does not turn")

        try:
            return await asyncio.to_thread(script, port, listening, on_loop)
        finally:
            server.close()
            await plane.stop()


def data_plane(folder: Path, gateway: Gateway, provider_port: int) -> DataPlane:
    """As `gateway serve` makes a worker's, with the bench's settings."""
    place = Place(0, provider_port, folder, 1000)
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(gateway.config(place, 0, SECRET)))
    config = load(path)
    settings = serve._settings(config, argparse.Namespace(config=path, set=()))  # noqa: SLF001 - as serve does
    generation = serve._publish(str(path), (), str(settings.state_dir))  # noqa: SLF001 - as serve does
    segment = Segment.create(settings.sections, settings.slots())
    state = NodeState(segment)
    Caretaker(config.limits).open(state)
    context = WorkerContext(settings, segment, state, 0, generation, time.monotonic_ns())
    return serve._data_plane(config, context)  # noqa: SLF001 - as serve does


def measure() -> dict[str, Calls]:
    """Calls a request, a limited one, and a chunk."""
    free, limited = (_measured(gateway) for gateway in (Gateway(), Limited()))
    return free | {"limited": limited["request"]}


def _measured(gateway: Gateway) -> dict[str, Calls]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-calls-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(counted(Path(folder), gateway))


def carry_out() -> int:
    """Count, and print."""
    print(json.dumps({name: asdict(calls) for name, calls in measure().items()}))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.calls", description="How many calls a request takes in a worker.")
    parser.parse_args(arguments)
    return program.ended("bench.calls", carry_out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
