"""report.html: the report's words and tables with charts between them, in one file that needs nothing else.

    python -m bench.speed.page FOLDER    makes it anew from a result's raw.json

The text is report.md's, so the two cannot differ: the few forms that report.py writes (headings, tables, lists,
paragraphs, **bold**) are turned into HTML here, and a chart follows the heading that it belongs to. There is no script
and no address in the page, so it can be kept, mailed and opened anywhere.
"""

import argparse
import html
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from bench import program
from bench.speed import plot, report, stored, verdict, workers
from bench.speed.histogram import Histogram, bucket_upper
from bench.speed.memory import MemoryResult
from bench.speed.plot import Axis, Bar, Point, Scale, Series
from bench.speed.report import Result
from bench.speed.sections import Sample
from bench.speed.verdict import Range

NAME: Final = "report.html"
MAX_POINTS: Final = 400  # of a curve; more cannot be seen
_LIGHT: Final = ("#5b6770", "#2a7f3f", "#c2410c", "#1d5fb8", "#8b3fb5", "#a16207", "#0f766e", "#be185d")
_DARK: Final = ("#a9b4bc", "#6cc685", "#ff9a62", "#78aef5", "#cf9af0", "#e0b64f", "#5ecfc2", "#f58fbd")


def _colours(values: Sequence[str]) -> str:
    return "".join(f".s{n}{{stroke:{c}}}.d{n},.f{n}{{fill:{c}}}.b{n}{{background:{c}}}" for n, c in enumerate(values))


STYLE: Final = (
    ":root{color-scheme:light dark;--ink:#1c2126;--paper:#fff;--line:#d8dde1}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e4e8eb;--paper:#16191c;--line:#3a4147}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;margin:2rem auto;"
    "padding:0 1rem}table{border-collapse:collapse;display:block;overflow-x:auto;font-size:13px}"
    "td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left}"
    "svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--ink)}"
    "polyline{fill:none;stroke-width:1.8}.grid{stroke:var(--line)}.whisker{stroke:var(--ink);fill:none}"
    ".legend span{margin-right:1rem}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}"
    "figure{margin:1rem 0}figcaption{font-weight:600}"
    + _colours(_LIGHT)
    + "@media(prefers-color-scheme:dark){"
    + _colours(_DARK)
    + "}"
)


def page(result: Result) -> str:
    """The whole page."""
    title = f"Speed beside nginx, {result.conditions['date'][:10]}"
    return document(title, report.markdown(result), _charts(result))


def document(title: str, markdown: str, charts: Mapping[str, str]) -> str:
    """A page of a report's words; `charts` are HTML, each by the heading that it follows."""
    body = "\n".join(_blocks(markdown, charts))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


# ---- the words


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(text))


def _kind(line: str) -> str:
    if line.startswith("#"):
        return "heading"
    if line.startswith("|"):
        return "table"
    if line.startswith("- "):
        return "list"
    return "text" if line else "gap"


def _blocks(markdown: str, charts: Mapping[str, str]) -> Iterator[str]:
    for kind, grouped in groupby(markdown.splitlines(), _kind):
        found = list(grouped)
        if kind == "heading":
            for line in found:
                level, _, title = line.partition(" ")
                yield f"<h{len(level)}>{_inline(title)}</h{len(level)}>"
                yield charts.get(title, "")
        elif kind == "table":
            yield _table(found)
        elif kind == "list":
            yield f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in found)}</ul>"
        elif kind == "text":
            yield f"<p>{'<br>'.join(_inline(line) for line in found)}</p>"


