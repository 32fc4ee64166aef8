"""`python -m bench.speed`: measure, write the result, say the verdict.

Exit status: 0 all goals that were measured are met, 1 one is missed, 2 the run is void, 3 it could not be run.
"""

import argparse
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from bench import program
from bench.speed import (
    conditions,
    launch,
    memory,
    native,
    page,
    peers,
    procfs,
    report,
    sections,
    start,
    targets,
    tls,
    verdict,
    workers,
    workload,
)
from bench.speed.launch import CannotRun
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, SECTIONS, TARGET_CORE, Bench, Sample, Settings
from bench.speed.targets import Place, Running, Target
from bench.speed.verdict import Range, Status

if TYPE_CHECKING:
    from bench.speed.memory import MemoryResult
    from bench.speed.start import Start

MET, MISSED, VOID = 0, 1, 2
KNOWN: Final = (*targets.NAMES, *peers.NAMES)
RESULTS: Final = Path(__file__).parent.parent / "results"
QUICK: Final = Settings(
    repeats=2,
    seconds=1.0,
    warmup=0.5,
    sections=("json", "sse", "latency", "memory"),
    long=False,
    hold=1_000,
    hold_seconds=3.0,
    sweep=(),
    again=0.0,
)
MEMORY_TARGET_S: Final = 15.0  # of the memory section on one target, beside holding its streams


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser(
        "python -m bench.speed", description="Measure the gateway beside nginx on one core."
    )
    add = parsed.add_argument
    add("--quick", action="store_true", help="under two minutes: fewer sections, repeats and open streams, all shorter")
    add("--only", type=program.names(SECTIONS), help=f"sections to run, of {','.join(SECTIONS)}")
    add("--targets", type=program.names(KNOWN), default=targets.USUAL, help=f"of {','.join(KNOWN)}")
    add("--subject", choices=KNOWN[1:], default="limited", help="the target the goals are for")
    add("--repeats", type=program.count(), help="interleaved repeats (5)")
    add("--seconds", type=program.number(0.1), help="length of one measurement (3)")
    add("--streams", type=program.count(), help="idle streams to hold open (10,000)")
    add(
        "--rate",
        type=program.number(1),
        help="requests a second of the latency section (half of what the subject can do)",
    )
    add("--gateway-config", type=Path, metavar="FILE", help="settings laid over the generated gateway.yaml")
    add("--out", type=Path, metavar="DIR", help="folder of the result (bench/results/<date>-<machine>, and -quick)")
    return parsed


def settings_of(options: argparse.Namespace) -> Settings:
    """The standard set or the quick one, with what the command line says laid over it."""
    base = QUICK if options.quick else Settings()
    chosen: dict[str, object] = {
        "sections": options.only,
        "repeats": options.repeats,
        "seconds": options.seconds,
        "hold": options.streams,
        "rate": options.rate,
    }
    values = {**vars(base), **{name: value for name, value in chosen.items() if value is not None}}
    values["subject"] = options.subject
    values["targets"] = tuple(name for name in KNOWN if name in {*options.targets, options.subject})
    return Settings(**values)


def expected_s(settings: Settings) -> float:
    """About how long the run takes, for the progress line."""
    rounds = {"json": 1, "sse": 2, "latency": 1}
    turns = sum(count for section, count in rounds.items() if section in settings.sections)
    total = turns * settings.repeats * len(settings.targets) * settings.measurement_s()
    if "sse" in settings.sections and settings.long:
        ours = {"nginx", "gateway", settings.subject} & set(settings.targets)
        total += settings.repeats * len(ours) * sections.long_settings(settings).measurement_s()
    if "latency" in settings.sections:
        total += len(settings.sweep) * len({"direct", "nginx", settings.subject}) * settings.measurement_s()
    if "memory" in settings.sections:
        total += 2 * (MEMORY_TARGET_S + settings.hold_seconds)
    if "tls" in settings.sections:
        total += tls.expected_s(settings, len({"nginx", settings.subject} & set(settings.targets)))
    total += start.expected_s(settings) if start.SECTION in settings.sections else 0
    total += workers.expected_s(settings) if workers.SECTION in settings.sections else 0
    return total


