"""Accepting where told, and letting go without losing who waits. On loopback sockets: they are what it is about."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.process import acceptor as module
from gateway.process.acceptor import Acceptor
from tests.fakes.authority import Authority
from tests.fakes.patience import PATIENCE_S
from tests.fakes.raw_provider import until

A_WHILE_S = 0.04


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hello")  # type: ignore[attr-defined]  # uvloop's transport, a Transport in all but name
        transport.close()


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made = [socket.create_server(("127.0.0.1", 0), backlog=16) for _ in range(3)]
    yield made
    for listener in made:
        listener.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


async def greeted(listener: socket.socket | int, within_s: float = PATIENCE_S) -> bool:
    port = listener if isinstance(listener, int) else listener.getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await asyncio.wait_for(reader.read(), within_s) == b"hello"
    except TimeoutError:
        return False
    finally:
        writer.close()


async def heard(connection: socket.socket) -> bytes:
    connection.settimeout(0)
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 16), PATIENCE_S)


def test_it_accepts_from_the_sockets_named_and_no_others(sockets: list[socket.socket]) -> None:
    async def scenario() -> None:
        acceptor = Acceptor(sockets, Greeter, 16)
        assert acceptor.accepting == 0
        for bits in (0b101, 0b010, 0b111, 0b000, 0b100):
            await acceptor.accept_from(bits)
            assert acceptor.accepting == bits
            for n, listener in enumerate(sockets):
                named = bool(bits >> n & 1)
                assert await greeted(listener, PATIENCE_S if named else A_WHILE_S) == named
        await acceptor.accept_from(0)

    run(scenario())


def test_letting_go_for_good_serves_first_who_is_queued(sockets: list[socket.socket]) -> None:
    async def scenario() -> None:
        acceptor = Acceptor(sockets, Greeter, 16)
        await acceptor.accept_from(0b001)
        ports = [listener.getsockname()[1] for listener in sockets]
        with contextlib.ExitStack() as waiting:
            queued = [
                waiting.enter_context(socket.create_connection(("127.0.0.1", port))) for port in ports for _ in "ab"
            ]
            await acceptor.close(take_queued=True)
            for connection in queued:
                assert await heard(connection) == b"hello"
        for port in ports:
            with pytest.raises(ConnectionRefusedError):
                await greeted(port)

    run(scenario())


def test_letting_go_of_sockets_that_live_on_leaves_the_queue_to_others(sockets: list[socket.socket]) -> None:
    async def scenario() -> None:
        elsewhere = [listener.dup() for listener in sockets]
        acceptor = Acceptor(sockets, Greeter, 16)
        await acceptor.accept_from(0b111)
        await acceptor.close(take_queued=False)
        other = Acceptor(elsewhere, Greeter, 16)
        port = elsewhere[1].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as queued:
            await other.accept_from(0b111)
            assert await heard(queued) == b"hello"
        await other.close(take_queued=False)

    run(scenario())


def test_a_socket_in_reserve_never_listened_and_is_just_closed() -> None:
    async def scenario() -> None:
        reserve = socket.socket()
        reserve.bind(("127.0.0.1", 0))
        await Acceptor([reserve], Greeter, 16).close(take_queued=True)
        assert reserve.fileno() == -1

    run(scenario())


def test_with_a_context_accepted_and_queued_connections_alike_speak_tls(
    sockets: list[socket.socket], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    client = ssl.create_default_context(cafile=authority.ca_file)

    async def scenario() -> None:
        acceptor = Acceptor(sockets, Greeter, 16)
        acceptor.ssl_context = authority.server("gateway.test")
        await acceptor.accept_from(0b001)
        assert not await greeted(sockets[0], A_WHILE_S)  # nothing is said before the handshake
        with (
            socket.create_connection(sockets[0].getsockname()) as accepted,
            socket.create_connection(sockets[1].getsockname()) as queued,
        ):
            assert await encrypted(accepted) == b"hello"
            waiting = asyncio.create_task(encrypted(queued))
            await asyncio.sleep(0.005)
            await acceptor.close(take_queued=True)
            assert await waiting == b"hello"

    async def encrypted(to: socket.socket) -> bytes:
        reader, writer = await asyncio.open_connection(sock=to, ssl=client, server_hostname="gateway.test")
        said = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()
        return said

    run(scenario())


@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "queued"])
def test_a_handshake_that_has_begun_is_waited_for(
    sockets: list[socket.socket], tmp_path: Path, *, accepted: bool
) -> None:
    authority = Authority(tmp_path)
    client = ssl.create_default_context(cafile=authority.ca_file)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        seen: list[asyncio.Protocol] = []

        def made() -> asyncio.Protocol:
            seen.append(asyncio.Protocol())
            return seen[-1]

        acceptor = Acceptor(sockets, made, 16)
        acceptor.ssl_context = authority.server("gateway.test")
        await acceptor.accept_from(0b001 if accepted else 0)
        with socket.create_connection(sockets[0].getsockname()) as caller:
            await until(lambda: bool(acceptor._shaking) or not accepted)
            await asyncio.wait_for(acceptor.close(take_queued=True), PATIENCE_S)
            shaken = asyncio.create_task(acceptor.shaken())
            await asyncio.sleep(0.005)
            assert not shaken.done()
            greeting = loop.create_connection(asyncio.Protocol, sock=caller, ssl=client, server_hostname="gateway.test")
            transport, _ = await asyncio.wait_for(greeting, PATIENCE_S)
            await asyncio.wait_for(shaken, PATIENCE_S)
            assert len(seen) == 1  # the App knows of it, and can drain it
            transport.close()

    run(scenario())


def test_who_connects_and_says_nothing_is_waited_for_a_bounded_time(
    sockets: list[socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_HANDSHAKES_S", 0.01)

    async def scenario() -> None:
        acceptor = Acceptor(sockets, Greeter, 16)
        acceptor.ssl_context = Authority(tmp_path).server("gateway.test")
        with socket.create_connection(sockets[0].getsockname()):
            await acceptor.close(take_queued=True)
            assert acceptor._shaking
            await asyncio.wait_for(acceptor.shaken(), PATIENCE_S)

    run(scenario())
