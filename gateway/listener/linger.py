"""The last moments of a connection that is closed while its caller may still be sending: a lingering close.

A socket closed with unread bytes is reset, and a reset destroys the answer that is on its way (RFC 9112 section 9.6).
So our side alone is ended, behind the answer, and what still comes is read and thrown away until the caller closes.
TLS cannot half-close: there the answer's `connection: close` has to do.

Invariant: it ends, by the caller, after LINGER_BYTES, or after LINGER_NS. Left out: the timer, which is the
connection's own (`connection.py`), and when a close must linger.
"""

import asyncio
from typing import Final

from gateway.units import KIB, NS_PER_S

LINGER_NS: Final = 2 * NS_PER_S
LINGER_BYTES: Final = 1024 * KIB


class Linger:
    """One such close."""

    __slots__ = ("_left_bytes",)

    def __init__(self, transport: asyncio.Transport) -> None:
        """Begin it: nothing is sent any more."""
        self._left_bytes = LINGER_BYTES
        if transport.can_write_eof():
            transport.write_eof()

    def drop(self, data: bytes) -> bool:
        """Throw away what came; False when it is too much to go on."""
        self._left_bytes -= len(data)
        return self._left_bytes >= 0
