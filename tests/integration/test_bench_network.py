"""Hosts in network namespaces: they reach each other, and nothing of them stays behind.

Who may not make namespaces is told so: that is then what is tested.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from bench.scaling.network import network
from bench.speed import launch, procfs
from bench.speed.launch import CannotRun, Host
from tests.fakes.patience import PATIENCE_S

ALLOWED: Final = os.geteuid() == 0 and subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0
SERVE: Final = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("serving", flush=True)
    for _ in range(2):
        connection, peer = server.accept()
        connection.sendall(peer[0].encode())
        connection.close()
"""
ASK: Final = "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), 5).recv(100).decode())"
HOLD: Final = """
import sys, time
from pathlib import Path
from bench.scaling.network import network
with network(1, Path(sys.argv[1])) as made:
    print(made.interface, made.hosts[0].enter[1], flush=True)
    time.sleep(60)
"""


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def ask(enter: Sequence[str], address: str) -> str:
    """By which address the server at that one sees whoever is inside."""
    words = [*enter, sys.executable, "-c", ASK, address]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def serving(host: Host, folder: Path) -> Generator[None, None, None]:
    """A server in a host that tells two callers their addresses."""
    words = [*host.enter, sys.executable, "-c", SERVE, host.address]
    with launch.started("server", words, core=None, log=folder / "server.log") as server:
        server.wait_for("`serving`", lambda: server.log.read_text() == "serving\n")
        yield


def comes_true(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def told(folder: Path) -> None:
    """Where there can be no network, CannotRun says so."""
    with pytest.raises(CannotRun, match="network namespace"):
        network(1, folder).__enter__()


def test_hosts_reach_each_other_by_addresses_of_their_own(tmp_path: Path) -> None:
    if not ALLOWED:
        told(tmp_path)
        return
    with network(2, tmp_path) as made:
        host, other = made.hosts
        with serving(host, tmp_path):
            assert ask(other.enter, host.address) == other.address
            assert ask((), host.address) == made.here.address
        assert made.interface in interfaces()
    assert made.interface not in interfaces()


def test_two_networks_at_a_time_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    if not ALLOWED:
        told(tmp_path)
        return
    with network(1, tmp_path) as one, network(1, tmp_path) as another:
        assert one.interface != another.interface
        for made in (one, another):
            with serving(made.hosts[0], tmp_path):
                assert ask((), made.hosts[0].address) == made.here.address
                assert ask(made.hosts[0].enter, made.hosts[0].address) == made.hosts[0].address
        with serving(one.hosts[0], tmp_path), pytest.raises(subprocess.CalledProcessError):
            ask(another.hosts[0].enter, one.hosts[0].address)
    assert not {one.interface, another.interface} & set(interfaces())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_bench_that_was_killed(number: signal.Signals, tmp_path: Path) -> None:
    if not ALLOWED:
        told(tmp_path)
        return
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holding:
        assert holding.stdout is not None
        interface, namespace = holding.stdout.readline().split()
        process = int(namespace.split("/")[2])
        assert interface in interfaces()
        holding.send_signal(number)
    assert comes_true(lambda: interface not in interfaces())
    assert comes_true(lambda: not procfs.alive(process))
