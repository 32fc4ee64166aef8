"""What a sink is: somewhere that takes lines in order and says when it has them.

Invariants, which the contract suite in the tests holds every sink to: `send` returns only when the lines are durable as
far as the sink can tell, or raises SinkError and nothing else; after a SinkError the caller sends the same lines again,
so those before the break may arrive twice and none is missing; whoever reads the sink's other end sees whole lines
only, in order; making a sink opens nothing, so a destination that is away cannot keep control from starting.

`send` is called by one thread at a time and may keep it waiting. `close` may come from another thread: it ends a `send`
that waits for its destination, or lets it finish, and is final. Left out: waiting before the next try, and knowing what
has been sent (the reader's).
"""

from collections.abc import Sequence
from typing import Protocol


class SinkError(Exception):
    """The lines were not taken, or not all of them: send them again. The message says where, what and the fix."""


class Sink(Protocol):
    """A destination of exported records."""

    def send(self, lines: Sequence[bytes]) -> None:
        """Hand lines on, each one JSON object without its newline. Blocks; raises SinkError."""

    def close(self) -> None:
        """Let go of everything; later sends raise SinkError, and a second time does nothing."""
