"""The native load that coefficients come from, and the small part of a mix that the prediction is checked with.

CPU is that of all the gateway's processes over a window, at about half of a core, since a busy loop serves several
events a turn and so costs less each: a plan for half-loaded workers must not rest on saturated ones.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from bench.capacity.coefficients import Coefficients, Measured
from bench.capacity.plan import Mix, cpu_us_per_s
from bench.speed import conditions, memory, native, procfs, workload
from bench.speed.disturbance import Disturbance
from bench.speed.launch import CannotRun
from bench.speed.memory import BUSY_CONNECTIONS, MemoryResult
from bench.speed.native import LoadResult
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, Settings
from bench.speed.targets import Running
from bench.speed.workload import Workload

HALF: Final = 0.5
FEW: Final = 32  # at once, for a first look
SMALL_BYTES, LARGE_BYTES = 1_000, 64_000
SHORT_CHUNKS, LONG_CHUNKS = 20, 300
INTERVAL_MS: Final = 20
STREAMS_HELD: Final = 1_000
CHECK_LOAD: Final = 0.4  # of a core
MEMORY_S: Final = 19.0  # of the memory section, as it is planned there
LOADS_S: Final = 33.0  # of warming up for all loads, and of the journal's
JOURNAL_SETTLE_S: Final = 1.5
KB: Final = 1_000


def plain(size: int, delay_ms: int = 0) -> Workload:
    """A prompt of that size, a small answer, written after a while."""
    base = workload.plain(delay_ms)
    return replace(base, name=f"plain-{size}", request_bytes=size)


def streamed(size: int, chunks: int, interval_ms: float, ttft_ms: float = 0.0) -> Workload:
    """A prompt of that size, answered in so many chunks."""
    directive = f"chunks={chunks} chunk_bytes=200 interval_ms={interval_ms:.0f} ttft_ms={ttft_ms:.0f}"
    checks = ("--stream", "--expect-events", str(chunks + workload.TAIL_EVENTS))
    return Workload(f"stream-{size}-{chunks}", directive, stream=True, checks=checks, request_bytes=size)


def at_rate(rate: float, lasting_s: float) -> tuple[str, ...]:
    """Open loop, with connections for all that is under way at once, and patience for the last of it."""
    connections = max(64, int(rate * lasting_s * 2) + 64)
    return ("--rate", f"{rate:.1f}", "--connections", str(connections), "--drain", f"{lasting_s + 5:.0f}")


@dataclass
class Window:
    """CPU time of a gateway between the two moments of a load."""

    gateway: Running
    at: dict[str, procfs.Reading] = field(default_factory=dict)

    def on_moment(self, moment: str) -> None:
        """Called with "measuring" and "measured"."""
        self.at[moment] = self.gateway.reading()

    @property
    def cpu_us(self) -> float:
        """Of all its processes."""
        return sum(self.at["measured"].cpu_us_since(self.at["measuring"]).values())


@dataclass(frozen=True)
class Bench:
    """A running gateway, its upstream, and how long to measure."""

    gateway: Running
    upstream: int
    seconds: float
    folder: Path
    progress: Progress

    def load(
        self,
        work: Workload,
        arguments: tuple[str, ...],
        on_moment: Callable[[str], None],
        *,
        warmup: float = 1.0,
        direct: bool = False,
    ) -> LoadResult:
        """One measurement; CannotRun when answers are wrong, since costs of wrong answers plan nothing."""
        self.progress.step(f"{work.name}{' direct' if direct else ''}", self.seconds + warmup)
        return self.brought(work, arguments, on_moment, warmup=warmup, direct=direct)

    def brought(
        self,
        work: Workload,
        arguments: tuple[str, ...],
        on_moment: Callable[[str], None],
        *,
        warmup: float,
        direct: bool = False,
    ) -> LoadResult:
        """The same without a word, for who has said it."""
        found = native.load(
            self.upstream if direct else self.gateway.port,
            [*arguments, *work.checks, "--seconds", str(self.seconds), "--warmup", str(warmup)],
            body=work.write(self.folder),
            headers=self.gateway.headers,
            core=CLIENT_CORE,
            length_s=self.seconds + warmup,
            on_moment=on_moment,
        )
        if found.errors:
            raise CannotRun(f"{work.name}: wrong answers: {found.errors} {' '.join(found.notes)}")
        return found

    def _half(self, work: Workload, arguments: tuple[str, ...], lasting_s: float) -> float:
        """The rate that takes half of a core, by what this load took."""
        window = Window(self.gateway)
        found = self.load(work, arguments, window.on_moment, warmup=1.0 + lasting_s)
        return max(1.0, HALF * 1e6 * found.rps * self.seconds / max(window.cpu_us, 1.0))

    def cost_us(self, work: Workload, lasting_s: float = 0.0) -> tuple[float, float]:
        """CPU µs of one exchange at half load, and the rate that was."""
        if lasting_s:  # few streams at once tell little of many: a second look, nearer to the half
            rate = self._half(work, at_rate(FEW / lasting_s, lasting_s), lasting_s)
            rate = self._half(work, at_rate(rate, lasting_s), lasting_s)
        else:
            rate = self._half(work, ("--connections", str(FEW)), 0.0)
        window = Window(self.gateway)
        found = self.load(work, at_rate(rate, lasting_s), window.on_moment, warmup=1.0 + lasting_s)
        if not window.cpu_us or not found.ok:
            raise CannotRun(f"{work.name}: nothing was answered in time; the machine is too busy to measure")
        return window.cpu_us / (found.rps * self.seconds), rate


def calibration_s(seconds: float) -> float:
    """About how long calibrating takes, for the progress line: twelve loads, beside what begins and holds them."""
    return MEMORY_S + LOADS_S + 12 * seconds


def calibrate(bench: Bench, state: Path, held: MemoryResult, settled_mb: tuple[float, float]) -> Coefficients:
    """All coefficients; `held` is the memory section's result, `settled_mb` the node's and the worker's idle memory."""
    small_us, rate = bench.cost_us(plain(SMALL_BYTES))
    large_us, _ = bench.cost_us(plain(LARGE_BYTES))
    short_s, long_s = (chunks * INTERVAL_MS / 1e3 for chunks in (SHORT_CHUNKS, LONG_CHUNKS))
    short_us, _ = bench.cost_us(streamed(SMALL_BYTES, SHORT_CHUNKS, INTERVAL_MS), short_s)
    long_us, _ = bench.cost_us(streamed(SMALL_BYTES, LONG_CHUNKS, INTERVAL_MS), long_s)
    measured = Measured(
        small_us, SMALL_BYTES / KB, large_us, LARGE_BYTES / KB, short_us, SHORT_CHUNKS, long_us, LONG_CHUNKS
    )
    node_mb, worker_mb = settled_mb
    found = conditions.gather([])
    return Coefficients(
        date=found["date"],
        machine=found["machine"],
        gateway=found["gateway"],
        request_us=measured.request_us,
        prompt_kb_us=measured.prompt_kb_us,
        stream_us=measured.stream_us,
        chunk_us=measured.chunk_us,
        node_mb=node_mb,
        worker_mb=worker_mb,
        connection_kb=connection_kb(held),
        stream_kb=held.kb_per_stream or 0.0,
        journal_bytes=journal_bytes(bench, state),
        p99_added_ms=p99_added_ms(bench, rate),
    )


