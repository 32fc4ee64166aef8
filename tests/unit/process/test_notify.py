"""What goes to the service manager is what sd_notify(3) says, and what comes from it is taken once."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.process.notify import Notifier, Received, take_listen_fds


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(0)
        yield listener


def heard(manager: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def notifier(manager: socket.socket, **environ: str) -> Notifier:
    return Notifier.from_environment({"NOTIFY_SOCKET": manager.getsockname(), **environ})


def test_states_are_sent_as_assignments(manager: socket.socket) -> None:
    out = notifier(manager)
    out.ready("serving")
    out.reloading(5_000_123)
    out.stopping("draining")
    out.status("upgrading")
    assert heard(manager) == [
        "READY=1\nSTATUS=serving",
        "RELOADING=1\nMONOTONIC_USEC=5000\nSTATUS=reloading the configuration",
        "STOPPING=1\nSTATUS=draining",
        "STATUS=upgrading",
    ]


def test_the_watchdog_is_fed_twice_per_interval(manager: socket.socket) -> None:
    out = notifier(manager, WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
    for now_ms in range(0, 2000, 100):
        out.watchdog(now_ms * 1_000_000)
    assert heard(manager) == ["WATCHDOG=1"] * 4


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_meant_for_nobody_or_another_is_not_fed(manager: socket.socket, environ: dict[str, str]) -> None:
    notifier(manager, **environ).watchdog(time.monotonic_ns())
    assert heard(manager) == []


def test_abstract_addresses_are_understood() -> None:
    name = f"gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(0)
        Notifier("@" + name).status("here")
        assert heard(listener) == ["STATUS=here"]


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody"])
def test_a_manager_that_is_not_there_is_no_trouble_of_ours(address: str) -> None:
    Notifier(address).ready("serving")


def test_received_sockets_are_numbered_from_three_and_taken_once() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": "admin:data", "OTHER": "1"}
    assert take_listen_fds(environ) == [Received("admin", 3), Received("data", 4), Received("unknown", 5)]
    assert environ == {"OTHER": "1"}
    assert take_listen_fds(environ) == []


def test_sockets_meant_for_another_process_are_not_taken() -> None:
    assert take_listen_fds({"LISTEN_PID": "1", "LISTEN_FDS": "2"}) == []
