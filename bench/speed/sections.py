"""The measurements: plain requests, paced and unpaced streams, latency at half load and, once each, at other loads.

In every section the targets are visited in turn inside each repeat, starting with another one each time, so that a slow
minute of the machine hits all of them. CPU time is read over exactly the load generator's window, and so is what others
took from the cores; a measurement that was disturbed is made again in its place (disturbance.py). The next one begins
when the target has come to rest: some go on for a while with what callers no longer wait for, or read their journal.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.speed import native, workload
from bench.speed.disturbance import Again, Disturbance, Watch, watching
from bench.speed.native import LoadResult
from bench.speed.progress import Progress
from bench.speed.targets import Running
from bench.speed.workload import Workload

if TYPE_CHECKING:
    from bench.speed.procfs import Reading

TARGET_CORE: Final = 0
CLIENT_CORE: Final = 1
SECTIONS: Final = ("json", "sse", "latency", "memory", "start", "workers", "tls")
LATENCY_CONNECTIONS: Final = 128
START_S: Final = 0.5  # of a measurement, beside its warm-up and window
STANDARD_S: Final = 14.5 * 60  # the standard set takes no longer, whatever is made again
CALM_LOOK_S: Final = 0.1
CALM_SHARE: Final = 0.1  # of a core in such a look: one tick of the clock
CALM_PATIENCE_S: Final = 10.0


@dataclass(frozen=True)
class Settings:
    """How much is measured. Times in seconds."""

    repeats: int = 5
    seconds: float = 3.0
    warmup: float = 1.0
    sections: tuple[str, ...] = SECTIONS
    targets: tuple[str, ...] = ("direct", "nginx", "gateway", "limited", "aiohttp")
    subject: str = "limited"
    connections: int = 64
    streams: int = 200
    interval_ms: int = 10
    long: bool = True  # long streams too
    hold: int = 10_000
    hold_seconds: float = 8.0
    sweep: tuple[float, ...] = (0.1, 0.25, 0.7, 0.85)  # shares of the subject's capacity; a half is the section itself
    rate: float | None = None  # of the latency section, requests a second; None: half of the subject's capacity
    again: float = 0.25  # of the planned length, to spare for measurements that were disturbed

    def measurement_s(self) -> float:
        """The length of one measurement."""
        return self.seconds + self.warmup + START_S


@dataclass(frozen=True)
class Sample:
    """One measurement of one target: what the callers saw, and the CPU time the target spent meanwhile."""

    section: str
    target: str
    repeat: int
    load: LoadResult
    units: int  # requests, or chunks where it is streams
    cpu_us: dict[int, int] = field(default_factory=dict)  # by process
    disturbance: Disturbance = field(default_factory=Disturbance)
    rate: float | None = None  # requests a second that were due, in an open loop

    @property
    def cpu_us_per_unit(self) -> float:
        """Of all the target's processes together."""
        return sum(self.cpu_us.values()) / self.units if self.units else 0.0

    @property
    def busiest_us_per_unit(self) -> float:
        """Of its busiest process alone, the worker."""
        return max(self.cpu_us.values(), default=0) / self.units if self.units else 0.0

    @property
    def units_per_s(self) -> float:
        """Requests or chunks a second."""
        return self.units / self.load.seconds if self.load.seconds else 0.0

    @property
    def others(self) -> float:
        """The share of the target's core that went to other programs, or to the hypervisor."""
        return max(0.0, self.disturbance.target_core) + self.disturbance.stolen

    def shares(self) -> tuple[float, float, float, float]:
        """Of the target's core: its busiest process, its other ones, other programs, and the rest."""
        core_us = self.load.seconds * 1e6
        busiest_us = max(self.cpu_us.values(), default=0)
        busiest, rest = busiest_us / core_us, (sum(self.cpu_us.values()) - busiest_us) / core_us
        return busiest, rest, self.others, max(0.0, 1 - busiest - rest - self.others)

    def summary(self) -> dict[str, object]:
        """For raw.json."""
        return {
            "section": self.section,
            "target": self.target,
            "repeat": self.repeat,
            "units": self.units,
            "cpu_us": list(self.cpu_us.values()),
            "cpu_us_per_unit": self.cpu_us_per_unit,
            "disturbance": self.disturbance.summary(),
            "rate": self.rate,
            "load": self.load.summary(),
        }


class Meter:
    """Reads a target's CPU time, and what others took, at the ends of the window as the load generator tells them."""

    def __init__(self, target: Running, watch: Watch) -> None:
        self._target = target
        self._watch = watch
        self._at: dict[str, Reading] = {}

    def on_moment(self, moment: str) -> None:
        """Called with "measuring" and "measured"."""
        self._at[moment] = self._target.reading()
        self._watch.look()

    def cpu_us(self) -> dict[int, int]:
        """CPU time in the window, by process."""
        return self._at["measured"].cpu_us_since(self._at["measuring"])

    def disturbance(self) -> Disturbance:
        """What others took in it."""
        return self._watch.found()


def again(settings: Settings, planned_s: float, progress: Progress) -> Again:
    """For a run of that length: what makes its measurements, those that were disturbed once more.

    A run that is planned to be longer than the standard set is somebody's wish, and has no other end.
    """
    spare_s = settings.again * planned_s
    if planned_s < STANDARD_S:
        spare_s = min(spare_s, STANDARD_S - planned_s)
    return Again(spare_s, watching(TARGET_CORE, CLIENT_CORE), progress.note)


