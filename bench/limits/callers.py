"""Clients that hammer: many connections on one loop, each sending its next request once the last is answered.

A caller reads what it must and no more: the status, whether the answer has ended, the usage of a stream. So a refusal
costs some tens of microseconds here, and sixty-four callers keep four workers busy from less than one core. One whose
connection breaks goes to the next node that is in service, as behind a balancer; one that was refused may pause, so
that the machine is not all refusals. In the last seconds only a few go on: what a busy machine delayed comes to an end,
and how things stand then can be told.

The load runs on a loop in a thread of its own, since who kills and starts processes waits for them. What was seen is
read when the thread has ended; only the number of streams being read is looked at meanwhile.
"""

import asyncio
import re
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

from bench.limits.evidence import Admitted, Broken, Seen
from bench.speed.launch import LOOPBACK, CannotRun
from gateway.tasks import spawn

RECONNECT_S: Final = 0.05
DRAIN_S: Final = 30.0
CALM_S: Final = 4.0
CALM_CALLERS: Final = 24
OK, TOO_MANY, UNAVAILABLE = 200, 429, 503
_TOKENS: Final = re.compile(rb'"total_tokens": ?(\d+)')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: ?(\d+)", re.IGNORECASE)
_STATUS: Final = slice(9, 12)
_LAST_CHUNK: Final = b"0\r\n\r\n"
_DONE: Final = b"data: [DONE]"


@dataclass(frozen=True)
class Load:
    """Who asks what: ports of the nodes, the whole request, how many callers, and how long one rests when refused.

    `addresses`: of nodes that are not on loopback, by their ports.
    """

    ports: Sequence[int]
    request: bytes
    callers: int
    pause_s: float = 0.0
    addresses: Mapping[int, str] = field(default_factory=dict)


