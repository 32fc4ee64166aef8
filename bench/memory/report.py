"""A run as a folder: raw.json with every reading, report.md for people, report.html with the curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.load import judge as thresholds
from bench.load.judge import Finding
from bench.memory import judge
from bench.memory.drive import CONNECTIONS, MAX_JOURNAL, Driven
from bench.memory.judge import MILLION, RESOLUTION_MB, Reading, Word
from bench.speed import page, plot
from bench.speed.plot import Axis, Series

MOST_ROWS: Final = 20
CHART: Final = "Memory over the requests"


@dataclass(frozen=True)
class Result:
    """A whole run, and the bound it is held against."""

    driven: Driven
    bound_mb: float
    conditions: Mapping[str, str]

    @property
    def words(self) -> dict[str, Word]:
        """Of each process, flat or not."""
        return judge.words(self.driven.readings, self.bound_mb)

    @property
    def findings(self) -> list[Finding]:
        """What is judged."""
        return judge.findings(self.driven.readings, self.driven.wrong, self.bound_mb)

    def raw(self) -> dict[str, Any]:
        """For raw.json."""
        return {
            "conditions": dict(self.conditions),
            "bound_mb": self.bound_mb,
            "warm_up": judge.warm_up(_asked(self.driven.readings)),
            "seconds": self.driven.seconds,
            "errors": self.driven.errors,
            "findings": [asdict(finding) for finding in self.findings],
            "readings": [reading.summary() for reading in self.driven.readings],
        }


def write(result: Result, folder: Path) -> None:
    """raw.json, report.md and report.html into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw.json").write_text(json.dumps(result.raw(), separators=(",", ":")) + "\n")
    (folder / "report.md").write_text(markdown(result))
    (folder / page.NAME).write_text(html(result))


def markdown(result: Result) -> str:
    """The whole report."""
    readings = result.driven.readings
    asked = _asked(readings)
    lead = (
        f"{asked:,} requests in {result.driven.seconds:,.0f} s to one worker with four limits, journal and metrics: "
        f"1,000 bytes in and out, {CONNECTIONS} connections made anew with each step, closed loop. The slope is that "
        f"of the line of least squares through the readings after the first {judge.warm_up(asked):,.0f} requests; less "
        f"than {RESOLUTION_MB:g} MB in all is a heap's own movement. The journal may take {MAX_JOURNAL}."
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in result.conditions.items())
    parts = [
        f"# Memory over {asked:,} requests, {result.conditions.get('date', '')[:10]}",
        thresholds.markdown(result.findings),
        f"## {CHART}",
        lead,
        _table(_thinned(readings)),
        f"## Conditions\n\n| what | value |\n|---|---|\n{rows}",
    ]
    return "\n\n".join(parts) + "\n"


def _asked(readings: Sequence[Reading]) -> int:
    return readings[-1].requests if readings else 0


def _thinned(readings: Sequence[Reading]) -> Sequence[Reading]:
    """At most MOST_ROWS, evenly, with the last."""
    step = -(-len(readings) // MOST_ROWS)
    return [*readings[step - 1 : -1 : step], readings[-1]] if readings else []


def _table(readings: Sequence[Reading]) -> str:
    head = ("requests", "s", "worker RSS MB", "PSS MB", "descriptors", "collections", "control RSS MB", "state MB")
    rows = [
        (
            f"{one.requests:,}",
            f"{one.at_s:,.0f}",
            f"{one.rss_kb / 1024:.1f}",
            f"{one.pss_kb / 1024:.1f}",
            f"{one.descriptors:,}",
            " / ".join(f"{count:,}" for count in one.collections),
            f"{one.control_rss_kb / 1024:.1f}",
            f"{one.state_bytes / 1e6:,.0f}",
        )
        for one in readings
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def html(result: Result) -> str:
    """The same words with the curves."""
    readings = result.driven.readings

    def curve(name: str, kb: str, colour: int) -> Series:
        return Series(name, [(one.requests / MILLION, getattr(one, kb) / 1024) for one in readings], colour)

    curves = (
        curve("worker, resident", "rss_kb", 1),
        curve("worker, its part of what is shared (PSS)", "pss_kb", 2),
        curve("control process, resident", "control_rss_kb", 3),
    )
    drawn = plot.lines(CHART, Axis("million requests"), Axis("MB"), curves)
    title = f"Memory over requests, {result.conditions.get('date', '')[:10]}"
    return page.document(title, markdown(result), {CHART: page.figure("Memory", drawn)})