@dataclass(frozen=True)
class Bench:
    """Everything a section needs: the targets that run, the settings, a folder for bodies and outputs."""

    settings: Settings
    targets: tuple[Running, ...]
    folder: Path
    progress: Progress
    again: Again

    def of_streams(self) -> "Bench":
        """The same with the targets that can answer a stream."""
        return replace(self, targets=tuple(target for target in self.targets if not target.no_streams))

    def interleaved(self, measure: Callable[[Running, int], Sample]) -> list[Sample]:
        """`measure` for every target in every repeat, each repeat starting with another target."""
        samples = []
        for repeat in range(self.settings.repeats):
            turn = repeat % len(self.targets)
            samples += [measure(target, repeat) for target in self.targets[turn:] + self.targets[:turn]]
        return samples

    def sample(
        self, section: str, target: Running, repeat: int, work: Workload, *arguments: str, rate: float | None = None
    ) -> Sample:
        """One measurement, open-loop with a `rate`; made again where it was disturbed."""
        name = f"{section} {repeat + 1}/{self.settings.repeats} {target.name}"
        if rate is not None:
            arguments = ("--rate", f"{rate:.0f}", "--seed", str(repeat + 1), *arguments)
            name += f" at {rate:,.0f}/s"
        length_s = self.settings.measurement_s()
        self.progress.step(name, length_s)

        def measure() -> Sample:
            found, meter = self._load(name, target, work, arguments)
            come_to_rest(target)
            units = workload.chunks_seen(found.events, found.terminated) if work.stream else found.ok
            return Sample(section, target.name, repeat, found, units, meter.cpu_us(), meter.disturbance(), rate)

        return self.again.undisturbed(section, name, measure, length_s)

    def _load(self, name: str, target: Running, work: Workload, arguments: tuple[str, ...]) -> tuple[LoadResult, Meter]:
        """What was seen in one window; what was wrong with an answer is noted as it is found."""
        settings, meter = self.settings, Meter(target, self.again.watch())
        load = native.load(
            target.stream_port if work.stream else target.port,
            [
                *arguments,
                *work.checks_for(verbatim=target.verbatim),
                "--seconds",
                str(settings.seconds),
                "--warmup",
                str(settings.warmup),
            ],
            body=work.write(self.folder),
            headers=target.headers,
            core=CLIENT_CORE,
            length_s=settings.measurement_s(),
            on_moment=meter.on_moment,
        )
        for note in load.notes:
            self.progress.note(f"{name}: {note}")
        return load, meter


def come_to_rest(target: Running) -> None:
    """Wait until its processes do next to nothing, for CALM_PATIENCE_S at most."""
    looks, before = round(CALM_PATIENCE_S / CALM_LOOK_S), target.reading()
    while looks and target.pid:
        time.sleep(CALM_LOOK_S)
        now = target.reading()
        if sum(now.cpu_us_since(before).values()) <= CALM_SHARE * CALM_LOOK_S * 1e6:
            return
        looks, before = looks - 1, now


def plain_requests(bench: Bench) -> list[Sample]:
    """Closed loop: how many requests a second, and what each costs the target."""
    work, connections = workload.plain(), str(bench.settings.connections)
    return bench.interleaved(lambda target, n: bench.sample("json", target, n, work, "--connections", connections))


def paced_streams(bench: Bench) -> list[Sample]:
    """Many streams at the pace of a model: what each chunk costs, and how late it comes."""
    work, streams = workload.streamed(bench.settings.interval_ms), str(bench.settings.streams)
    return bench.of_streams().interleaved(
        lambda target, n: bench.sample("sse-paced", target, n, work, "--connections", streams)
    )


def long_streams(bench: Bench) -> list[Sample]:
    """The same with answers as long as capacity is planned for, which makes less of what each request costs.

    Only of nginx and ours, in windows as long as a stream: each stream begins once in one, wherever the window begins.
    """
    settings, chunks = bench.settings, workload.LONG_CHUNKS
    work = workload.streamed(settings.interval_ms, chunks)
    own = tuple(target for target in bench.targets if target.name in {"nginx", "gateway", settings.subject})
    long = replace(bench, settings=long_settings(settings), targets=own)
    return long.of_streams().interleaved(
        lambda target, n: long.sample("sse-long", target, n, work, "--connections", str(settings.streams))
    )


def long_settings(settings: Settings) -> Settings:
    """With windows as long as a long stream."""
    return replace(settings, seconds=workload.LONG_CHUNKS * settings.interval_ms / 1e3)


def unpaced_streams(bench: Bench) -> list[Sample]:
    """Streams as fast as they go: how many chunks a second."""
    work, connections = workload.streamed(0), str(bench.settings.connections)
    return bench.of_streams().interleaved(
        lambda target, n: bench.sample("sse-flat-out", target, n, work, "--connections", connections)
    )


def latency_at(bench: Bench, rate: float) -> list[Sample]:
    """Open loop at `rate` requests a second: latency from the moment each request was due."""
    work, connections = workload.plain(), str(LATENCY_CONNECTIONS)

    def measure(target: Running, repeat: int) -> Sample:
        # The same arrivals for every target of a repeat, others in the next.
        return bench.sample("latency", target, repeat, work, "--connections", connections, rate=rate)

    return bench.interleaved(measure)


def latency_sweep(bench: Bench, capacity: float) -> list[Sample]:
    """Open loop at shares of `capacity` (requests a second), from light to nearly full: added latency against load."""
    work, connections = workload.plain(), str(LATENCY_CONNECTIONS)
    chosen = [target for target in bench.targets if target.name in {"direct", "nginx", bench.settings.subject}]
    rates = [max(1.0, round(capacity * share)) for share in bench.settings.sweep]
    return [
        bench.sample("sweep", target, 0, work, "--connections", connections, rate=rate)
        for rate in rates
        for target in chosen
    ]
