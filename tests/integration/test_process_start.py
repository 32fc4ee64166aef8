"""Starting: what is in the way is named with its fix, and what the service manager passes or hears is right."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.ports import free_port
from tests.fakes.running_node import RunningNode, call


def fails(tmp_path: Path, **config: object) -> str:
    """The log of a node that does not start."""
    tmp_path.mkdir(exist_ok=True)
    node = RunningNode(tmp_path, **config)
    assert node.spawn().wait(PATIENCE_S) == 1
    assert node.session() == []
    return node.log()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_told_even_where_the_kernel_would_share_it(tmp_path: Path, *, shared: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        log = fails(tmp_path, port=port)
    assert f"127.0.0.1:{port} is in use" in log
    assert "--set listen.port=N" in log
    assert "Traceback" not in log
    assert not (tmp_path / "state" / "lock").exists()


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    assert "192.0.2.1 is not an address of this machine" in fails(tmp_path, host="192.0.2.1")


def test_two_gateways_cannot_share_a_state_dir(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "state").symlink_to(tmp_path / "state")
        log = fails(tmp_path / "second")
        assert f"is in use by the gateway with pid {node.pid}" in log
        assert node.ask().build == "v1"


def test_workers_that_cannot_start_end_the_node(tmp_path: Path) -> None:
    log = fails(tmp_path, fail_start=True)
    assert "not started: the processes end before they are ready" in log
    assert "told to fail" in log


def test_the_port_stays_usable_by_the_next_start(tmp_path: Path) -> None:
    with free_port() as port:
        for _ in range(2):
            with RunningNode(tmp_path, port=port) as node:
                assert node.port == port
                assert node.ask().build == "v1"
                node.signal(signal.SIGTERM)
                assert node.ended() == 0
            (tmp_path / "ready").unlink()


def manager(path: Path) -> socket.socket:
    """A socket that receives what a service manager would."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(PATIENCE_S)
    return listener


def hear(listener: socket.socket, first: str) -> list[str]:
    """The next message that begins so."""
    while True:
        message = listener.recv(4096).decode().split("\n")
        if message[0] == first:
            return message


def test_the_service_manager_hears_of_start_reload_upgrade_and_stop(tmp_path: Path) -> None:
    node = RunningNode(tmp_path)
    with manager(tmp_path / "notify") as listener:
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "1000000",
        }  # seldom enough for a short queue
        node.spawn(env=environ)
        try:
            assert hear(listener, "READY=1") == ["READY=1", "STATUS=serving: 2 workers, snapshot 1"]
            hear(listener, "WATCHDOG=1")
            before_us = time.monotonic_ns() // 1000
            node.signal(signal.SIGHUP)
            asked = hear(listener, "RELOADING=1")[1]
            assert asked.startswith("MONOTONIC_USEC=")
            assert before_us <= int(asked.partition("=")[2]) <= time.monotonic_ns() // 1000
            assert hear(listener, "READY=1")[1] == "STATUS=serving: 2 workers, snapshot 2"
            node.signal(signal.SIGUSR2)
            hear(listener, "STATUS=upgrading: preflight")
            assert hear(listener, "READY=1")[1] == "STATUS=serving: 2 workers, snapshot 3"
            hear(listener, "WATCHDOG=1")
            node.signal(signal.SIGTERM)
            hear(listener, "STOPPING=1")
            assert node.ended() == 0
        finally:
            node.__exit__()


_ACTIVATE = """
import os, sys
count = int(sys.argv[1])
for number, fd in enumerate(map(int, sys.argv[2:2 + count])):
    os.dup2(fd, 100 + number)
for number in range(count):
    os.dup2(100 + number, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": sys.argv[2 + count]}
os.execv(sys.executable, [sys.executable, "-m", "tests.fakes.node", sys.argv[3 + count]])
"""


def activated(node: RunningNode, listeners: list[socket.socket], names: str) -> None:
    """Start the node as systemd starts a service with these sockets."""
    descriptors = [listener.fileno() for listener in listeners]
    command = [sys.executable, "-c", _ACTIVATE, str(len(descriptors)), *map(str, descriptors), names]
    with node.log_path.open("ab") as log:
        node.process = subprocess.Popen(
            [*command, str(node.directory)], stdout=log, stderr=log, start_new_session=True, pass_fds=descriptors
        )


def group(count: int) -> list[socket.socket]:
    """Listening sockets on one port, as ReusePort=yes makes them."""
    listeners: list[socket.socket] = []
    for _ in range(count):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", listeners[0].getsockname()[1] if listeners else 0))
        listener.listen(128)
        listeners.append(listener)
    return listeners


@pytest.mark.parametrize(("sockets", "workers"), [(1, 3), (3, 2), (2, 2)])
def test_every_received_socket_is_accepted_from_by_somebody(tmp_path: Path, sockets: int, workers: int) -> None:
    admin = group(1)
    listeners = group(sockets)
    node = RunningNode(tmp_path, workers=workers)
    activated(node, [*admin, *listeners], "admin" + ":data" * sockets)
    port = listeners[0].getsockname()[1]
    try:
        node.wait_ready()
        assert (node.port, node.admin_port) == (port, admin[0].getsockname()[1])
        with node.caller() as caller:
            waiting = [call(port)[0] for _ in range(60)]
            before = node.workers()
            node.signal(signal.SIGUSR2)
            node.logged("the new workers have taken over")
            victim, *_ = node.until_workers(workers, without=before)
            node.kill(victim)
            node.until_workers(workers, without=[*before, victim])
        assert waiting == [200] * 60
        assert not caller.refused
        assert call(node.admin_port)[1].startswith("control ")
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
        late = socket.create_connection(("127.0.0.1", port))  # the manager still listens: kept for the next start
        late.close()
    finally:
        node.__exit__()
        for listener in [*admin, *listeners]:
            listener.close()


def test_a_received_descriptor_that_does_not_listen_is_told(tmp_path: Path) -> None:
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        node = RunningNode(tmp_path)
        activated(node, [idle], "data")
        assert node.process
        assert node.process.wait(PATIENCE_S) == 1
    assert "socket activation passed descriptor 3 (data): not a listening TCP socket" in node.log()
