"""`python -m bench.limits cost|proof`: what limits cost, and whether they hold.

Exit status: 0 all holds, 1 a bound is broken or a goal missed, 2 the words are wrong, 3 it could not be run.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import program
from bench.limits import cost, proof
from bench.limits.scenarios import BY_NAME, SCENARIOS
from bench.speed import conditions
from bench.speed.sections import CLIENT_CORE, TARGET_CORE
from bench.speed.targets import ROOT

HOLDS, MISSED = 0, 1
CORES: Final = (TARGET_CORE, CLIENT_CORE)
OUT: Final = ROOT / "build" / "limits"
MIN_SECONDS: Final = 15.0  # a shorter one may be over before its limit refuses anybody, and then it proves nothing


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parsed = argparse.ArgumentParser("python -m bench.limits", description="What limits cost, and whether they hold.")
    verbs = parsed.add_subparsers(dest="verb", required=True)
    costs = verbs.add_parser("cost", help="µs of a worker for reserve and settle; a minute on a quiet machine")
    costs.add_argument(
        "--requests", type=program.count(), default=20_000, help="in each repeat of each figure (20,000)"
    )
    costs.add_argument(
        "--repeats", type=program.count(), default=5, help="repeats, each of which visits every figure (5)"
    )
    costs.add_argument("--out", type=Path, metavar="DIR", help="where cost.md and cost.json go (nowhere)")
    proofs = verbs.add_parser(
        "proof",
        help="whether limits hold on running gateways, hammered and killed; 25 minutes",
        description="scenarios:\n" + "\n".join(f"  {scenario.name:20} {scenario.what}" for scenario in SCENARIOS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    proofs.add_argument(
        "--seconds",
        type=program.number(MIN_SECONDS),
        default=90.0,
        help=f"length of a scenario's load (90; {MIN_SECONDS:g} at least)",
    )
    proofs.add_argument(
        "--only", type=program.names(tuple(BY_NAME)), default=tuple(BY_NAME), metavar="NAMES", help="some, with commas"
    )
    proofs.add_argument("--out", type=Path, metavar="DIR", help="where proof.md and proof.json go (build/limits)")
    return parsed


def tell(words: str) -> None:
    """What is being done, for who waits."""
    print(f"… {words}", file=sys.stderr)


def run_cost(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measure, print, write."""
    if options.out:
        program.require_writable(options.out)
    found = conditions.gather(arguments, "bench.limits")
    figures = cost.measure(options.requests, options.repeats, tell, cores=CORES)
    found["load after"] = _load()
    report = cost.markdown(figures, found)
    print(report)
    if options.out:
        raw = {"conditions": found, "figures": [figure.summary() for figure in figures]}
        with program.writing(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "cost.json").write_text(json.dumps(raw, indent=1) + "\n")
            (options.out / "cost.md").write_text(report)
    return MISSED if cost.misses(figures) else HOLDS


def run_proof(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Prove, print, write."""
    out = options.out or OUT
    program.require_writable(out)
    found = conditions.gather(arguments, "bench.limits")
    chosen = [BY_NAME[name] for name in options.only]
    left_out = {scenario.name: why for scenario in chosen if (why := proof.possible(scenario))}
    with tempfile.TemporaryDirectory(prefix="bench-limits-") as folder:
        able = [scenario for scenario in chosen if scenario.name not in left_out]
        stories = proof.prove(able, options.seconds, Path(folder), tell)
    found["load after"] = _load()
    report = proof.markdown(stories, left_out, found)
    print(report)
    raw = {"conditions": found, "left_out": left_out, "stories": [story.summary() for story in stories]}
    with program.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "proof.json").write_text(json.dumps(raw, separators=(",", ":")) + "\n")
        (out / "proof.md").write_text(report)
    return HOLDS if stories and all(story.holds for story in stories) else MISSED


def _load() -> str:
    return " ".join(Path("/proc/loadavg").read_text().split()[:3])


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    run = run_cost if options.verb == "cost" else run_proof
    return program.ended("bench.limits", lambda: run(options, arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
