"""Figures at settings, repeat by repeat, and the tables and charts made of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from bench.load import judge
from bench.load.judge import Finding
from bench.speed import disturbance, page, plot
from bench.speed.disturbance import Disturbance, Thrown
from bench.speed.plot import Axis, Scale, Series
from bench.speed.verdict import Range

TITLES: Final[Mapping[str, str]] = {
    "prompts": "Prompt size: 64 connections, closed loop; a worker beside nginx, each alone on core 0",
    "limits": "Limits on a request: one worker, keys with so many limits each, in shared memory",
    "keys": "Keys of a node: the index by itself, in one process (see bench/keys.py)",
    "streams": "Open streams of one worker, each with an event every five seconds",
    "nodes": "Nodes on one redis-server, each in a network namespace: one worker each, all on core 0",
}
"""The parts, in the order in which they are run and told."""
QUOTA_TITLE: Final = "Nodes on one redis-server: what they admit together"
UNDISTURBED: Final = ("keys", "streams")  # memory, and CPU time of one process: others may take what they like
LEFT_OUT: Final = "There is no part for policies: this gateway has none yet."

_GREW: Final = "µs CPU a request"
CHARTS: Final[Mapping[str, tuple[Axis, Axis, Mapping[str, str]]]] = {
    "prompts": (
        Axis("KB of a prompt", Scale.LOG),
        Axis(_GREW, Scale.LOG),
        {_GREW: "the gateway", "µs of nginx": "nginx"},
    ),
    "limits": (
        Axis("limits on a request"),
        Axis(_GREW),
        {_GREW: "all its processes", "of the busiest process": "worker"},
    ),
    "keys": (
        Axis("keys of a node", Scale.LOG),
        Axis("µs to authenticate"),
        {"µs to authenticate, first time": "first time", "µs, again": "again"},
    ),
    "streams": (Axis("open streams", Scale.LOG), Axis("resident memory of the worker, MB"), {"RSS MB": "worker"}),
    "nodes": (Axis("nodes"), Axis(_GREW), {_GREW: "nodes", "µs CPU of the store a request": "redis-server"}),
}
"""By part: what goes across, what goes up, and the figures shown, with the names of their curves."""


@dataclass(frozen=True)
class Point:
    """What was found at one setting in one repeat, and what others took; figures are named with their units."""

    part: str
    at: str
    figures: Mapping[str, float]
    disturbance: Disturbance = field(default_factory=Disturbance)

    def summary(self) -> dict[str, Any]:
        """For raw.json."""
        return {**asdict(self), "disturbance": self.disturbance.summary()}


def settings_of(points: Iterable[Point], part: str) -> list[str]:
    """The settings of a part, in the order in which they came."""
    return list(dict.fromkeys(point.at for point in points if point.part == part))


def figure(points: Iterable[Point], part: str, at: str, name: str) -> Range | None:
    """One figure over the repeats; None where it was not found."""
    return Range.of(p.figures[name] for p in points if (p.part, p.at) == (part, at) and name in p.figures)


def table(points: Sequence[Point], part: str) -> str:
    """One part: a row for each setting, a column for each figure."""
    rows = settings_of(points, part)
    names = list(dict.fromkeys(name for point in points if point.part == part for name in point.figures))
    head = f"| {part} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}"
    cells = [[_told(figure(points, part, at, name)) for name in names] for at in rows]
    return "\n".join([head, *(f"| {at} | {' | '.join(row)} |" for at, row in zip(rows, cells, strict=True))])


@dataclass(frozen=True)
class Result:
    """A whole run: its points, what is to remark, whether limits held, conditions, and the parts that broke off."""

    points: Sequence[Point]
    conditions: Mapping[str, str]
    remarks: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    thrown: Sequence[Thrown] = ()
    broken: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        """Whether everything that is judged holds."""
        return all(finding.holds for finding in self.findings)

    def raw(self) -> dict[str, Any]:
        """For raw.json."""
        return {
            "conditions": self.conditions,
            "remarks": self.remarks,
            "findings": [asdict(finding) for finding in self.findings],
            "broken": list(self.broken),
            "thrown": [one.summary() for one in self.thrown],
            "points": [point.summary() for point in self.points],
        }


def markdown(result: Result) -> str:
    """The whole report."""
    parts = [part for part in TITLES if settings_of(result.points, part)]
    sections = [f"## {TITLES[part]}\n\n{table(result.points, part)}" for part in parts]
    if result.findings:
        sections.append(f"## {QUOTA_TITLE}\n\n{judge.markdown(result.findings)}")
    kept = [(point.part, point.disturbance) for point in result.points if point.part not in UNDISTURBED]
    thrown = [replace(one, section=one.section.partition("-")[0]) for one in result.thrown]  # "limits-4"
    quiet = disturbance.report(kept, thrown)
    told = "\n".join(f"- {remark}" for remark in [*result.remarks, *quiet, LEFT_OUT])
    rows = "\n".join(f"| {name} | {value} |" for name, value in result.conditions.items())
    head = "# What a request costs as things grow\n\nMedians, with the least and the greatest of the repeats."
    return "\n\n".join([head, told, *sections, f"## Conditions\n\n| what | value |\n|---|---|\n{rows}"]) + "\n"


def html(result: Result) -> str:
    """The same words with a chart in each part."""
    charts = {TITLES[part]: page.figure(TITLES[part].partition(":")[0], chart(result.points, part)) for part in TITLES}
    title = f"As things grow, {result.conditions.get('date', '')[:10]}"
    return page.document(title, markdown(result), charts)


def chart(points: Sequence[Point], part: str) -> str:
    """The part's medians over its settings; empty when it was not run."""
    across, up, shown = CHARTS[part]
    curves = []
    for colour, (name, label) in enumerate(shown.items()):
        found = [(at, figure(points, part, at, name)) for at in settings_of(points, part)]
        placed = [(_number(at), value.median) for at, value in found if value]
        curves.append(Series(label, placed, colour, marked=True))
    return plot.lines(TITLES[part], across, up, [curve for curve in curves if curve.points])


def _number(at: str) -> float:
    """A setting as a place on an axis: "1,000 KB" is 1000."""
    return float(at.partition(" ")[0].replace(",", ""))


def _told(value: Range | None) -> str:
    if value is None:
        return "–"
    text = _short(value.median)
    return text if value.low == value.high else f"{text} ({_short(value.low)} – {_short(value.high)})"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"  # noqa: PLR2004 - thousands need no fraction
