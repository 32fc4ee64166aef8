"""A gateway with nothing in it: the process layer around an app that answers who it is.

`python -m tests.fakes.node DIR` serves as DIR/config.json says. Paths: `/` answers `build generation pid slot`,
`/readyz` 200 or 503, `/held` answers once DIR/released is there, `/hang` blocks the loop until then, `/poison` dies
reading its body, `/poison` again and again is refused (400). Each `/held` and `/hang` adds a line to DIR/begun. The
admin port answers `control pid`.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

from gateway.nodestate import NODE, body_mark
from gateway.process.control import ControlContext
from gateway.process.node import Node
from gateway.process.settings import ServeSettings
from gateway.process.sockets import port_of
from gateway.process.supervisor import serve
from gateway.process.worker import WorkerContext
from gateway.segment import Section
from gateway.tasks import spawn

POISON = b"poison"
_FIRST_REQUEST_S = 10.0
_LOOK_S = 0.01


class Connection(asyncio.Protocol):
    """One caller; a request is whatever arrives in one piece."""

    def __init__(self, app: "ToyApp") -> None:
        self.app = app
        self.busy = False
        self.first_request_by = time.monotonic() + _FIRST_REQUEST_S
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self.app.open.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self.app.open.discard(self)

    def is_open(self) -> bool:
        """True while a request is served, or may be on its way: a caller who has only just connected has sent one."""
        return self.busy or time.monotonic() < self.first_request_by

    def data_received(self, data: bytes) -> None:
        self.busy = True
        self.first_request_by = 0.0
        path = data.split(b" ", 2)[1].decode()
        if path == "/held":
            spawn(self.answer_once_released(), name="held")
            return
        self.answer(*self.app.respond(path))

    async def answer_once_released(self) -> None:
        self.app.begun()
        while not self.app.released():  # noqa: ASYNC110  another process says so
            await asyncio.sleep(_LOOK_S)
        self.answer(200, "late but whole")

    def answer(self, status: int, body: str) -> None:
        assert self.transport is not None
        self.busy = False
        if self.transport.is_closing():
            return
        close = "close" if self.app.draining else "keep-alive"
        head = f"HTTP/1.1 {status} X\r\nconnection: {close}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write((head + body).encode())
        if self.app.draining:
            self.transport.close()


class ToyApp:
    """The App of the fake node."""

    ssl_context = None

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.directory = context.settings.config.parent
        self.state = context.state
        self.words = context.state.slot(context.slot)
        self.config: dict[str, Any] = {}
        self.draining = False
        self.open: set[Connection] = set()

    async def start(self) -> None:
        await self.swap(self.context.generation)
        if self.config.get("fail_start"):
            message = "told to fail"
            raise RuntimeError(message)

    def connection(self) -> Connection:
        return Connection(self)

    async def swap(self, generation: int) -> None:
        config = json.loads((self.context.settings.state_dir / f"{generation}.json").read_bytes())
        if config.get("fail_swap"):
            message = "told not to swap"
            raise RuntimeError(message)
        self.config = config

    def begin_drain(self) -> None:
        self.draining = True

    async def drained(self) -> None:
        while any(connection.is_open() for connection in self.open):  # noqa: ASYNC110  seldom, and plain
            await asyncio.sleep(_LOOK_S)

    async def stop(self) -> None:
        for connection in list(self.open):
            if connection.transport:
                connection.transport.close()

    def begun(self) -> None:
        with (self.directory / "begun").open("a") as file:
            file.write(f"{os.getpid()}\n")

    def released(self) -> bool:
        return (self.directory / "released").exists()

    def respond(self, path: str) -> tuple[int, str]:
        if path == "/readyz":
            return (503, "draining") if self.draining or self.state.draining else (200, "ready")
        if path == "/hang":
            self.begun()
            while not self.released():
                time.sleep(_LOOK_S)
        if path == "/poison":
            return self.read(POISON)
        build = self.config.get("build", "")
        return 200, f"{build} {self.words.generation} {os.getpid()} {self.context.slot}"

    def read(self, body: bytes) -> tuple[int, str]:
        mark = body_mark(body)
        if self.state.is_refused(mark, time.monotonic_ns()):
            return 400, "refused"
        self.words.reading = mark
        os.kill(os.getpid(), signal.SIGKILL)
        return 500, "still here"


async def toy_control(context: ControlContext) -> None:
    """Answers on the admin port, and reloads."""
    server = await asyncio.start_server(_admin, sock=context.admin.dup())
    context.ready()
    while (request := await context.next_reload()) is not None:
        try:
            generation = write_snapshot(context.settings)
        except ValueError as error:
            logging.getLogger("toy").warning("config refused: %s", error)
            context.reload_refused(request)
        else:
            context.state.workers_wanted = json.loads(context.settings.config.read_bytes())["workers"]
            context.reloaded(request, generation)
    server.close()


async def _admin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = f"control {os.getpid()}"
    writer.write(f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
    writer.close()


def write_snapshot(settings: ServeSettings) -> int:
    """Copy the config to the next generation's file; ValueError when it is no JSON."""
    text = settings.config.read_bytes()
    json.loads(text)
    generations = [int(path.stem) for path in settings.state_dir.glob("*.json")]
    generation = max(generations, default=0) + 1
    (settings.state_dir / f"{generation}.json").write_bytes(text)
    return generation


def main(directory: Path) -> int:
    """Serve as the directory says; `--check` only reads the config."""
    config = json.loads((directory / "config.json").read_bytes())
    if "--check" in sys.argv:
        return int(config.get("fail_check", False))
    own = [sys.executable, "-m", "tests.fakes.node", str(directory)]
    sections = (NODE, Section("extra", version=1, words_per_slot=config.get("extra", 1)))
    names = ("host", "port", "admin_port", "workers", "drain_s", "drain_delay_s", "stuck_s", "upgrade_s")
    settings = ServeSettings(
        config=directory / "config.json",
        state_dir=directory / "state",
        argv=tuple(own),
        preflight=(*own, "--check"),
        sections=sections,
        **{name: config[name] for name in names if name in config},
    )

    def ready(node: Node) -> None:
        (directory / "ready").write_text(f"{port_of(node.listening.data[0])} {port_of(node.listening.admin)}")

    def imported(old: object, new: object) -> None:
        with (directory / "imported").open("a") as file:
            file.write(f"{old is not new}\n")

    return serve(
        settings,
        ToyApp,
        toy_control,
        publish=lambda: write_snapshot(settings),
        on_ready=ready,
        import_counters=imported,
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    raise SystemExit(main(Path(sys.argv[1])))
