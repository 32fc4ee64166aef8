"""A lingering close ends our side at once, and the caller's after a bounded number of bytes."""

from typing import TYPE_CHECKING, cast

import pytest

from gateway.listener.linger import LINGER_BYTES, Linger

if TYPE_CHECKING:
    import asyncio


class Transport:
    """Of a socket, or of one under TLS, which cannot be half-closed."""

    def __init__(self, *, half: bool) -> None:
        self.half = half
        self.ended = 0

    def can_write_eof(self) -> bool:
        return self.half

    def write_eof(self) -> None:
        self.ended += 1


def lingering(transport: Transport) -> Linger:
    return Linger(cast("asyncio.Transport", transport))


@pytest.mark.parametrize("half", [True, False])
def test_our_side_ends_where_it_can_end_alone(half: bool) -> None:
    transport = Transport(half=half)
    lingering(transport)
    assert transport.ended == half


def test_what_still_comes_is_dropped_up_to_the_bound_and_no_further() -> None:
    linger = lingering(Transport(half=True))
    piece = bytes(LINGER_BYTES // 4)
    assert [linger.drop(piece) for _ in range(4)] == [True] * 4
    assert not linger.drop(b"x")
