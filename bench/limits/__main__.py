"""`python -m bench.limits cost|proof`: what limits cost, and whether they hold.

Exit status: 0 all holds, 1 a bound is broken or a goal missed, 2 the words are wrong, 3 it could not be run.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.limits import cost, proof
from bench.limits.scenarios import BY_NAME, SCENARIOS
from bench.speed import conditions, procfs
from bench.speed.launch import CannotRun, end_on_signals
from bench.speed.sections import CLIENT_CORE, TARGET_CORE
from bench.speed.targets import ROOT

HOLDS, MISSED, CANNOT_RUN = 0, 1, 3
CORES: Final = (TARGET_CORE, CLIENT_CORE)
OUT: Final = ROOT / "build" / "limits"
MIN_SECONDS: Final = 5.0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser("python -m bench.limits", description="What limits cost, and whether they hold.")
    verbs = parsed.add_subparsers(dest="verb", required=True)
    costs = verbs.add_parser("cost", help="µs of a worker for reserve and settle; a minute on a quiet machine")
    costs.add_argument("--requests", type=int, default=20_000, help="in each repeat of each figure (20,000)")
    costs.add_argument("--repeats", type=int, default=5, help="repeats, each of which visits every figure (5)")
    costs.add_argument("--out", type=Path, metavar="DIR", help="where cost.md and cost.json go (nowhere)")
    proofs = verbs.add_parser(
        "proof",
        help="whether limits hold on running gateways, hammered and killed; 25 minutes",
        description="scenarios:\n" + "\n".join(f"  {scenario.name:20} {scenario.what}" for scenario in SCENARIOS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    proofs.add_argument("--seconds", type=float, default=90.0, help="length of a scenario's load (90)")
    proofs.add_argument("--only", type=_scenarios, default=tuple(BY_NAME), metavar="NAMES", help="some, with commas")
    proofs.add_argument("--out", type=Path, metavar="DIR", help="where proof.md and proof.json go (build/limits)")
    return parsed


def _scenarios(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := [name for name in chosen if name not in BY_NAME]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    return chosen


def tell(words: str) -> None:
    """What is being done, for who waits."""
    print(f"… {words}", file=sys.stderr)


def run_cost(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measure, print, write."""
    found = conditions.gather(arguments, "bench.limits")
    with procfs.pinned(TARGET_CORE):
        figures = cost.measure(options.requests, options.repeats, tell, cores=CORES)
    found["load after"] = _load()
    report = cost.markdown(figures, found)
    print(report)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        raw = {"conditions": found, "figures": [figure.summary() for figure in figures]}
        (options.out / "cost.json").write_text(json.dumps(raw, indent=1) + "\n")
        (options.out / "cost.md").write_text(report)
    return MISSED if cost.misses(figures) else HOLDS


def run_proof(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Prove, print, write."""
    found = conditions.gather(arguments, "bench.limits")
    chosen = [BY_NAME[name] for name in options.only]
    left_out = {scenario.name: why for scenario in chosen if (why := proof.possible(scenario))}
    with tempfile.TemporaryDirectory(prefix="bench-limits-") as folder:
        able = [scenario for scenario in chosen if scenario.name not in left_out]
        stories = proof.prove(able, options.seconds, Path(folder), tell)
    found["load after"] = _load()
    report = proof.markdown(stories, left_out, found)
    print(report)
    out = options.out or OUT
    out.mkdir(parents=True, exist_ok=True)
    raw = {"conditions": found, "left_out": left_out, "stories": [story.summary() for story in stories]}
    (out / "proof.json").write_text(json.dumps(raw, separators=(",", ":")) + "\n")
    (out / "proof.md").write_text(report)
    print(f"written to {out}", file=sys.stderr)
    return HOLDS if stories and all(story.holds for story in stories) else MISSED


def _load() -> str:
    return " ".join(Path("/proc/loadavg").read_text().split()[:3])


def _problem(options: argparse.Namespace) -> str:
    """What is wrong with the words beyond their form; empty when nothing is."""
    if options.verb == "cost":
        return "--requests and --repeats must be above zero" if min(options.requests, options.repeats) < 1 else ""
    return f"--seconds must be at least {MIN_SECONDS:g}" if options.seconds < MIN_SECONDS else ""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parsed = parser()
    options = parsed.parse_args(arguments)
    if problem := _problem(options):
        parsed.error(problem)
    end_on_signals()
    try:
        return run_cost(options, arguments) if options.verb == "cost" else run_proof(options, arguments)
    except CannotRun as error:
        print(f"The bench cannot run: {error}", file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("\nstopped; nothing written", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
