"""What the profiles share: a caller that asks on a schedule of its own, reads streams, and tells Locust what it saw.

Requests of a caller are due at random moments (Poisson) at the rate it was told, and begin then, whether or not the one
before has been answered; a latency counts from the moment a request was due. So nobody goes easy on who is slow.
Latency, time to first token (type TTFT) and the time between tokens (type GAP) are entries of Locust's statistics, so
its web page shows them and its master adds up those of its workers. What is still under way when a run ends is counted
nowhere.

Locust is seen through the few declarations below, so the types hold where it is not installed.
"""

import json
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from bench.load import orders
from bench.load.sse import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    Task = TypeVar("Task", bound="Callable[..., object]")

    class FastHttpUser:
        """As Locust has it, as far as it is used here."""

        abstract: bool
        client: Any
        environment: Any
        network_timeout: float
        connection_timeout: float
        concurrency: int

        def on_start(self) -> None:
            """Called once a user exists."""

        def wait(self) -> None:
            """Sleep for `wait_time`; a run that ends does not wait for who does so."""

    def task(function: Task) -> Task:
        """What a user does again and again."""
        return function

    events: Any
    sleep: Callable[[float], None]
    spawn: Callable[[Callable[[], object]], object]
else:
    from gevent import sleep, spawn
    from locust import FastHttpUser, events, task

__all__ = ["CHAT", "EMBEDDINGS", "Caller", "sleep", "task"]

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
OK = 200


class Caller(FastHttpUser):
    """A user with a key, a schedule and a generator of its own."""

    abstract = True
    network_timeout = 60.0
    connection_timeout = 10.0
    concurrency = 100  # requests of one user under way at once
    orders = orders.read()
    key = orders.key
    eagerness = 1.0  # how much more often than the others

    def on_start(self) -> None:
        """Begin somewhere within the first gap, so that users do not march in step."""
        self.random = Random()
        self._due_s = time.monotonic()
        self.wait()

    def wait_time(self) -> float:
        """Until the next request is due; none when it already was."""
        self._due_s += self.random.expovariate(self.orders.rate_per_user * self.eagerness)
        return max(0.0, self._due_s - time.monotonic())

    def begin(self, work: "Callable[[float], object]") -> None:
        """Do what is due now beside whatever is still under way; `work` is told when it was due."""
        due_s = self._due_s
        spawn(lambda: work(due_s))

    def ask(self, name: str, body: bytes, path: str = CHAT, *, due_s: float) -> bytes | None:
        """A plain request that was due then; the answer's body, or None when there was none."""
        with self.client.post(path, data=body, headers=self.headers(), name=name, catch_response=True) as answer:
            self.time(answer, due_s)
            return self.check(answer)

    @staticmethod
    def now_s() -> float:
        """The clock that requests are due by."""
        return time.monotonic()

    @staticmethod
    def time(answer: Any, due_s: float) -> None:  # noqa: ANN401 - Locust's own
        """An answer took from when its request was due until now."""
        answer.request_meta["response_time"] = (time.monotonic() - due_s) * 1e3

    @staticmethod
    def check(answer: Any) -> bytes | None:  # noqa: ANN401 - Locust's own
        """The body of a good answer; one that is not is told."""
        if answer.status_code != OK:
            answer.failure(_refusal(answer))
            return None
        content: bytes = answer.content
        if not content.startswith(b"{") or not content.rstrip().endswith(b"}"):
            answer.failure(f"not a whole JSON object: {len(content)} bytes")
            return None
        return content

    def listen(self, name: str, body: bytes, *, due_s: float) -> None:
        """A stream that was due then, read to its end and checked."""
        reading = Reading(due_s)
        with self.client.post(
            CHAT, data=body, headers=self.headers(), name=name, catch_response=True, stream=True
        ) as answer:
            if answer.status_code != OK:
                answer.failure(_refusal(answer))
                return
            problem = self._read(answer._response, reading)  # noqa: SLF001 - the one that hands lines on as they come
            self.time(answer, due_s)
            if problem:
                answer.failure(problem)
                return
        if reading.ttft_ms is not None:
            self._tell("TTFT", name, reading.ttft_ms)
        for gap_ms in reading.gaps_ms():
            self._tell("GAP", name, gap_ms)

    @staticmethod
    def _read(response: Any, reading: Reading) -> str:  # noqa: ANN401 - the HTTP library's own
        try:
            while line := response.readline(b"\n"):
                reading.line(line.rstrip(b"\r\n"), time.monotonic())
        except Exception as error:  # noqa: BLE001 - however it broke, it is told
            return f"the stream broke: {error!r}"
        return reading.problem()

    def fail(self, name: str, words: str) -> None:
        """Tell of something that was wrong although every answer by itself was right."""
        self._tell("CHECK", name, 0.0, AssertionError(words))

    def headers(self) -> dict[str, str]:
        """What every request has."""
        return {"content-type": "application/json", "authorization": f"Bearer {self.key}"}

    def _tell(self, kind: str, name: str, value_ms: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=value_ms, response_length=0, exception=error, context={}
        )


def _refusal(answer: Any) -> str:  # noqa: ANN401 - Locust's own
    body = answer.content if answer.status_code else b""
    return f"status {answer.status_code}: {(body or b'')[:200]!r}"


@events.quitting.add_listener  # type: ignore[untyped-decorator, unused-ignore] # Locust's, which has no types here
def write_outcome(environment: Any, **_: object) -> None:  # noqa: ANN401 - Locust's own
    """On the master, or where there is only one: all entries of the statistics, for the runner to judge."""
    wanted = Caller.orders.outcome
    if not wanted or type(environment.runner).__name__ == "WorkerRunner":
        return
    stats = environment.stats
    entries = [
        {
            "kind": entry.method,
            "name": entry.name,
            "count": entry.num_requests,
            "failures": entry.num_failures,
            "p50_ms": entry.get_response_time_percentile(0.5),
            "p99_ms": entry.get_response_time_percentile(0.99),
            "max_ms": entry.max_response_time,
            "rps": entry.total_rps,
        }
        for entry in stats.entries.values()
    ]
    problems = {f"{error.name}: {error.error}": error.occurrences for error in stats.errors.values()}
    Path(wanted).write_text(json.dumps({"entries": entries, "problems": problems}))
