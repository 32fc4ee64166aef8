"""A PostgreSQL server of one's own, from Debian's package: made in a temporary directory, started, killed, restarted.

It runs as a user other than root, as it insists on, listens on the loopback with a password, and is gone afterwards.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

from tests.fakes.ports import held, port_of

PASSWORD: Final = "pass-word-of-the-tests-9"
USER: Final = "gateway"
_PACKAGES: Final = Path("/usr/lib/postgresql")
_WAIT_S: Final = 60.0


def programs() -> Path:
    """Where the newest server's programs are."""
    found = sorted(_PACKAGES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    assert found, "no PostgreSQL server; `make test` installs it as root, else: sudo apt-get install postgresql"
    return found[-1].parent


class Postgres:
    """A server in a context; `url` is a database on it, owned by an ordinary user with a password."""

    def __init__(self) -> None:
        self._programs = programs()
        self._root = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # sockets need a short path
        self._data = self._root / "data"
        self._server: subprocess.Popen[bytes] | None = None
        self._as_user = _unprivileged()
        self._held = held()
        self.port = port_of(self._held)

    @property
    def url(self) -> str:
        """The database, with its password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/usage"

    def __enter__(self) -> Self:
        if self._as_user is not None:
            os.chown(self._root, self._as_user, -1)
        try:
            self._make()
            self.start()
            self.sql("CREATE DATABASE usage", database="postgres")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AssertionError):
            self.stop()
        self._held.close()
        shutil.rmtree(self._root)

    # --- turns of its life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, and wait until it serves; after a kill it recovers first, once its old processes have left."""
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            command: list[str | Path] = [
                self._programs / "postgres",
                "-D",
                self._data,
                "-p",
                str(self.port),
                "-k",
                self._root,
            ]
            self._server = self._spawn(command)
            if self._serves(end):
                return
        raise AssertionError(self.log())

    def stop(self) -> None:
        """Stop at once and in order: connections are cut, everything committed is on the disk."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """As a crash ends it."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It stands still: connections are open, and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self._signal_all(signal.SIGCONT)

    def sql(self, statement: str, *, database: str = "usage") -> str:
        """What psql prints for a statement."""
        environment = {"PGPASSWORD": PASSWORD, "PATH": os.environ["PATH"], "LC_ALL": "C"}
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        done = subprocess.run(
            [self._programs / "psql", *where, "-X", "-A", "-t", "-q", "-c", statement],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            check=True,
        )
        return done.stdout.strip()

    def log(self) -> str:
        """What the server has written."""
        path = self._root / "log"
        return path.read_text() if path.exists() else ""

    # --- parts ------------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        secret = self._root / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        command: list[str | Path] = [self._programs / "initdb", "-D", self._data, "-U", USER, f"--pwfile={secret}"]
        made = self._spawn([*command, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
        assert made.wait(_WAIT_S) == 0, self.log()

    def _spawn(self, command: Sequence[str | Path]) -> "subprocess.Popen[bytes]":
        with (self._root / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._root,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                user=self._as_user,
                start_new_session=True,
            )

    def _serves(self, end: float) -> bool:
        """Whether it comes to serve; False when it has ended instead."""
        assert self._server is not None
        while time.monotonic() < end and self._server.poll() is None:
            with contextlib.suppress(subprocess.CalledProcessError):
                self.sql("SELECT 1", database="postgres")
                return True
            time.sleep(0.05)
        return False

    def _end(self, number: int) -> None:
        assert self._server is not None
        pids = self._pids()
        self._server.send_signal(number)
        self._server.wait(_WAIT_S)
        self._server = None
        _until(lambda: not any(_lives(pid) for pid in pids), "its processes to leave")

    def _signal_all(self, number: int) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):  # a process of a connection that has ended meanwhile
                os.kill(pid, number)

    def _pids(self) -> list[int]:
        """The server and its children."""
        assert self._server is not None
        own = self._server.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]


def _unprivileged() -> int | None:
    """Whom a server may run as, where this is root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise AssertionError("root may not run a PostgreSQL server, and there is nobody else")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(look: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        if look():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited {_WAIT_S} s for {what}")
