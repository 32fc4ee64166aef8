"""The caller's side as the relay sees it: writes down what it is told, and refuses what no caller could be told."""

from collections.abc import Sequence

from gateway.errors import GatewayError
from gateway.record import Attempt
from gateway.relay.reply import AnswerHead


class FakeReply:
    """Implements `relay.reply.Reply`. `ending` is how the answer ended, "" while it has not; a second end is a fault.

    `faults` lists every call that came out of order: a property can look at it where an assertion inside a callback
    would be contained by the connection.
    """

    def __init__(self) -> None:
        self.paused = False
        self.heads: list[AnswerHead] = []
        self.body = b""
        self.ending = ""
        self.error: GatewayError | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.upstream_ns = 0
        self.calls: list[str] = []
        self.faults: list[str] = []

    @property
    def head(self) -> AnswerHead:
        """The one head that was sent."""
        assert len(self.heads) == 1, self.calls
        return self.heads[0]

    @property
    def status(self) -> int:
        return self.head.status

    def start(self, head: AnswerHead) -> None:
        self._call("start", fault=bool(self.heads))
        self.heads.append(head)

    def data(self, data: bytes) -> None:
        self._call("data", fault=not self.heads)
        self.body += data

    def end(self) -> None:
        self._call("end", fault=not self.heads)
        self.ending = "end"

    def cut(self) -> None:
        self._call("cut", fault=not self.heads)
        self.ending = "cut"

    def whole(self, head: AnswerHead, body: bytes) -> None:
        self._call("whole", fault=bool(self.heads))
        self.heads.append(head)
        self.body = body
        self.ending = "whole"

    def answer(self, status: int, body: bytes) -> None:
        self.whole(AnswerHead(status, b"", len(body), "", (), (), 0), body)

    def fail(self, error: GatewayError, attempts: Sequence[Attempt], upstream_ns: int) -> None:
        self._call("fail", fault=False)
        self.error = error
        self.attempts = tuple(attempts)
        self.upstream_ns = upstream_ns
        self.ending = "fail"

    def _call(self, name: str, *, fault: bool) -> None:
        if fault or self.ending:
            self.faults.append(f"{name} after {self.calls}")
        self.calls.append(name)
