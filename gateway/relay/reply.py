"""Where an answer goes: what the relay may ask of the caller's side, and in which order.

`start` comes at most once, before `data`, `end` and `cut`; `whole` and `fail` finish the answer by themselves.
`fail` decides by what has gone out: an error answer in the caller's dialect, or, behind a started stream, a typed
error event and a connection closed without the last zero chunk. The listener implements this; tests have a fake.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from gateway.errors import GatewayError
from gateway.record import Attempt


class AnswerHead(msgspec.Struct, frozen=True, gc=False):
    """Status and header lines of an answer (already chosen for the caller), and how it came about.

    `length` is the body's length, -1 when only its end will tell. `target` is "" while none has answered yet.
    """

    status: int
    lines: bytes
    length: int
    target: str
    attempts: Sequence[Attempt]
    changed: tuple[str, ...]
    upstream_ns: int
    sse: bool = False


class Reply(Protocol):
    """The caller's side of one exchange."""

    @property
    def paused(self) -> bool:
        """The caller does not read; the relay's `pause` has been called."""

    def start(self, head: AnswerHead) -> None:
        """Send the head; a body follows."""

    def data(self, data: bytes) -> None:
        """Send body bytes."""

    def end(self) -> None:
        """The body is complete."""

    def cut(self) -> None:
        """The body stays incomplete: close so that the caller can tell."""

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """Send a complete answer."""

    def answer(self, status: int, body: bytes) -> None:
        """Send a complete JSON answer of the gateway's own."""

    def fail(self, error: GatewayError, attempts: Sequence[Attempt], upstream_ns: int) -> None:
        """Say the error, in whatever way is still possible."""
