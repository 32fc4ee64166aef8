"""Starts the fake node as a program, watches it from outside, and calls it every 5 ms while a test does its worst."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from tests.fakes.patience import PATIENCE_S

Found = TypeVar("Found")
_EVERY_S = 0.005


class Answer(NamedTuple):
    """What the fake node says about who answered."""

    build: str
    generation: int
    pid: int
    slot: int


class Broken(NamedTuple):
    """A connection that was made, and died without an answer; times are those of the monotonic clock."""

    began_s: float
    ended_s: float
    how: str

    def open_within(self, since_s: float, until_s: float) -> bool:
        """Whether it was under way at any time between these two."""
        return self.began_s <= until_s and since_s <= self.ended_s


class Caller:
    """Connects every 5 ms from a thread; `refused` are connections that failed, `broken` those that died later.

    The block begins when the first has been answered.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.answered: list[Answer] = []
        self.refused: list[str] = []
        self.broken: list[Broken] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        end = time.monotonic() + PATIENCE_S
        while not self.answered and time.monotonic() < end:
            time.sleep(_EVERY_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.answered

    def stop(self) -> None:
        """No more new connections; those that are open are waited for at the end."""
        self._stop.set()

    async def _run(self) -> None:
        calls: set[asyncio.Task[None]] = set()
        while not self._stop.is_set():
            calls.add(asyncio.create_task(self._call()))
            await asyncio.sleep(_EVERY_S)
        _, unanswered = await asyncio.wait(calls, timeout=PATIENCE_S)
        self.broken += [Broken(0, time.monotonic(), "no answer") for _ in unanswered]

    async def _call(self) -> None:
        began_s = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            self.refused.append(repr(error))
            return
        try:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.rpartition(b"content-length: ")[2])
            self.answered.append(_answer((await reader.readexactly(length)).decode()))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.broken.append(Broken(began_s, time.monotonic(), repr(error)))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class RunningNode:
    """One fake node; `config` as written to its config.json."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.directory = directory
        self.config: dict[str, Any] = {
            "build": "v1",
            "port": 0,
            "admin_port": 0,
            "workers": 2,
            "drain_s": PATIENCE_S,
            "drain_delay_s": 0.3,
            "stuck_s": 5.0,
        } | config
        self.log_path = directory / "log"
        self.write_config()
        self.process: subprocess.Popen[bytes] | None = None

    def write_config(self, **changes: Any) -> None:
        """Change the config file; nobody is told."""
        self.config |= changes
        (self.directory / "config.json").write_text(json.dumps(self.config))

    def spawn(self, **options: Any) -> "subprocess.Popen[bytes]":
        """Start the program without waiting for it."""
        command = [sys.executable, "-m", "tests.fakes.node", str(self.directory)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
        return self.process

    def __enter__(self) -> Self:
        self.spawn()
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_ready(self) -> None:
        """Until every worker accepts and control serves."""
        path = self.directory / "ready"
        self.until(lambda: path.exists() and path.read_text(), "ready")
        port, admin = path.read_text().split()
        self.port, self.admin_port = int(port), int(admin)

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        for pid in self.pids() if self.process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # --- seen from outside ------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self.process is not None
        return self.process.pid

    def pids(self) -> list[int]:
        """The supervisor and its children."""
        return [self.pid, *self.children()]

    def children(self, title: str = "") -> list[int]:
        """Living children of the supervisor whose title starts so."""
        return [pid for pid, parent, name in _processes() if parent == self.pid and name.startswith(title)]

    def session(self) -> list[int]:
        """Every process this node ever started and that lives, orphans too."""
        return [pid for pid, _, _ in _processes() if _session(pid) == self.pid]

    def workers(self) -> list[int]:
        """Pids of the workers."""
        return self.children("gw-worker")

    def control(self) -> int:
        """Pid of control."""
        return self.until(lambda: self.children("gw-control"), "control")[0]

    def log(self) -> str:
        """Everything written so far."""
        return self.log_path.read_text()

    def signal(self, number: int) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def kill(self, pid: int) -> None:
        """SIGKILL a child, and wait until it is dead, so that whoever counts the living afterwards does not find it."""
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: pid not in self.children(), f"{pid} to be dead")

    def logged(self, text: str, *, times: int = 1) -> None:
        """Wait until the log says so."""
        self.until(lambda: self.log().count(text) >= times, f"log to say {text!r}")

    def until(self, look: Callable[[], Found], what: str) -> Found:
        """Wait for a truthy result."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if found := look():
                return found
            time.sleep(0.02)
        message = f"waited {PATIENCE_S} s for {what}; log:\n{self.log()}"
        raise AssertionError(message)

    def call(self, path: str = "/") -> tuple[int, str]:
        """One request on a connection of its own: status and body."""
        return call(self.port, path)

    def ask(self) -> Answer:
        """Who answers now."""
        return _answer(self.call()[1])

    def until_workers(self, count: int, *, without: Iterable[int] = ()) -> list[int]:
        """Wait until so many workers live, none of them one of `without`."""

        def look() -> list[int]:
            workers = self.workers()
            return workers if len(workers) == count and not set(workers) & set(without) else []

        return self.until(look, f"{count} workers")

    def until_serving(self, pids: Iterable[int]) -> None:
        """Wait until these workers, all of them and nobody else, answer."""
        expected = set(pids)
        self.until(lambda: {self.ask().pid for _ in range(60)} == expected, f"{expected} to serve")

    def until_refused(self) -> None:
        """Wait until nobody accepts on the data port."""
        self.until(lambda: not self._accepts(), "callers to be refused")

    def _accepts(self) -> bool:
        try:
            self.call()
        except ConnectionRefusedError:
            return False
        return True

    def called(self, path: str = "/") -> "Pending":
        """A request sent and not yet answered."""
        return Pending(self.port, path)

    def begun(self, path: str) -> "Pending":
        """A request that a worker is busy with: `/held` or `/hang`, which end when they are released."""
        before = self._begun()
        pending = self.called(path)
        self.until(lambda: self._begun() > before, f"{path} to begin")
        return pending

    def release(self) -> None:
        """Let all requests go that were begun."""
        (self.directory / "released").touch()

    def _begun(self) -> int:
        path = self.directory / "begun"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def caller(self) -> Caller:
        """A caller every 5 ms."""
        return Caller(self.port)

    def ended(self) -> int:
        """Wait for the supervisor to end; its exit code. Nothing of it may be left."""
        assert self.process is not None
        code = self.process.wait(PATIENCE_S)
        assert self.session() == []
        return code


class Pending:
    """A request on its way."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        try:
            self._socket.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        except OSError:
            self._socket.close()
            raise

    def answer(self) -> tuple[int, str]:
        """Wait for the answer; ConnectionError when there is none."""
        with self._socket:
            received = b""
            while b"\r\n\r\n" not in received or not _whole(received):
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionResetError(received)
                received += data
        head, _, body = received.decode().partition("\r\n\r\n")
        return int(head.split()[1]), body


def call(port: int, path: str = "/") -> tuple[int, str]:
    """One request on a connection of its own."""
    return Pending(port, path).answer()


def _whole(received: bytes) -> bool:
    head, _, body = received.partition(b"\r\n\r\n")
    return len(body) >= int(head.rpartition(b"content-length: ")[2])


def _answer(body: str) -> Answer:
    build, generation, pid, slot = body.split(" ")
    return Answer(build, int(generation), int(pid), int(slot))


def _processes() -> Iterator[tuple[int, int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                fields = rest.split()
                if fields[0] != "Z":
                    yield int(entry.name), int(fields[1]), name


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1
