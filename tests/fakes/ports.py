"""Ports for programs that must be told theirs: held from the choice on, so that nobody else is given them meanwhile.

A port that is merely found free may be anybody's by the time it is bound, or bound again after a kill. The socket here
is bound and does not listen: callers are refused, and a program that sets SO_REUSEADDR, as servers do, binds beside it.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


def held() -> socket.socket:
    """A socket that holds a port of the loopback for as long as it is open."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def port_of(holder: socket.socket) -> int:
    """The port that a socket is bound to."""
    port: int = holder.getsockname()[1]
    return port


@contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody else is given while the block lasts."""
    with held() as holder:
        yield port_of(holder)
