"""`python -m bench.scaling`: turn each knob, print what a request costs at each setting.

Exit status: 0 it was measured, 1 nodes on one store admitted what their limit does not allow, 2 the words are wrong, 3
it, or a part of it, could not be run; what was measured is written all the same. No cost is judged here.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import program
from bench.scaling import points
from bench.scaling.parts import PARTS, expected_s
from bench.scaling.points import Point, Result
from bench.scaling.stand import Stand
from bench.speed import conditions, launch, native, page, procfs, report, sections, targets
from bench.speed.launch import CannotRun
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, Settings

MEASURED, BROKEN = 0, 1
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
    add(
        "--only",
        type=program.names(tuple(PARTS)),
        default=tuple(PARTS),
        metavar="PARTS",
        help="some of them, with commas",
    )
    add("--repeats", type=program.count(), default=3, help="of each setting (3)")
    add("--seconds", type=program.number(0.1), default=2.0, help="length of one measurement (2)")
    add("--out", type=Path, metavar="DIR", help="folder of the result (bench/results/<date>-<machine>-scaling)")
    return parsed


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


def carry_out(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measure, report, write; CannotRun when something is missing."""
    settings = Settings(repeats=options.repeats, seconds=options.seconds, warmup=0.5)
    program.require_writable(options.out or RESULTS)
    native.build()
    if "prompts" in options.only:
        launch.ensure("nginx:nginx-light")
    told = conditions.gather(arguments, "bench.scaling")
    with tempfile.TemporaryDirectory(prefix="bench-scaling-") as folder:
        result = measure(options.only, settings, Path(folder), told)
    out = options.out or report.fresh_folder(RESULTS / conditions.folder_name(told["date"], "scaling"))
    print(points.markdown(result))
    with program.writing(out):
        write(result, out)
    if not result.holds:
        return BROKEN
    return program.CANNOT_RUN if result.broken else MEASURED


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    return program.ended("bench.scaling", lambda: carry_out(options, arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
