"""A real store for a test: redis-server on a free port of this machine, or the one that `GATEWAY_TEST_STORE` names.

`GATEWAY_TEST_STORE=redis://:password@host:port` runs the tests that only need *a* store against a Dragonfly, a Valkey
or another Redis; it must be one whose data may go. Tests that kill, stop or configure a server start their own.
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.config.storeurl import read
from gateway.limiter.resp import Parser, ReplyError, command
from tests.fakes.patience import PATIENCE_S
from tests.fakes.ports import held, port_of


class StoreConnection:
    """A plain connection that waits for each answer."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self._parser = Parser()
        self._replies: list[object] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def send(self, call: bytes) -> object:
        """Send one command's bytes and return its reply. An error reply is raised."""
        self._socket.sendall(call)
        while not self._replies:
            data = self._socket.recv(65_536)
            if not data:
                raise ConnectionError("the store closed the connection")
            self._replies += self._parser.feed(data)
        reply = self._replies.pop(0)
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def ask(self, *words: str | bytes) -> object:
        """Send one command, word by word."""
        return self.send(command(*(word.encode() if isinstance(word, str) else word for word in words)))


class StoreServer:
    """A redis-server of our own: nothing is saved, everything is in a folder that goes with it."""

    def __init__(self, *options: str, tls: bool = False, sentinel: Path | None = None) -> None:
        self.host = "127.0.0.1"
        self._held = held()
        self.port = port_of(self._held)
        self._tls = tls
        self._folder = tempfile.TemporaryDirectory(prefix="store-")
        self._options = options
        self._sentinel = sentinel  # what it watches, a file that it rewrites: then it is no store but a sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    def start(self) -> None:
        """Start, or start again, and wait until it answers."""
        ports = ("--port", "0", "--tls-port", str(self.port)) if self._tls else ("--port", str(self.port))
        quiet = ("--save", "", "--appendonly", "no", "--loglevel", "warning", "--bind", self.host)
        words = ["redis-server", *ports, *quiet, "--dir", self._folder.name, *self._options]
        if self._sentinel is not None:
            words = ["redis-server", str(self._sentinel), "--sentinel", *ports, "--bind", self.host, *self._options]
        with (Path(self._folder.name) / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + PATIENCE_S
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError((Path(self._folder.name) / "log").read_text())
            time.sleep(0.02)

    def option(self, name: str) -> str:
        """What an option was set to when this was made."""
        return self._options[self._options.index(name) + 1]

    def connect(self) -> StoreConnection:
        return StoreConnection(self.host, self.port)

    def pause(self) -> None:
        """Stop it: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: its data is gone."""
        self._signal(signal.SIGKILL)
        self._reap()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._reap()
        self._held.close()
        self._folder.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait(PATIENCE_S)
        self._process = None

    def _accepts(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def running(*options: str, tls: bool = False, sentinel: Path | None = None) -> Iterator[StoreServer]:
    """A server of our own for the length of a test."""
    server = StoreServer(*options, tls=tls, sentinel=sentinel)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def any_store() -> Iterator[str]:
    """The URL of a store: the one named in the environment, or a server of our own."""
    named = os.environ.get("GATEWAY_TEST_STORE", "")
    if named:
        yield named
        return
    with running() as server:
        yield server.url


def connect(url: str) -> StoreConnection:
    """A plain connection to a store, logged in where the URL has a password."""
    said = read(url)
    connection = StoreConnection(*said.places[0])
    if said.password:
        connection.ask("AUTH", *filter(None, (said.user, said.password)))
    return connection
