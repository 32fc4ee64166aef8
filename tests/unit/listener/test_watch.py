"""Leaving is noticed on sockets that nobody reads, once, and on no others."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

import pytest

from gateway.listener import watch as module
from gateway.listener.watch import Valve, Watch
from tests.fakes.served import until
from tests.fakes.transfer import run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.002)


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


def fin(peer: socket.socket) -> None:
    peer.close()


def half(peer: socket.socket) -> None:
    peer.shutdown(socket.SHUT_WR)


def rst(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


@pytest.mark.parametrize("leave", [fin, half, rst])
@pytest.mark.parametrize("unread", [b"", b"bytes that nobody reads"])
def test_leaving_is_noticed_once_even_behind_unread_bytes(
    leave: Callable[[socket.socket], None], unread: bytes
) -> None:
    async def main() -> None:
        ours, peer = pair()
        with ours, peer:
            gone: list[str] = []
            watch = Watch()
            watch.add(ours.fileno(), lambda: gone.append("gone"))
            peer.sendall(unread)
            await asyncio.sleep(0.01)
            assert gone == []
            leave(peer)
            await until(lambda: gone)
            await asyncio.sleep(0.01)
            assert gone == ["gone"]

    run(main())


def test_who_is_read_again_is_not_watched() -> None:
    async def main() -> None:
        ours, peer = pair()
        with ours, peer:
            gone: list[str] = []
            watch = Watch()
            watch.add(ours.fileno(), lambda: gone.append("gone"))
            watch.remove(ours.fileno())
            watch.remove(ours.fileno())
            peer.close()
            await asyncio.sleep(0.01)
            assert gone == []

    run(main())


def test_adding_again_replaces_the_callback() -> None:
    async def main() -> None:
        ours, peer = pair()
        with ours, peer:
            gone: list[str] = []
            watch = Watch()
            watch.add(ours.fileno(), lambda: gone.append("first"))
            watch.add(ours.fileno(), lambda: gone.append("second"))
            peer.close()
            await until(lambda: gone)
            assert gone == ["second"]

    run(main())


def test_one_who_leaves_may_take_another_out_of_the_watch() -> None:
    async def main() -> None:
        pairs = [pair() for _ in range(3)]
        gone: list[int] = []
        watch = Watch()

        def leaves(index: int) -> Callable[[], None]:
            def left() -> None:
                gone.append(index)
                for ours, _ in pairs:
                    watch.remove(ours.fileno())

            return left

        for index, (ours, _) in enumerate(pairs):
            watch.add(ours.fileno(), leaves(index))
        for _, peer in pairs:
            peer.close()
        await until(lambda: gone)
        await asyncio.sleep(0.01)
        assert len(gone) == 1
        for ours, _ in pairs:
            ours.close()

    run(main())


def test_others_are_watched_on() -> None:
    async def main() -> None:
        (first, first_peer), (second, second_peer) = pair(), pair()
        with first, second, second_peer:
            gone: list[str] = []
            watch = Watch()
            watch.add(first.fileno(), lambda: gone.append("first"))
            watch.add(second.fileno(), lambda: gone.append("second"))
            first_peer.close()
            await until(lambda: gone == ["first"])
            second_peer.close()
            await until(lambda: gone == ["first", "second"])

    run(main())


class Transport:
    """Of a socket; knows whether it is read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.reading, self.closing = sock, True, False

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closing
        self.reading = True

    def get_extra_info(self, _name: str) -> socket.socket:
        return self.sock


def test_a_valve_watches_while_it_is_closed_and_never_longer() -> None:
    async def main() -> None:
        gone: list[int] = []
        ours, theirs = socket.socketpair()
        transport = cast("asyncio.Transport", Transport(ours))
        watch = Watch()
        valve = Valve(watch, lambda: gone.append(1))
        valve.close(transport)
        valve.close(transport)
        assert valve.closed
        valve.open(transport)
        assert (valve.closed, transport.is_closing()) == (False, False)
        theirs.close()
        await asyncio.sleep(0.02)
        assert gone == []  # it is read again: the transport itself would notice
        valve.close(transport)
        await until(lambda: gone)
        assert gone == [1]
        valve.forget()
        ours.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("steps", "at_once", "next_turn"),
    [
        (("rest",), False, True),
        (("rest", "rest"), False, True),
        (("close", "rest"), False, False),
        (("rest", "close"), False, False),
        (("rest", "close", "open"), False, True),
        (("close", "rest", "open"), False, True),
        (("close", "open"), True, True),
        (("rest", "closing"), False, False),
        (("closing", "rest"), True, True),
    ],
)
def test_a_valve_rests_until_the_next_turn_and_is_read_then_unless_it_is_closed(
    steps: tuple[str, ...], at_once: bool, next_turn: bool
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            transport = Transport(ours)
            valve = Valve(Watch(), lambda: None)
            for step in steps:
                if step == "closing":
                    transport.closing = True
                else:
                    getattr(valve, step)(transport)
            assert transport.reading == at_once
            assert valve.closed == (steps[-1] != "open" and "close" in steps)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert transport.reading == next_turn
            valve.forget()

    run(main())
