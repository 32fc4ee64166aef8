"""`python -m bench.profile`: load a worker, sample it, write profile.svg and profile.md.

Exit status: 0 written, 2 wrong words, 3 it could not be run.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import program
from bench.profile import flame, journey, stacks
from bench.profile.stacks import Stack
from bench.speed import conditions, native, peers, procfs, workload
from bench.speed.__main__ import read_gateway_settings
from bench.speed.launch import CannotRun
from bench.speed.native import LoadResult
from bench.speed.sections import CLIENT_CORE, TARGET_CORE
from bench.speed.targets import ROOT, Gateway, Limited, Place, Running
from bench.speed.workload import Workload

PY_SPY_VERSION: Final = "0.4.3"
SAMPLES_PER_S: Final = 400
CONNECTIONS: Final = {"json": "64", "sse": "200"}
OUT: Final = ROOT / "build" / "profile"
FUNCTIONS: Final = 25
MIN_SHARE: Final = 0.001
WRITTEN: Final = 0


def py_spy() -> Path:
    """The program, installed if need be."""
    step = [sys.executable, "-m", "pip", "install", "--quiet", "--target", ".", f"py-spy=={PY_SPY_VERSION}"]
    return peers.installed("py-spy", PY_SPY_VERSION, [step], cache=ROOT / "build" / "tools") / "bin" / "py-spy"


@dataclass(frozen=True)
class Target:
    """A gateway under a load that repeats."""

    gateway: Running
    kind: str
    seconds: float
    folder: Path

    @property
    def work(self) -> Workload:
        """The standard one of its kind."""
        return workload.plain() if self.kind == "json" else workload.streamed(10)

    def worker(self) -> int:
        """Its process."""
        found = self.gateway.reading().worker()
        if found is None:
            raise CannotRun("the gateway has no worker")
        return found.pid

    def load(self) -> tuple[LoadResult, float]:
        """One run, and the CPU time in µs that the worker's serving thread took for it."""
        pid, at = self.worker(), dict[str, int]()

        def note(moment: str) -> None:
            at[moment] = procfs.main_thread_cpu_us(pid)

        found = native.load(
            self.gateway.port,
            [
                "--connections",
                CONNECTIONS[self.kind],
                *self.work.checks,
                "--seconds",
                f"{self.seconds}",
                "--warmup",
                "1",
            ],
            body=self.work.write(self.folder),
            headers=self.gateway.headers,
            core=CLIENT_CORE,
            length_s=self.seconds + 1,
            on_moment=note,
        )
        if found.errors:
            raise CannotRun(f"wrong answers: {found.errors}")
        return found, float(at["measured"] - at["measuring"])

    def units(self, found: LoadResult) -> int:
        """Requests, or chunks of streams."""
        return found.ok if self.kind == "json" else workload.chunks_seen(found.events, found.terminated)

    def sampled(self, sampler: Path) -> list[Stack]:
        """Stacks of the worker under the load."""
        raw = self.folder / "stacks.txt"
        command = [str(sampler), "record", "--pid", str(self.worker()), "--duration", f"{max(1, round(self.seconds))}"]
        command += ["--rate", str(SAMPLES_PER_S), "--format", "raw", "--output", str(raw)]
        failures: list[CannotRun] = []

        def bring() -> None:
            try:
                self.load()
            except CannotRun as problem:
                failures.append(problem)

        thread = threading.Thread(target=bring)
        thread.start()
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - py-spy
        thread.join()
        for problem in failures:
            raise problem
        if done.returncode or not raw.exists():
            raise CannotRun(f"py-spy: {done.stderr.strip() or done.stdout.strip()}; it needs the right to trace (root)")
        return stacks.serving(stacks.parse(raw.read_text()))


def markdown(kind: str, each_us: float, found: Sequence[Stack], conditions_found: dict[str, str]) -> str:
    """The tables."""
    unit = "request" if kind == "json" else "chunk"
    samples = sum(stack.count for stack in found)
    parts = [
        f"# Where a {unit}'s time goes",
        (
            f"{each_us:.1f} µs of CPU a {unit} in the worker's serving thread, shared out by {samples:,} samples. Time "
            "in libraries and in the kernel is with the function of the gateway that asked for it."
        ),
        _table("stage of the journey", _in_order(stacks.shares(found, journey.stage)), each_us),
        _table("module", _seen(stacks.shares(found, stacks.module)), each_us),
        _table("function", _seen(stacks.shares(found, stacks.function)[:FUNCTIONS]), each_us),
        "\n".join(f"- {name}: {value}" for name, value in conditions_found.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _in_order(rows: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """All stages, also one in which no sample was taken."""
    shares = dict(rows)
    return [(stage, shares.get(stage, 0.0)) for stage in journey.JOURNEY]


def _seen(rows: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [row for row in rows if row[1] >= MIN_SHARE]


def _table(head: str, rows: Sequence[tuple[str, float]], each_us: float) -> str:
    lines = [f"| {name} | {share * each_us:.1f} | {share:.1%} |" for name, share in rows]
    return "\n".join([f"| {head} | µs | share |", "|---|---|---|", *lines])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser("python -m bench.profile", description="Where a worker's time goes.")
    add = parsed.add_argument
    add("--kind", choices=CONNECTIONS, default="json", help="plain requests, or streams (%(default)s)")
    add("--seconds", type=program.number(1), default=10.0, help="of each of the two runs (%(default)s)")
    add("--unlimited", action="store_true", help="a key without limits, instead of one with four")
    add("--gateway-config", type=Path, metavar="FILE", help="settings laid over the gateway's")
    add("--out", type=Path, default=OUT, metavar="DIR", help="folder of profile.svg and profile.md (%(default)s)")
    return parsed


def carry_out(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Run both loads and write what was found."""
    extra = read_gateway_settings(options.gateway_config)
    program.require_writable(options.out)
    native.build()
    sampler = py_spy()
    kind = Gateway if options.unlimited else Limited
    gateway = kind(extra=extra)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-profile-")))
        port = stack.enter_context(native.upstream(CLIENT_CORE, folder / "upstream.log"))
        place = Place(TARGET_CORE, port, folder / "gateway", procfs.raise_descriptor_limit())
        target = Target(stack.enter_context(gateway.running(place)), options.kind, options.seconds, folder)
        print(f"two runs of {options.seconds:g} s: what it costs, then where", file=sys.stderr)
        load, cpu_us = target.load()
        each_us = cpu_us / max(1, target.units(load))
        found = target.sampled(sampler)
    if not found:
        raise CannotRun("py-spy took no sample")
    told = markdown(options.kind, each_us, found, conditions.gather(arguments, "bench.profile"))
    print(told)
    with program.writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "profile.md").write_text(told)
        graph = flame.svg(found, f"a worker under {options.kind}, {each_us:.1f} µs each")
        (options.out / "profile.svg").write_text(graph)
    return WRITTEN


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    return program.ended("bench.profile", lambda: carry_out(options, arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
