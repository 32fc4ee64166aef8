"""Figures at settings, repeat by repeat, and the tables made of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.speed.verdict import Range

TITLES: Final[Mapping[str, str]] = {
    "prompts": "Prompt size: 64 connections, closed loop; a worker beside nginx, each alone on core 0",
    "limits": "Limits on a request: one worker, keys with so many limits each, in shared memory",
    "keys": "Keys of a node: the index by itself, in one process (see bench/keys.py)",
    "streams": "Open streams of one worker, each with an event every five seconds",
    "workers": "Workers: closed loop; two workers share the second core with callers and upstream",
    "nodes": "Nodes on one store: a fixed rate, divided among nodes of one worker each, all on core 0",
}
"""The parts, in the order in which they are run and told."""


@dataclass(frozen=True)
class Point:
    """What was found at one setting in one repeat; figures are named with their units."""

    part: str
    at: str
    figures: Mapping[str, float]

    def summary(self) -> dict[str, Any]:
        """For raw.json."""
        return asdict(self)


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


def markdown(points: Sequence[Point], remarks: Sequence[str], conditions: Mapping[str, str]) -> str:
    """The whole report."""
    parts = [part for part in TITLES if settings_of(points, part)]
    sections = [f"## {TITLES[part]}\n\n{table(points, part)}" for part in parts]
    told = "\n".join(f"- {remark}" for remark in remarks)
    rows = "\n".join(f"| {name} | {value} |" for name, value in conditions.items())
    head = "# What a request costs as things grow\n\nMedians, with the least and the greatest of the repeats."
    return "\n\n".join([head, *([told] if told else []), *sections, f"| condition | |\n|---|---|\n{rows}"]) + "\n"


def _told(value: Range | None) -> str:
    if value is None:
        return "–"
    text = _short(value.median)
    return text if value.low == value.high else f"{text} ({_short(value.low)} – {_short(value.high)})"


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"  # noqa: PLR2004 - thousands need no fraction
