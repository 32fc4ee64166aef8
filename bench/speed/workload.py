"""What is asked: chat requests of a given size, whose prompt tells the native upstream how to answer.

The prompt carries `[[nonce …]]`, stamped anew by the load generator in every request and echoed in the answer's id, and
`[[bench …]]` with the pace. A proxy that forwards the prompt needs to know nothing of either.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODEL: Final = "bench-model"
REQUEST_BYTES: Final = 1000
ANSWER_BYTES: Final = 1000
CHUNKS: Final = 50
CHUNK_BYTES: Final = 200
LONG_CHUNKS: Final = 400  # the answer that capacity is planned for, see bench.capacity
TAIL_EVENTS: Final = 3  # finish_reason, usage and [DONE], which leave the upstream in one write
NONCE: Final = "[[nonce 0000000000000000]]"
FILLER: Final = "Summarise the attached report in plain words and name its three weakest claims. "

EXACT: Final = ("--expect-bytes", "--expect-events")


@dataclass(frozen=True)
class Workload:
    """One kind of request: what the body says, and how the load generator is told to check the answer."""

    name: str
    directive: str = ""
    stream: bool = False
    checks: tuple[str, ...] = ()
    request_bytes: int = REQUEST_BYTES

    def checks_for(self, *, verbatim: bool) -> tuple[str, ...]:
        """The checks, without those that only hold where answers pass as they are."""
        if verbatim:
            return self.checks
        dropped = {number for number, word in enumerate(self.checks) if word in EXACT}
        return tuple(w for n, w in enumerate(self.checks) if n not in dropped and n - 1 not in dropped)

    def write(self, folder: Path) -> Path:
        """The body's file, made anew."""
        path = folder / f"{self.name}.json"
        path.write_bytes(self.body())
        return path

    def body(self) -> bytes:
        """A chat request of exactly `request_bytes`, or larger where its fixed parts already are."""
        padding = self.request_bytes - len(self._body(""))
        return self._body((FILLER * (padding // len(FILLER) + 1))[: max(0, padding)])

    def _body(self, padding: str) -> bytes:
        directive = f"[[bench {self.directive}]] " if self.directive else ""
        content = f"{NONCE} {directive}{padding}"
        request: dict[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": content}]}
        if self.stream:
            # Asked for by the caller, so that no target has an event to add or to withhold.
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(request, separators=(",", ":")).encode()


def plain(delay_ms: int = 0, answer_bytes: int = ANSWER_BYTES) -> Workload:
    """1 KB in, 1 KB out or more, after `delay_ms`."""
    directive = f"body_bytes={answer_bytes} delay_ms={delay_ms}"
    return Workload(f"json-{answer_bytes}-{delay_ms}ms", directive, checks=("--expect-bytes", str(answer_bytes)))


def streamed(interval_ms: int, chunks: int = CHUNKS) -> Workload:
    """Content events of 200 bytes, one every `interval_ms` (0: as fast as they go), then the tail."""
    directive = f"chunks={chunks} chunk_bytes={CHUNK_BYTES} interval_ms={interval_ms}"
    checks = ("--stream", "--expect-events", str(chunks + TAIL_EVENTS), "--interval-ms", str(interval_ms))
    return Workload(f"sse-{chunks}-{interval_ms}ms", directive, stream=True, checks=checks)


def idle_stream(interval_ms: int) -> Workload:
    """A stream that does not end by itself, with one event every `interval_ms`."""
    directive = f"chunks=1000000 chunk_bytes={CHUNK_BYTES} interval_ms={interval_ms}"
    return Workload("sse-idle", directive, stream=True, checks=("--stream",))


def chunks_seen(events: int, streams: int) -> int:
    """Writes of the upstream among the events that arrived: the tail's three events are one of them."""
    return events - (TAIL_EVENTS - 1) * streams
