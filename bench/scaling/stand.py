"""What every part of `bench.scaling` stands on: the upstream, a folder, how long to measure, and what is to be told."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.load.judge import Finding
from bench.speed.disturbance import Again
from bench.speed.launch import CannotRun
from bench.speed.native import LoadResult
from bench.speed.progress import Progress
from bench.speed.sections import TARGET_CORE, Bench, Sample, Settings
from bench.speed.targets import Place, Running, Target

CONNECTIONS: Final = 64
COST, RATE, P99 = "µs CPU a request", "requests/s", "p99 ms"


@dataclass(frozen=True)
class Stand:
    """What every part needs: where the upstream listens, a folder, and how long to measure.

    `remarks` are for the report, `findings` what is judged at all: whether limits held; `failed` the parts that could
    not be measured, or not to their end.
    """

    upstream: int
    folder: Path
    settings: Settings
    descriptors: int
    progress: Progress
    again: Again
    remarks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def place(self, name: str) -> Place:
        """Where something of that name runs."""
        return Place(TARGET_CORE, self.upstream, self.folder / name, self.descriptors)

    def bench(self, *running: Running) -> Bench:
        """The measurements of `bench.speed` on these targets."""
        return Bench(self.settings, running, self.folder, self.progress, self.again)

    @contextmanager
    def started(self, target: Target, name: str = "") -> Generator[Running, None, None]:
        """A target, ready."""
        with target.running(self.place(name or target.name)) as running:
            yield running

    def broken(self, part: str, problem: CannotRun) -> None:
        """A part that ended early; the others go on."""
        self.failed.append(part)
        self.remark(f"{part} could not be measured, or not to the end: {problem}")

    def remark(self, words: str) -> None:
        """Say it now, and in the report, where it is one line of a list."""
        told = " ".join(words.split())
        self.progress.note(told)
        self.remarks.append(told)


def plain_figures(sample: Sample) -> dict[str, float]:
    """What a measurement of plain requests says; CannotRun where answers were wrong."""
    require_right(sample.section, sample.load)
    return {
        COST: sample.cpu_us_per_unit,
        "of the busiest process": sample.busiest_us_per_unit,
        RATE: sample.load.rps,
        P99: sample.load.latency.quantile_us(0.99) / 1e3,
    }


def require_right(what: str, load: LoadResult) -> None:
    """CannotRun where answers were wrong: such a load says nothing."""
    if load.errors:
        raise CannotRun(f"{what}: wrong answers: {load.errors} {' '.join(load.notes)}")
