"""Memory and descriptors: idle, at 1,000 busy connections, and with thousands of open streams.

Whether memory stays flat over millions of requests is asked by `bench.memory`. The busy connections and the open
streams are each measured on a freshly started target, since a heap keeps what it once took: a thousand streams in the
room that a thousand connections had made would seem to cost nothing. The process that counts is the worker: one that is
called so (the gateway's), else the one with the most memory.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from bench.speed import native, workload
from bench.speed.native import LoadResult
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, Settings
from bench.speed.targets import Running
from bench.speed.workload import Workload

BUSY_CONNECTIONS: Final = 1_000
UPSTREAM_DELAY_MS: Final = 100  # about a tenth of a model's first token: enough to keep all connections under way
BUSY_S: Final = 4.0
IDLE_EVENT_EVERY_MS: Final = 5_000
WARM_UP_S: Final = 1.0
WARM_REQUESTS: Final = 200
SPARE_DESCRIPTORS: Final = 400
RELEASE_PATIENCE_S: Final = 5.0
LARGE_ANSWER_BYTES: Final = 256_000
LARGE_CONNECTIONS: Final = 250
CARRIED: Final = 4  # requests for each of them, so that none has had none
CARRYING_S: Final = 2.0  # about as long as they take
SMALL_CARRIED, LARGE_CARRIED = "small answers carried", "large answers carried"


@dataclass(frozen=True)
class Moment:
    """A worker's memory and descriptors at one moment of the run."""

    when: str
    rss_kb: int
    descriptors: int
    at_s: float | None = None  # since the section began; where the target was started anew its time goes on


@dataclass
class MemoryResult:
    """One target's memory section. `streams` is what was really held open, `wanted_streams` what was asked for."""

    target: str
    wanted_streams: int
    streams: int = 0
    moments: list[Moment] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def at(self, when: str) -> Moment | None:
        """The moment of that name."""
        return next((moment for moment in self.moments if moment.when == when), None)

    @property
    def kb_per_stream(self) -> float | None:
        """What one open idle stream adds to the worker."""
        before, held = self.at("before streams"), self.at("streams open")
        return (held.rss_kb - before.rss_kb) / self.streams if before and held and self.streams else None

    def summary(self) -> dict[str, object]:
        """For raw.json."""
        return {**asdict(self), "kb_per_stream": self.kb_per_stream}


def streams_possible(wanted: int, descriptors: int) -> int:
    """A stream through a proxy takes two descriptors of one process, so the hard limit may allow fewer than wanted."""
    return min(wanted, (descriptors - SPARE_DESCRIPTORS) // 2)


class MemoryRun:
    """The steps of the section on one running target; what they find is added to `result`."""

    def __init__(
        self, target: Running, settings: Settings, result: MemoryResult, streams: int, folder: Path, progress: Progress
    ) -> None:
        self._target, self._settings, self._streams = target, settings, streams
        self._folder, self._progress = folder, progress
        before_s = result.moments[-1].at_s if result.moments else None
        self._started = time.monotonic() - (before_s or 0.0)
        self.result = result

    def requests(self) -> None:
        """Plain requests: idle, and 1,000 connections."""
        time.sleep(1.0)  # start-up garbage is not what idle means
        self.look("idle")
        self._busy_connections()

    def open_streams(self) -> None:
        """Idle streams held open; before, a few requests, so that what is made once is not charged to the streams."""
        requests = ("--requests", str(WARM_REQUESTS), "--connections", str(self._settings.connections))
        self._load(workload.plain(), requests, WARM_UP_S, "warm-up")
        before = self.look("before streams")
        self._hold()
        deadline = time.monotonic() + RELEASE_PATIENCE_S
        while before and time.monotonic() < deadline and self._descriptors() > before.descriptors:
            time.sleep(0.1)
        self.look("streams closed")

    def large_answers(self) -> None:
        """What is left of answers of 256 KB in connections that are kept: before, they carried answers of 1 KB."""
        for when, answer_bytes in ((SMALL_CARRIED, workload.ANSWER_BYTES), (LARGE_CARRIED, LARGE_ANSWER_BYTES)):
            arguments = ("--requests", str(CARRIED * LARGE_CONNECTIONS), "--connections", str(LARGE_CONNECTIONS))
            self._load(workload.plain(UPSTREAM_DELAY_MS, answer_bytes), arguments, CARRYING_S, when)
            time.sleep(1.0)  # what is only on its way is not what is left
            self.look(when)

    def look(self, when: str) -> Moment | None:
        """Read the worker now."""
        worker = self._target.reading().worker()
        if worker is None:
            return None
        at_s = round(time.monotonic() - self._started, 3)
        moment = Moment(when, worker.rss_kb, worker.descriptors, at_s)
        self.result.moments.append(moment)
        return moment

    def _busy_connections(self) -> None:
        def halfway(moment: str) -> None:
            if moment == "measuring":
                time.sleep(BUSY_S / 2)
                self.look(f"{BUSY_CONNECTIONS:,} connections")

        work = workload.plain(UPSTREAM_DELAY_MS)
        arguments = ("--connections", str(BUSY_CONNECTIONS), "--seconds", str(BUSY_S), "--warmup", "1")
        self._load(work, arguments, BUSY_S + 1, f"{BUSY_CONNECTIONS:,} connections", halfway)

    def _hold(self) -> None:
        seconds = self._settings.hold_seconds

        def while_open(moment: str) -> None:
            if moment == "held":
                time.sleep(seconds - 1)  # long enough for each to have had an event
                self.look("streams open")

        arguments = ("--hold", str(self._streams), "--seconds", str(seconds))
        work = workload.idle_stream(IDLE_EVENT_EVERY_MS)
        load = self._load(work, arguments, seconds + 10, f"{self._streams:,} open streams", while_open)
        self.result.streams = load.held

    def _descriptors(self) -> int:
        worker = self._target.reading().worker()
        return worker.descriptors if worker else 0

    def _load(
        self,
        work: Workload,
        arguments: tuple[str, ...],
        length_s: float,
        label: str,
        on_moment: Callable[[str], None] = native.ignore,
    ) -> LoadResult:
        self._progress.step(f"memory {self._target.name}: {label}", length_s)
        load = native.load(
            self._target.stream_port if work.stream else self._target.port,
            [*arguments, *work.checks],
            body=work.write(self._folder),
            headers=self._target.headers,
            core=CLIENT_CORE,
            length_s=length_s,
            on_moment=on_moment,
        )
        for kind, count in load.errors.items():
            self.result.errors[kind] = self.result.errors.get(kind, 0) + count
        for note in load.notes:
            self._progress.note(f"memory {self._target.name}: {note}")
        return load


def measure(
    name: str,
    start: Callable[[], AbstractContextManager[Running]],
    settings: Settings,
    descriptors: int,
    folder: Path,
    progress: Progress,
) -> MemoryResult:
    """Take a target through the whole section, started anew for each half."""
    result, streams = MemoryResult(name, settings.hold), streams_possible(settings.hold, descriptors)
    with start() as target:
        MemoryRun(target, settings, result, streams, folder, progress).requests()
    with start() as target:
        MemoryRun(target, settings, result, streams, folder, progress).open_streams()
    return result
