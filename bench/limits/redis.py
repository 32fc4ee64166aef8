"""A redis-server of our own: on a free port, saving nothing, killed and started anew when that is asked for.

It listens on the same port again, so whoever had its address finds it. Nothing is written to disk: a server that was
killed comes back without any data, which is the worst that a store can do.
"""

import re
import socket
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.speed import launch
from bench.speed.launch import LOOPBACK, CannotRun, Host, Process

PATIENCE_S: Final = 10.0
_SCRIPTS: Final = re.compile(rb"cmdstat_evalsha:calls=(\d+)")


class RedisServer:
    """One server; `start`, `kill` and `start` again."""

    def __init__(self, core: int, folder: Path, host: Host = LOOPBACK) -> None:
        self.port = launch.free_port()
        self._core = core
        self._host = host
        self._folder = folder
        self._running = ExitStack()
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Its address, as `limits.store` takes it."""
        return f"redis://{self._host.address}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Its process; None while there is none."""
        return self._process.pid if self._process else None

    def calls(self) -> int:
        """How often the scripts of limits were called since it was started."""
        return calls_in(_asked(self.port, b"INFO commandstats", self._host.address))

    def start(self) -> None:
        """Start, and wait until it answers. CannotRun if it does not."""
        program = launch.program("redis-server")
        if program is None:
            raise CannotRun("redis-server is missing; on Debian: apt-get install redis-server")
        words = [*self._host.enter, program, "--port", str(self.port), "--bind", self._host.address]
        words += ["--protected-mode", "no", "--save", "", "--appendonly", "no"]
        words += ["--dir", str(self._folder), "--loglevel", "warning"]
        log = self._folder / "redis.log"
        self._process = self._running.enter_context(launch.started("redis-server", words, core=self._core, log=log))
        self._process.wait_for("answer to PING", lambda: answers(self.port, self._host.address), PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL: its connections break, its data is gone."""
        if self._process is not None:
            self._process.popen.kill()
            self._process.popen.wait()
        self.close()  # while nobody else can have its number

    def close(self) -> None:
        """No more of it."""
        self._running.close()
        self._process = None


def answers(port: int, address: str = LOOPBACK.address) -> bool:
    """Whether a server answers PING."""
    try:
        return _asked(port, b"PING", address).startswith(b"+PONG")
    except OSError:
        return False


def calls_in(statistics: bytes) -> int:
    """How often scripts were called, by what a server says of its commands (INFO commandstats)."""
    found = _SCRIPTS.search(statistics)
    return int(found[1]) if found else 0


def _asked(port: int, words: bytes, address: str) -> bytes:
    """The first part of the answer to a command; a few KB hold it all."""
    with socket.create_connection((address, port), timeout=1) as connection:
        connection.sendall(words + b"\r\n")
        return connection.recv(65_536)


@contextmanager
def redis_server(core: int, host: Host = LOOPBACK) -> Generator[RedisServer, None, None]:
    """A running server in a folder of its own, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        server = RedisServer(core, Path(folder), host)
        try:
            server.start()
            yield server
        finally:
            server.close()
