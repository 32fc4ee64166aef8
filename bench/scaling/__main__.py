"""`python -m bench.scaling`: turn each knob, print what a request costs at each setting.

Exit status: 0 it was measured, 1 nodes on one store admitted what their limit does not allow, 2 the words are wrong, 3
it, or a part of it, could not be run; what was measured is written all the same. No cost is judged here.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.scaling import points
from bench.scaling.parts import PARTS, expected_s
from bench.scaling.points import Point, Result
from bench.scaling.stand import Stand
from bench.speed import conditions, launch, native, page, procfs, report, sections, targets
from bench.speed.launch import CannotRun
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, Settings

MEASURED, BROKEN, CANNOT_RUN = 0, 1, 3
RESULTS: Final = targets.ROOT / "bench" / "results"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    told = "\n".join(f"  {part:8} {title}" for part, title in points.TITLES.items())
    parsed = argparse.ArgumentParser(
        "python -m bench.scaling",
        description=f"What a request costs as things grow; eight minutes.\n\nparts:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parsed.add_argument
    add("--only", type=_parts, default=tuple(PARTS), metavar="PARTS", help="some of them, with commas")
    add("--repeats", type=int, default=3, help="of each setting (3)")
    add("--seconds", type=float, default=2.0, help="length of one measurement (2)")
    add("--out", type=Path, metavar="DIR", help="folder of the result (bench/results/<date>-<machine>-scaling)")
    return parsed


def _parts(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := [name for name in chosen if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in chosen)


def measure(only: Sequence[str], settings: Settings, folder: Path, told: Mapping[str, str]) -> Result:
    """These parts, one after the other. CannotRun when none of them could be measured."""
    planned_s = expected_s(settings, only)
    descriptors, progress = procfs.raise_descriptor_limit(), Progress(planned_s)
    again = sections.again(settings, planned_s, progress)
    found: list[Point] = []
    with native.upstream(CLIENT_CORE, folder / "upstream.log") as port:
        stand = Stand(port, folder, settings, descriptors, progress, again)
        for part in only:
            try:
                for point in PARTS[part](stand):  # one by one: those before a failure are kept
                    found.append(point)  # noqa: PERF402 - as said
            except CannotRun as problem:
                stand.broken(part, problem)
        for one in again.thrown:
            if one.errors:  # which others on the machine do not excuse
                stand.broken(one.section, CannotRun(f"wrong answers, while others disturbed: {dict(one.errors)}"))
    progress.close()
    if not found:
        raise CannotRun("; ".join(stand.remarks))
    load = " ".join(Path("/proc/loadavg").read_text().split()[:3])
    return Result(found, {**told, "load after": load}, stand.remarks, stand.findings, again.thrown, stand.failed)


def write(result: Result, folder: Path) -> None:
    """raw.json, report.md and report.html into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw.json").write_text(json.dumps(result.raw(), indent=1) + "\n")
    (folder / "report.md").write_text(points.markdown(result))
    (folder / page.NAME).write_text(points.html(result))


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    parsed = parser()
    options = parsed.parse_args(arguments)
    if options.repeats < 1 or options.seconds <= 0:
        parsed.error("--repeats and --seconds must be above zero")
    launch.end_on_signals()
    settings = Settings(repeats=options.repeats, seconds=options.seconds, warmup=0.5)
    try:
        native.build()
        if "prompts" in options.only:
            launch.ensure("nginx:nginx-light")
        told = conditions.gather(arguments, "bench.scaling")
        with tempfile.TemporaryDirectory(prefix="bench-scaling-") as folder:
            result = measure(options.only, settings, Path(folder), told)
    except CannotRun as problem:
        print(f"\nThe bench cannot run: {problem}", file=sys.stderr)
        return CANNOT_RUN
    except KeyboardInterrupt:
        print("\nstopped; nothing written", file=sys.stderr)
        return 128 + signal.SIGINT
    out = options.out or report.fresh_folder(RESULTS / conditions.folder_name(told["date"], "scaling"))
    write(result, out)
    print(points.markdown(result))
    print(f"written to {out}", file=sys.stderr)
    if not result.holds:
        return BROKEN
    return CANNOT_RUN if result.broken else MEASURED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