class Run:
    """One run from the first process to the last sample."""

    def __init__(self, settings: Settings, folder: Path, gateway_settings: Mapping[str, object]) -> None:
        self.settings = settings
        self.folder = folder
        self.targets = targets.make(settings.targets, gateway_settings) + peers.make(settings.targets)
        self.descriptors = procfs.raise_descriptor_limit()
        self.progress = Progress(expected_s(settings))
        self.again = sections.again(settings, expected_s(settings), self.progress)
        self.samples: list[Sample] = []
        self.memory: list[MemoryResult] = []
        self.tls_memory: list[MemoryResult] = []
        self.starts: list[Start] = []
        self.rate: float | None = None
        self.remarks: list[str] = []

    def measure(self) -> None:
        """Everything the settings ask for."""
        with native.upstream(CLIENT_CORE, self.folder / "upstream.log") as port:
            self._speed(port)
            if "memory" in self.settings.sections:
                self._memory(port)
            self._of_the_gateway(port)
            if "tls" in self.settings.sections:
                self._tls(port)
        self.progress.close()

    def _place(self, port: int, name: str) -> Place:
        return Place(TARGET_CORE, port, self.folder / name, self.descriptors)

    def _speed(self, port: int) -> None:
        wanted = self.settings.sections
        if not {"json", "sse", "latency"} & set(wanted):
            return
        with ExitStack() as stack:
            started = (self._started(stack, target, port) for target in self.targets)
            running = tuple(target for target in started if target)
            bench = self._bench(*running)
            if "json" in wanted:
                self.samples += sections.plain_requests(bench)
            if "sse" in wanted:
                self.samples += sections.paced_streams(bench)
                self.samples += sections.long_streams(bench) if self.settings.long else []
                self.samples += sections.unpaced_streams(bench)
            if "latency" in wanted:
                self._latency(bench)

    def _bench(self, *running: Running) -> Bench:
        return Bench(self.settings, running, self.folder, self.progress, self.again)

    def _started(self, stack: ExitStack, target: Target, port: int) -> Running | None:
        """A target, started; one that the others can do without may fail to, and that is told."""
        try:
            running = stack.enter_context(target.running(self._place(port, target.name)))
        except CannotRun as problem:
            if not target.optional or target.name == self.settings.subject:
                raise
            self.remarks.append(f"{target.name} could not run: {str(problem).splitlines()[0]}")
            return None
        if running.no_streams:
            self.remarks.append(f"{target.name} answers no streams here: {running.no_streams}")
        return running

    def _latency(self, bench: Bench) -> None:
        """At half of the subject's capacity; found by one short measurement when the json section did not run."""
        subject = self.settings.subject
        capacity = Range.of(sample.load.rps for sample in verdict.of(self.samples, "json", subject))
        if capacity is None:
            target = next(target for target in bench.targets if target.name == subject)
            probe = bench.sample("capacity", target, 0, workload.plain(), "--connections", "64")
            capacity = Range(probe.load.rps, probe.load.rps, probe.load.rps)
        self.rate = self.settings.rate or max(1.0, round(capacity.median / 2))
        bench = replace(bench, targets=tuple(t for t in bench.targets if self._keeps_up(t.name, self.rate)))
        self.samples += sections.latency_at(bench, self.rate)
        self.samples += sections.latency_sweep(bench, capacity.median)

    def _keeps_up(self, name: str, rate: float) -> bool:
        """Whether a target can answer so many requests a second at all; one that cannot has no latency to tell."""
        capacity = Range.of(sample.load.rps for sample in verdict.of(self.samples, "json", name))
        if capacity is None or capacity.median > rate or name in {"direct", self.settings.subject}:
            return True
        self.remarks.append(
            f"{name} answers {capacity.median:,.0f} requests a second at most: not in the latency section."
        )
        return False

    def _memory(self, port: int) -> None:
        possible = memory.streams_possible(self.settings.hold, self.descriptors)
        if possible < self.settings.hold:
            self.remarks.append(
                f"Only {possible:,} of {self.settings.hold:,} streams could be opened: each takes two descriptors of "
                f"the worker, and the hard limit here is {self.descriptors:,}."
            )
        for target in self.targets:
            if target.name not in {self.settings.subject, "nginx"}:
                continue
            start = partial(self._started_for_memory, target, port)
            found = memory.measure(target.name, start, self.settings, self.descriptors, self.folder, self.progress)
            self.memory.append(found)

    def _of_the_gateway(self, port: int) -> None:
        """What only a gateway of ours is asked: how it starts, and how it grows with its workers."""
        wanted = {start.SECTION, workers.SECTION} & set(self.settings.sections)
        subject = next(target for target in self.targets if target.name == self.settings.subject)
        if not isinstance(subject, targets.Gateway):
            self.remarks += [f"There is no section {section} for {subject.name}." for section in sorted(wanted)]
            return
        if start.SECTION in wanted:
            self.starts = start.measure(subject, partial(self._place, port), self._bench())
        if workers.SECTION in wanted:
            self._workers(subject, port)

    def _workers(self, subject: targets.Gateway, port: int) -> None:
        with ExitStack() as stack:
            running = {}
            for number in workers.WORKERS:
                place = replace(self._place(port, f"workers-{number}"), core=workers.core(number))
                running[number] = stack.enter_context(targets.with_workers(subject, number).running(place))
            self.samples += workers.measure(self._bench(), running)

    @contextmanager
    def _started_for_memory(self, target: Target, port: int) -> Generator[Running, None, None]:
        with target.running(self._place(port, f"{target.name}-memory")) as running:
            yield running

    def _tls(self, port: int) -> None:
        settings = tls.shorter(self.settings)
        found = tls.measured(self.targets, settings.subject)
        if settings.subject not in {target.name for target in found}:
            self.remarks.append(f"{settings.subject} is not measured with TLS: the bench does not set it up for that.")
        if not found:
            return

        def surrounded(target: Target, of: str) -> AbstractContextManager[tls.Surrounded]:
            return tls.surrounded(target, self._place(port, f"{target.name}-{of}"))

        with ExitStack() as stack:
            running = [stack.enter_context(surrounded(target, "tls")) for target in found]
            bench = Bench(settings, tuple(one.running for one in running), self.folder, self.progress, self.again)
            self.samples += tls.requests(bench, running)
        for target in found:
            start = partial(surrounded, target, "tls-memory")
            kept = tls.memory(target.name, start, settings, self.descriptors, self.folder, self.progress)
            self.tls_memory.append(kept)


