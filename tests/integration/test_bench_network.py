"""Hosts in network namespaces: they reach each other, and nothing of them stays behind.

Who may not make namespaces is told so: that is then what is tested.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from bench.scaling.network import INTERFACE, network
from bench.speed import launch, procfs
from bench.speed.launch import CannotRun
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
    print(made.hosts[0].enter[1], flush=True)
    time.sleep(60)
"""


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def ask(enter: Sequence[str], address: str) -> str:
    """By which address the server at that one sees whoever is inside."""
    words = [*enter, sys.executable, "-c", ASK, address]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def comes_true(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def told(folder: Path) -> None:
    """Where there can be no network, CannotRun says so, and nothing is there afterwards."""
    with pytest.raises(CannotRun, match="network namespace"):
        network(1, folder).__enter__()
    assert INTERFACE not in interfaces()


def test_hosts_reach_each_other_by_addresses_of_their_own(tmp_path: Path) -> None:
    if not ALLOWED:
        told(tmp_path)
        return
    with network(2, tmp_path) as made:
        host, other = made.hosts
        words = [*host.enter, sys.executable, "-c", SERVE, host.address]
        with launch.started("server", words, core=None, log=tmp_path / "server.log") as server:
            server.wait_for("`serving`", lambda: server.log.read_text() == "serving\n")
            assert ask(other.enter, host.address) == other.address
            assert ask((), host.address) == made.here.address
    assert INTERFACE not in interfaces()


def test_a_second_network_is_refused_and_leaves_the_first_as_it_is(tmp_path: Path) -> None:
    if not ALLOWED:
        told(tmp_path)
        return
    with network(1, tmp_path):
        with pytest.raises(CannotRun, match="is another bench under way"):
            network(1, tmp_path).__enter__()
        assert INTERFACE in interfaces()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_of_a_bench_that_was_killed(number: signal.Signals, tmp_path: Path) -> None:
    if not ALLOWED:
        told(tmp_path)
        return
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holding:
        assert holding.stdout is not None
        process = int(holding.stdout.readline().split("/")[2])
        assert INTERFACE in interfaces()
        holding.send_signal(number)
    assert comes_true(lambda: INTERFACE not in interfaces())
    assert comes_true(lambda: not procfs.alive(process))
