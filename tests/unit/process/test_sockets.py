"""The sockets of a node on loopback: how many listen, what is told when one is not to be had."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.process import sockets
from gateway.process.notify import Received
from gateway.process.settings import ServeSettings, StartError
from gateway.process.sockets import Listening, open_sockets, port_of


def settings(**changes: object) -> ServeSettings:
    values = {"port": 0, "admin_port": 0, "workers": 2, "backlog": 7} | changes
    return ServeSettings(config=Path("c"), state_dir=Path("s"), **values)  # type: ignore[arg-type]


@contextlib.contextmanager
def opened(*received: Received, **changes: object) -> Iterator[Listening]:
    listening = open_sockets(settings(**changes), received)
    try:
        yield listening
    finally:
        listening.close()


def listens(listener: socket.socket) -> bool:
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def test_one_socket_a_worker_listens_and_the_rest_wait_in_reserve() -> None:
    with opened() as listening:
        assert len({port_of(listener) for listener in listening.data}) == 1
        assert [listens(listener) for listener in listening.data] == [True] * 2 + [False] * 6
        assert listens(listening.admin)
        assert port_of(listening.admin) != port_of(listening.data[0])


def test_a_socket_in_reserve_is_given_no_connection() -> None:
    with opened(workers=1) as listening:
        listening.data[0].settimeout(0)
        for _ in range(20):
            with socket.create_connection(listening.data[0].getsockname()):
                listening.data[0].accept()[0].close()


def test_growing_listens_on_the_reserve_as_far_as_it_goes() -> None:
    with opened() as listening:
        listening.grow(5)
        assert [listens(listener) for listener in listening.data] == [True] * 5 + [False] * 3
        listening.grow(3)
        assert listening.open == 5
        listening.grow(500)
        assert listening.open == 8


def test_after_letting_go_the_port_is_closed() -> None:
    with opened() as listening:
        address = listening.data[0].getsockname()
        listening.close_data()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        assert listens(listening.admin)


@pytest.mark.parametrize("section", ["port", "admin_port"])
def test_a_port_in_use_is_told_even_if_it_could_be_shared(section: str) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with (
            pytest.raises(StartError, match=f"127.0.0.1:{port_of(other)} is in use: stop the program"),
            opened(**{section: port_of(other)}),
        ):
            pass


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EPERM, "--set listen.port=N"),
        (errno.EADDRINUSE, "--set listen.port=N"),
        (errno.EADDRNOTAVAIL, "set listen.host to one that is"),
        (errno.ENOBUFS, "No buffer space"),
    ],
)
def test_every_failure_says_what_to_do(number: int, fix: str) -> None:
    assert fix in sockets._why("listen", "10.0.0.1", 80, OSError(number, "No buffer space"))


def test_a_name_that_means_nothing_is_told() -> None:
    with pytest.raises(StartError, match="'no such host' does not resolve"), opened(host="no such host"):
        pass


def test_localhost_is_the_address_most_callers_use() -> None:
    with opened(host="localhost") as listening:
        assert listening.data[0].getsockname()[0] == "127.0.0.1"


def test_received_sockets_are_used_as_they_come() -> None:
    admin, first, second = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
    passed = [Received("admin", admin.fileno()), Received("a", first.fileno()), Received("b", second.fileno())]
    ports = [port_of(listener) for listener in (admin, first, second)]
    for listener in (admin, first, second):
        listener.detach()
    with opened(*passed, workers=5) as listening:
        assert [port_of(listening.admin), *map(port_of, listening.data)] == ports
        assert listening.open == 2
        assert not any(listener.get_inheritable() for listener in listening.data)


def test_an_unnamed_admin_socket_is_known_by_its_port() -> None:
    admin, data = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    port = port_of(admin)
    passed = [Received("unknown", listener.detach()) for listener in (data, admin)]
    with opened(*passed, admin_port=port, port=1) as listening:
        assert port_of(listening.admin) == port
        assert len(listening.data) == 1


@pytest.mark.parametrize("kind", ["file", "datagram", "idle"])
def test_a_received_descriptor_that_is_of_no_use_is_told(kind: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "file":
            fd = stack.enter_context((tmp_path / "f").open("w")).fileno()
        else:
            family = socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
            fd = stack.enter_context(socket.socket(socket.AF_INET, family)).fileno()
        with (
            pytest.raises(StartError, match=f"socket activation passed descriptor {fd} \\(data\\)"),
            opened(Received("data", fd)),
        ):
            pass
