"""`python -m bench.capacity`: what a load takes, by coefficients that were measured.

Exit status: 0 done, and with --check within the fifth; 1 --check found more; 2 wrong words; 3 it could not be run.
"""

import argparse
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import program
from bench.capacity import coefficients, measure, plan
from bench.capacity.coefficients import Coefficients
from bench.capacity.measure import Bench, Checked
from bench.capacity.plan import Mix, Nodes
from bench.speed import disturbance, native, procfs
from bench.speed.__main__ import read_gateway_settings
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, TARGET_CORE
from bench.speed.targets import Gateway, Limited, Place, Running

DONE, MISSED = 0, 1
MAX_ERROR: Final = 0.20


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser(
        "python -m bench.capacity", description="What a load takes: workers, nodes, memory, journal."
    )
    add = parsed.add_argument
    add("--rps", type=program.number(0.01, 1e9), help="requests a second, all kinds together")
    add(
        "--stream-share",
        type=program.number(0, 1),
        default=Mix.stream_share,
        help="how many of them stream (%(default)s)",
    )
    add("--prompt-kb", type=program.number(0.2), default=Mix.prompt_kb, help="size of a request (%(default)s)")
    add(
        "--output-tokens",
        type=program.count(),
        default=Mix.output_tokens,
        help="of an answer; a chunk each (%(default)s)",
    )
    add("--ttft-ms", type=program.number(0), default=Mix.ttft_ms, help="until the first token (%(default)s)")
    add("--token-ms", type=program.number(0), default=Mix.token_ms, help="between two tokens (%(default)s)")
    add("--cores-per-node", type=program.count(), default=Nodes.cores, help="workers that a node may run (%(default)s)")
    add(
        "--spare-nodes", type=program.count(0), default=Nodes.spare, help="nodes that may be down at once (%(default)s)"
    )
    add(
        "--target-load",
        type=program.number(0.05, 1),
        default=Nodes.target_load,
        help="of a worker's core (%(default)s)",
    )
    add("--calibrate", action="store_true", help="measure this machine first, two minutes")
    add("--check", action="store_true", help="run a small part of the load and compare with the prediction")
    add("--seconds", type=program.number(0.5), default=4.0, help="of one measurement (%(default)s)")
    add("--coefficients", type=Path, default=coefficients.PATH, metavar="FILE", help="where they are (%(default)s)")
    add("--gateway-config", type=Path, metavar="FILE", help="settings laid over the gateway's, to calibrate with them")
    return parsed


def mix_of(options: argparse.Namespace) -> Mix:
    """The load that is asked about."""
    return Mix(
        options.rps,
        options.stream_share,
        options.prompt_kb,
        options.output_tokens,
        options.ttft_ms,
        options.token_ms,
    )


@contextmanager
def started(gateway: Gateway, port: int, folder: Path) -> Generator[Running, None, None]:
    """A gateway in a folder of its own."""
    with gateway.running(Place(TARGET_CORE, port, folder, procfs.raise_descriptor_limit())) as running:
        yield running


@contextmanager
def raised(options: argparse.Namespace, folder: Path, expected_s: float) -> Generator[Bench, None, None]:
    """Upstream and gateway, ready to be measured."""
    native.build()
    gateway = Limited(extra=read_gateway_settings(options.gateway_config))
    with ExitStack() as stack:
        port = stack.enter_context(native.upstream(CLIENT_CORE, folder / "upstream.log"))
        running = stack.enter_context(started(gateway, port, folder / "gateway"))
        progress = Progress(expected_s)
        yield Bench(running, port, options.seconds, folder, progress)
        progress.close()


def calibrated(options: argparse.Namespace) -> Coefficients:
    """Measured now, and stored."""
    program.require_writable(options.coefficients.parent)
    with tempfile.TemporaryDirectory(prefix="bench-capacity-") as made:
        folder = Path(made)
        with raised(options, folder, measure.calibration_s(options.seconds)) as bench:
            settled = measure.idle_mb(bench.gateway)
            gateway = Limited(extra=read_gateway_settings(options.gateway_config))
            count = iter(range(100))
            held = measure.memory_of(lambda: started(gateway, bench.upstream, folder / f"memory-{next(count)}"), bench)
            found = measure.calibrate(bench, folder / "gateway" / "state", held, settled)
    with program.writing(options.coefficients):
        found.stored(options.coefficients)
    return found


def checked(options: argparse.Namespace, mix: Mix, c: Coefficients) -> Checked:
    """The small part, run."""
    with tempfile.TemporaryDirectory(prefix="bench-capacity-") as folder:
        expected_s = options.seconds + mix.exchange_s + 1
        watch = disturbance.watching(TARGET_CORE, CLIENT_CORE)()
        with raised(options, Path(folder), expected_s) as bench:
            watch.look()
            found = measure.check(bench, mix, c)
            watch.look()
            return replace(found, disturbance=watch.found())


def told(found: Checked) -> str:
    """What the check says."""
    others = f" Meanwhile {disturbance.told(found.disturbance)}." if found.disturbance.too_much else ""
    word = "within" if abs(found.error) <= MAX_ERROR else "NOT within"
    return (
        f"Checked at {found.mix.rps:,.1f} requests/s: predicted {found.predicted_us / 1e4:.1f} % of a core, measured "
        f"{found.measured_us / 1e4:.1f} %; off by {found.error:+.0%}, {word} {MAX_ERROR:.0%}.{others}"
    )


def carry_out(options: argparse.Namespace) -> int:
    """Calibrate, plan, check: what was asked for."""
    c = calibrated(options) if options.calibrate else coefficients.load(options.coefficients)
    if options.rps is None:
        return DONE
    mix = mix_of(options)
    nodes = Nodes(options.cores_per_node, options.spare_nodes, options.target_load)
    print(plan.markdown(mix, c, nodes))
    if not options.check:
        return DONE
    found = checked(options, mix, c)
    print(f"\n{told(found)}")
    return DONE if abs(found.error) <= MAX_ERROR else MISSED


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parsed = parser()
    options = parsed.parse_args(arguments)
    if options.rps is None and (options.check or not options.calibrate):
        parsed.error("say --rps, or --calibrate")
    return program.ended("bench.capacity", lambda: carry_out(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
