"""What a connection has received and may not serve yet: requests that were read, and bytes that were not.

An exchange at a time: a request that was read behind another one is `Queued`, and what arrives while an exchange is
open is set `Aside` unread, up to a limit, so that reading goes on and a caller's leaving is noticed. Left out: whose
turn it is (`connection.py`).
"""

from typing import Final

from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.listener.head import Head
from gateway.units import KIB

MAX_ASIDE_BYTES: Final = 64 * KIB


class Queued:
    """A request that was read behind another one, and waits for its turn."""

    __slots__ = ("chunks", "complete", "error", "ex", "head", "length")

    def __init__(self, ex: Exchange, head: Head, length: int, error: GatewayError | None) -> None:
        self.ex = ex
        self.head = head
        self.length = length
        self.error = error
        self.chunks: list[bytes] = []
        self.complete = False


class Aside:
    """Bytes set aside, in order. `size` of them."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def put(self, data: bytes) -> bool:
        """Set more aside; False when it is too much."""
        self._pieces.append(data)
        self.size += len(data)
        return self.size <= MAX_ASIDE_BYTES

    def take(self) -> bytes:
        """All of it; nothing is left."""
        data = b"".join(self._pieces)
        self._pieces, self.size = [], 0
        return data
