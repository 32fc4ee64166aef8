"""Processes pinned to a core that never outlive the driver, however it ends.

Three nets, because a forgotten load generator spoils every later measurement: each process is stopped when its `with`
block ends (also on Ctrl-C, SIGTERM and exceptions); it leads its own session, so its children are signalled with it;
and the kernel sends it SIGTERM should the driver itself be killed.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from bench.speed import procfs

STOP_PATIENCE_S: Final = 10.0
LOG_TAIL_BYTES: Final = 3000
NEED: Final = Path(__file__).parent.parent.parent / "tools" / "need.sh"
HTTP_OK: Final = 200


class CannotRun(Exception):
    """Something the bench needs is missing or did not start; the message says what and, where known, what to do."""


def end_on_signals() -> None:
    """Leave every `with` block on SIGTERM and Ctrl-C, so that what was started is stopped."""
    signal.signal(signal.SIGTERM, _end_on_sigterm)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would inherit it ignored


def _end_on_sigterm(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


@dataclass(frozen=True)
class Host:
    """Where a program runs: the address it listens at, and the words before its command that take it there."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


LOOPBACK: Final = Host()
WITHOUT_PROXY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""For questions to what we started: a proxy of the environment does not know our loopback."""


class Process:
    """A started program: its pid, what it has written to its log, and when it was begun (of the monotonic clock)."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path, begun_s: float) -> None:
        self.name = name
        self.popen = popen
        self.log = log
        self.begun_s = begun_s

    @property
    def pid(self) -> int:
        """The process that was started; its children are below it."""
        return self.popen.pid

    def tail(self) -> str:
        """The end of its output, for an error message."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def wait_for(self, what: str, ready: Callable[[], bool], timeout_s: float = 20.0, *, every_s: float = 0.02) -> None:
        """Poll until `ready()`; CannotRun with its last words if it ends or takes longer."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.popen.poll() is not None:
                raise CannotRun(f"{self.name} ended with status {self.popen.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise CannotRun(f"{self.name}: no {what} within {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(every_s)

    def stop(self) -> None:
        """SIGTERM to its session, then SIGKILL to whatever of its tree is left; returns when nothing is."""
        pids = procfs.tree(self.pid)
        self._signal(pids, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_PATIENCE_S)
        self._signal(pids, signal.SIGKILL)
        self.popen.wait()
        deadline = time.monotonic() + STOP_PATIENCE_S
        while any(procfs.alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.01)  # the kernel is taking its memory apart

    def _signal(self, pids: Sequence[int], number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        if number is not signal.SIGKILL:
            return
        for pid in pids:  # a child may have made a session of its own
            with suppress(ProcessLookupError):
                if os.getpgid(pid) != os.getpgrp():
                    os.kill(pid, number)


@contextmanager
def started(name: str, command: Sequence[str], *, core: int | None, log: Path) -> Generator[Process, None, None]:
    """`command` pinned to `core` (None: wherever there is room), its output in `log`, stopped when the block ends.

    CannotRun where this process may not use that core.
    """
    if core is not None and core not in os.sched_getaffinity(0):
        raise CannotRun(f"{name} needs core {core}; this process may use {sorted(os.sched_getaffinity(0))}")
    place = [] if core is None else ["taskset", "--cpu-list", str(core)]
    pinned = ["setpriv", "--pdeathsig", "TERM", *place, *command]
    with log.open("wb") as output:
        begun_s = time.monotonic()
        popen = subprocess.Popen(  # noqa: S603 - the programs under measurement
            pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    process = Process(name, popen, log, begun_s)
    try:
        yield process
    finally:
        process.stop()


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int, path: str, address: str = LOOPBACK.address, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a GET is answered with 200; over TLS with these settings."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
    try:
        with opener.open(f"http{'s' if tls else ''}://{address}:{port}{path}", timeout=2) as response:
            return bool(response.status == HTTP_OK)
    except (urllib.error.URLError, OSError):
        return False


def accepts(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def ensure(*needs: str) -> None:
    """Programs or files, each as `program:package` of Debian; as root they are installed. CannotRun if one lacks."""
    command = [str(NEED), *needs]
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise CannotRun(done.stderr.strip())


def program(name: str) -> str | None:
    """The path of a program, looked for also where Debian keeps daemons."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