def connection_kb(held: MemoryResult) -> float:
    """What a busy connection adds to an idle worker."""
    idle, busy = held.at("idle"), held.at(f"{BUSY_CONNECTIONS:,} connections")
    return max(0.0, (busy.rss_kb - idle.rss_kb) / BUSY_CONNECTIONS) if idle and busy else 0.0


def memory_of(start: Callable[[], AbstractContextManager[Running]], bench: Bench) -> MemoryResult:
    """The memory section of `bench.speed` on gateways of its own."""
    settings = Settings(hold=STREAMS_HELD, hold_seconds=3.0)
    descriptors = procfs.raise_descriptor_limit()
    return memory.measure("gateway", start, settings, descriptors, bench.folder, bench.progress)


def idle_mb(gateway: Running) -> tuple[float, float]:
    """Memory of all processes but the worker, and of the worker: resident, so what they share counts in each."""
    processes = gateway.reading()
    worker = processes.worker()
    whole_kb = sum(process.rss_kb for process in processes.processes.values())
    worker_kb = worker.rss_kb if worker else 0
    return (whole_kb - worker_kb) / 1024, worker_kb / 1024


def written_bytes(state: Path) -> int:
    """What the journal's files hold."""
    return sum(path.stat().st_size for path in (state / "journal").rglob("*") if path.is_file())