def exit_status(result: report.Result) -> int:
    """Void before missed: a run that says nothing misses nothing."""
    if result.void:
        return VOID
    return MISSED if any(goal.status is Status.MISSED for goal in result.goals()) else MET


def read_gateway_settings(path: Path | None) -> Mapping[str, object]:
    """The operator's own settings for the gateway; CannotRun if they cannot be read."""
    if path is None:
        return {}
    try:
        loaded = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise CannotRun(f"--gateway-config: {error}") from error
    if not isinstance(loaded, dict):
        raise CannotRun(f"--gateway-config {path}: settings are expected, as in gateway.yaml")
    return loaded


def carry_out(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run, report, write; CannotRun when something is missing."""
    settings, extra = settings_of(options), read_gateway_settings(options.gateway_config)
    program.require_writable(options.out or RESULTS)
    native.build()
    if "nginx" in settings.targets:
        launch.ensure("nginx:nginx-light")
    found = conditions.gather(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
        run = Run(settings, Path(folder), extra)
        run.measure()
    result = report.Result(
        found, settings, run.samples, run.memory, run.rate, run.remarks, run.again.thrown, run.tls_memory, run.starts
    )
    name = conditions.folder_name(found["date"], "quick" if options.quick else "")
    destination = options.out or report.fresh_folder(RESULTS / name)
    print(report.markdown(result))
    with program.writing(destination):
        report.write(result, destination)
        page.write(result, destination)
    return exit_status(result)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    return program.ended("bench.speed", lambda: carry_out(options, arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