def _table(found: Sequence[str]) -> str:
    rows = [[_inline(cell.strip()) for cell in line.strip("|").split("|")] for line in found]
    head = "".join(f"<th>{cell}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows[2:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# ---- the charts


def figure(caption: str, chart: str) -> str:
    """A chart with its caption; nothing where there is no chart."""
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{chart}</figure>" if chart else ""


def _charts(result: Result) -> dict[str, str]:
    """By the heading that they follow."""
    latency = _distributions(result, "latency", lambda s: s.load.latency, "latency, ms")
    ttft = _distributions(result, "sse-paced", lambda s: s.load.ttft, "time to first token, ms")
    lag = _distributions(result, "sse-paced", lambda s: s.load.lag, "lag of a chunk, ms")
    return {
        "Plain requests": figure("Requests a second on one core", _throughput(result, "json", lambda s: s.load.rps)),
        "Streams at a model's pace": figure("Time to first token", ttft) + figure("Lag between chunks", lag),
        "Streams as fast as they go": figure(
            "Chunks a second on one core", _throughput(result, "sse-flat-out", lambda s: s.units_per_s)
        ),
        "Latency at half load": figure("Latency, all repeats together", latency)
        + figure("Added latency against load, p99", _added(result)),
        "Memory and descriptors": figure("Resident memory of the worker over the section", _over_time(result)),
        "Workers": figure("Requests a second against workers", _against_workers(result)),
    }


def _throughput(result: Result, section: str, value: Callable[[Sample], float]) -> str:
    found = []
    for colour, target in enumerate(result.settings.targets):
        spread = Range.of(value(sample) for sample in verdict.of(result.samples, section, target))
        if spread:
            found.append(Bar(target, spread.median, spread.low, spread.high, colour))
    return plot.bars(f"{section} by target", "/s", found)


def _against_workers(result: Result) -> str:
    subject, found = result.settings.subject, []
    for number in workers.WORKERS:
        spread = Range.of(sample.load.rps for sample in verdict.of_workers(result.samples, subject, number))
        if spread:
            name = "1 worker" if number == 1 else f"{number} workers"
            found.append(Bar(name, spread.median, spread.low, spread.high, number))
    return plot.bars("throughput against workers", "/s", found)


def _distributions(result: Result, section: str, pick: Callable[[Sample], Histogram], title: str) -> str:
    found = []
    for colour, target in enumerate(result.settings.targets):
        pooled = Histogram.merged(pick(sample) for sample in verdict.of(result.samples, section, target))
        if pooled.total:
            found.append(Series(target, cumulative(pooled), colour))
    return plot.lines(title, Axis("share of all, at most as late", Scale.QUANTILE), Axis(title, Scale.LOG), found)


def cumulative(pooled: Histogram) -> list[Point]:
    """(share, ms) for each bucket, thinned where buckets lie closer than can be seen; the last is never dropped."""
    points: list[Point] = []
    seen = 0
    for bucket in sorted(pooled.counts):
        share = seen / pooled.total
        seen += pooled.counts[bucket]
        points.append((share, min(bucket_upper(bucket), pooled.max_ns) / 1e6))
    step = -(-len(points) // MAX_POINTS)
    return [*points[:-1:step], points[-1]]


def _added(result: Result) -> str:
    """p99 minus direct's at the same rate: the sweep's, with the latency section's own rate among them."""
    found = []
    for colour, target in enumerate(result.settings.targets):
        points = sorted(_added_points(result, target)) if target != "direct" else []
        if len({rate for rate, _ in points}) > 1:
            found.append(Series(target, points, colour, marked=True))
    return plot.lines("added latency", Axis("requests a second that were due"), Axis("p99 added, ms", Scale.LOG), found)


def _added_points(result: Result, target: str) -> Iterator[Point]:
    def p99_ms(sample: Sample) -> float:
        return sample.load.latency.quantile_us(0.99) / 1e3

    direct = {s.rate: p99_ms(s) for s in verdict.of(result.samples, "sweep", "direct") if s.rate}
    swept = verdict.of(result.samples, "sweep", target)
    yield from ((s.rate, p99_ms(s) - direct[s.rate]) for s in swept if s.rate in direct and s.rate)
    half = verdict.paired(result.samples, "latency", (target, "direct"), lambda a, b: p99_ms(a) - p99_ms(b))
    if half and result.rate and swept:
        yield result.rate, half.median


def _over_time(result: Result) -> str:
    def of(memory: MemoryResult) -> list[Point]:
        return [(m.at_s, m.rss_kb / 1024) for m in memory.moments if m.at_s is not None]

    colours = {target: number for number, target in enumerate(result.settings.targets)}
    found = [Series(memory.target, of(memory), colours.get(memory.target, 0), marked=True) for memory in result.memory]
    return plot.lines(
        "memory over time", Axis("seconds"), Axis("resident memory, MB"), [one for one in found if one.points]
    )


def write(result: Result, folder: Path) -> None:
    """Write report.html into a result's folder."""
    (folder / NAME).write_text(page(result))


def main(arguments: Sequence[str]) -> int:
    """Make the page of a stored result; 2 when there is none."""
    parser = argparse.ArgumentParser("python -m bench.speed.page", description="Make report.html from raw.json anew.")
    parser.add_argument("folder", type=Path, help="a folder that `python -m bench.speed` wrote")
    folder = parser.parse_args(arguments).folder
    try:
        result = stored.load(folder)
    except stored.NotAResult as problem:
        print(f"bench.speed.page: {problem}", file=sys.stderr)
        return 2
    return program.ended("bench.speed.page", lambda: _written(result, folder))


def _written(result: Result, folder: Path) -> int:
    with program.writing(folder):
        write(result, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