def journal_bytes(bench: Bench, state: Path, requests: int = 5_000) -> float:
    """What an exchange adds to the journal's files."""
    before = written_bytes(state)
    work = plain(SMALL_BYTES)
    bench.progress.step("journal", 2.0)
    found = native.load(
        bench.gateway.port,
        ["--requests", str(requests), "--connections", "32", *work.checks],
        body=work.write(bench.folder),
        headers=bench.gateway.headers,
        core=CLIENT_CORE,
        length_s=60.0,
    )
    time.sleep(JOURNAL_SETTLE_S)  # the last ones are written a moment after they are answered
    return (written_bytes(state) - before) / max(1, found.ok)


def p99_added_ms(bench: Bench, rate: float) -> float:
    """At that rate, against the upstream alone."""
    p99 = []
    for direct in (True, False):
        found = bench.load(plain(SMALL_BYTES), at_rate(rate, 0.1), native.ignore, direct=direct)
        p99.append(found.latency.quantile_us(0.99) / 1e3)
    return max(0.0, p99[1] - p99[0])


@dataclass(frozen=True)
class Checked:
    """CPU that a second of a mix was predicted to take and took, in µs."""

    mix: Mix
    predicted_us: float
    measured_us: float
    disturbance: Disturbance = field(default_factory=Disturbance)

    @property
    def error(self) -> float:
        """As a share of what was measured."""
        return self.predicted_us / self.measured_us - 1 if self.measured_us else float("inf")


def scaled(mix: Mix, c: Coefficients, load: float = CHECK_LOAD) -> Mix:
    """The same mix, so much of it that one worker has `load` of a core to do."""
    return replace(mix, rps=mix.rps * load * 1e6 / cpu_us_per_s(mix, c))


def check(bench: Bench, mix: Mix, c: Coefficients) -> Checked:
    """Both kinds of exchange at once, once all that overlap have begun; CPU over the window that they share."""
    small = scaled(mix, c)
    size, delay_ms = int(small.prompt_kb * KB), int(small.exchange_s * 1e3)
    works = {
        plain(size, delay_ms): small.plain_per_s,
        streamed(size, small.output_tokens, small.token_ms, small.ttft_ms): small.streams_per_s,
    }
    window, both = Window(bench.gateway), _Both(sum(rate > 0 for rate in works.values()))
    failures: list[CannotRun] = []
    warmup_s = small.exchange_s + 1
    bench.progress.step(f"a part of the mix, {small.rps:,.1f} requests/s", bench.seconds + warmup_s)

    def bring(work: Workload, rate: float) -> None:
        try:
            arguments = at_rate(rate, small.exchange_s)
            bench.brought(work, arguments, partial(both.reached, window), warmup=warmup_s)
        except CannotRun as problem:
            failures.append(problem)

    threads = [threading.Thread(target=bring, args=each) for each in works.items() if each[1] > 0]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for problem in failures:
        raise problem
    return Checked(small, cpu_us_per_s(small, c), window.cpu_us / both.seconds)


class _Both:
    """Opens the window when the last load is measuring, closes it when the first has measured."""

    def __init__(self, loads: int) -> None:
        self._left = loads
        self._lock = threading.Lock()
        self._times: Mapping[str, float] = {}

    def reached(self, window: Window, moment: str) -> None:
        """One of the loads is there."""
        with self._lock:
            if moment == "measuring":
                self._left -= 1
            if (moment == "measuring" and not self._left) or (moment == "measured" and moment not in self._times):
                window.on_moment(moment)
                self._times = {**self._times, moment: time.monotonic()}

    @property
    def seconds(self) -> float:
        """The window's length; CannotRun when the loads did not overlap."""
        if len(self._times) < 2 or self._times["measured"] <= self._times["measuring"]:  # noqa: PLR2004 - two ends
            raise CannotRun("the two loads did not overlap; try a longer --seconds")
        return self._times["measured"] - self._times["measuring"]