def request(key: str, body: bytes) -> bytes:
    """A chat request, as it goes over the wire."""
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Answer:
    """An answer as it comes in."""

    __slots__ = ("_body_at", "_length", "data", "status")

    def __init__(self) -> None:
        self.data = bytearray()
        self.status = 0
        self._body_at = 0
        self._length = -1  # until the head is there; then -1 is chunked

    def feed(self, data: bytes) -> bool:
        """Take what came; whether the answer has ended."""
        self.data += data
        if not self.status:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return False
            self.status = int(self.data[_STATUS])
            self._body_at = end + 4
            length = _LENGTH.search(self.data, 0, end)
            self._length = int(length[1]) if length else -1
        if self._length < 0:
            return self.data.endswith(_LAST_CHUNK)
        return len(self.data) >= self._body_at + self._length

    @property
    def tokens(self) -> int:
        """What its usage says; 0 where it says nothing."""
        said = _TOKENS.findall(self.data)
        return int(said[-1]) if said else 0

    def problem(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if self.status == OK:
            return "" if _DONE in self.data and self.tokens else "a stream without [DONE] or usage"
        if self.status == TOO_MANY:
            return "" if b"\r\nretry-after-ms: " in self.data[: self._body_at] else "a 429 without retry-after-ms"
        return (
            "" if self.status == UNAVAILABLE else f"status {self.status}: {bytes(self.data[self._body_at :][:100])!r}"
        )


class Caller(asyncio.Protocol):
    """One connection at a time, one request at a time."""

    def __init__(self, hammer: "Hammer", number: int) -> None:
        self._hammer = hammer
        self._number = number
        self._node = number % len(hammer.load.ports)
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._sent_s = 0.0
        self._begun_s: float | None = None  # when the head of a 200 came

    async def connect(self) -> None:
        """To this node, or the next that is in service and accepts; until the load is over."""
        hammer = self._hammer
        while not hammer.over_for(self._number):
            port = hammer.load.ports[self._node]
            try:
                if port in hammer.in_service:
                    await hammer.loop.create_connection(
                        lambda: self, hammer.load.addresses.get(port, LOOPBACK.address), port
                    )
                    return
            except OSError:
                hammer.seen.unreachable += 1
            self._node = (self._node + 1) % len(hammer.load.ports)
            await asyncio.sleep(RECONNECT_S)
        hammer.left()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: ask."""
        self._transport = cast("asyncio.Transport", transport)  # a stream was asked for
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        answer = self._answer
        if answer is None:
            self._hammer.seen.wrong["bytes that nobody asked for"] += 1
            return
        ended = answer.feed(data)
        if not ended:
            self._begin_reading(answer)
            return
        self._answer = None
        begun_s = self._end_reading()
        self._note(answer, begun_s)

    def connection_lost(self, _error: Exception | None) -> None:
        """What was under way broke off; go on elsewhere."""
        self._transport = None
        hammer, answer = self._hammer, self._answer
        if answer is not None:
            hammer.seen.broken.append(Broken(self._sent_s, hammer.now_s(), self._end_reading()))
            self._answer = None
            self._node = (self._node + 1) % len(hammer.load.ports)
        if hammer.over_for(self._number):
            hammer.left()
        else:
            spawn(self.connect(), name="bench caller")

    def _ask(self) -> None:
        transport = self._transport
        if transport is None or self._answer is not None:  # another connection has asked since this was put off
            return
        if self._hammer.over_for(self._number):
            transport.close()
            return
        self._answer = Answer()
        self._sent_s = self._hammer.now_s()
        self._hammer.seen.asked_s = self._hammer.seen.asked_s or self._sent_s
        transport.write(self._hammer.load.request)

    def _begin_reading(self, answer: Answer) -> None:
        if answer.status == OK and self._begun_s is None:
            self._begun_s = self._hammer.now_s()
            self._hammer.reading += 1

    def _end_reading(self) -> float | None:
        begun_s, self._begun_s = self._begun_s, None
        if begun_s is not None:
            self._hammer.reading -= 1
        return begun_s

    def _note(self, answer: Answer, begun_s: float | None) -> None:
        seen, now_s = self._hammer.seen, self._hammer.now_s()
        if problem := answer.problem():
            seen.wrong[problem] += 1
        elif answer.status == OK:
            seen.admitted.append(Admitted(self._sent_s, begun_s or now_s, now_s, answer.tokens, self._node))
            self._ask()
            return
        elif answer.status == TOO_MANY:
            seen.refused += 1
            seen.refusals.add(round((now_s - self._sent_s) * 1e9))
            seen.last_refusal_sent_s = max(seen.last_refusal_sent_s, self._sent_s)
        else:
            seen.unavailable_s.append(now_s)
        # At least the next turn of the loop, or a caller that is answered at once would not let the others ask.
        self._hammer.loop.call_later(self._hammer.load.pause_s, self._ask)


class Hammer:
    """All callers, on one loop; `seen` is theirs until `drive` has returned."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, load: Load) -> None:
        self.load = load
        self.seen = Seen()
        self.reading = 0  # streams of which a 200 and not yet the end has come
        self.in_service = set(load.ports)  # whom a balancer would send to; changed from another thread
        self._calm = False
        self._over = False
        self._left = 0
        self._all_left = asyncio.Event()
        self._stopped = asyncio.Event()

    @staticmethod
    def now_s() -> float:
        """The callers' clock."""
        return time.monotonic()

    def over_for(self, number: int) -> bool:
        """Whether this caller is to go."""
        return self._over or (self._calm and number >= CALM_CALLERS)

    async def drive(self, seconds: float) -> None:
        """Ask for so long, then calmly, then wait for the answers that are under way."""
        self.loop = asyncio.get_running_loop()
        callers = [Caller(self, number) for number in range(self.load.callers)]
        connecting = asyncio.gather(*(caller.connect() for caller in callers))
        await self._for(seconds)
        self._calm = True
        await self._for(CALM_S)
        self._over = True
        async with asyncio.timeout(DRAIN_S):
            await connecting
            await self._all_left.wait()

    async def _for(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    def stop(self) -> None:
        """End before the time is over; from any thread, once it drives."""
        self.loop.call_soon_threadsafe(self._stopped.set)

    def left(self) -> None:
        """One caller has gone."""
        self._left += 1
        if self._left == self.load.callers:
            self._all_left.set()


@contextmanager
def hammering(load: Load, seconds: float) -> Generator[Hammer, None, None]:
    """The load, on a thread, while the block runs; behind it, all has been answered. CannotRun if it was not."""
    hammer, failures = Hammer(load), list[BaseException]()

    def run() -> None:
        try:
            uvloop.run(hammer.drive(seconds))
        except BaseException as error:  # noqa: BLE001 - told to whoever started the thread
            failures.append(error)

    thread = threading.Thread(target=run, name="bench callers", daemon=True)
    thread.start()
    try:
        yield hammer
    except BaseException:
        hammer.stop()
        raise
    finally:
        thread.join(seconds + CALM_S + 2 * DRAIN_S)
    if failures:
        raise CannotRun(f"the callers did not come to an end: {failures[0]!r}") from failures[0]
