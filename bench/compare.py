"""Two results side by side: `python -m bench.compare A B` says for each figure whether B is better, worse, or neither.

A and B are folders that `python -m bench.speed` wrote, or their names under bench/results/. What may be said is little,
and is decided by rule, not by eye:

- the noise band of a figure is the least and the greatest of its repeats; B is better or worse only when the two bands
  do not touch and the medians lie at least MIN_CHANGE apart. For equal programs that happens by accident in 2 of
  (2n over n) cases: one in 126 at five repeats, one in three at two, so fewer than MIN_REPEATS never decide;
- a figure that is measured once (memory) is given ASSUMED_BAND on either side;
- a figure that the machine moves and nginx does not have (of two workers, of a start) is held against nginx's cost of a
  plain request;
- a section that is void in either result decides nothing;
- a time or a rate means nothing where the machine changed: other hardware, or nginx, the same program in both runs,
  that itself moved beyond its band. Ratios to nginx still do;
- latencies are compared only at the same rate of arrivals, within MAX_RATE_CHANGE.

Exit status: 0 nothing of the subject is worse, 1 something is, 2 one of the two is not a result.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

from bench.speed import start, stored, tls, verdict, workers
from bench.speed.histogram import Histogram
from bench.speed.report import Result
from bench.speed.sections import Sample
from bench.speed.verdict import Range

RESULTS: Final = Path(__file__).parent / "results"
MIN_REPEATS: Final = 4
MIN_CHANGE: Final = 0.02
ASSUMED_BAND: Final = 0.05
MAX_RATE_CHANGE: Final = 0.05

NOTHING_WORSE, WORSE, NO_RESULT = 0, 1, 2


class Word(Enum):
    """What may be said of a figure."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


Values: TypeAlias = Callable[[Sequence[Sample], str], Range | None]
"""A figure's repeats, from all samples and a target's name; None when the target has no such figure."""


class Good(Enum):
    """Which way is good."""

    MORE = "more"
    LESS = "less"


class Moves(Enum):
    """What a figure moves with: the machine (a time, a rate), or only the target (a ratio in the same repeat)."""

    WITH_MACHINE = "machine"
    ALONE = "alone"


@dataclass(frozen=True)
class Measure:
    """A figure that every target has, and the section of the samples that it comes from."""

    name: str
    section: str
    unit: str
    good: Good
    moves: Moves
    values: Values

    @property
    def voided_with(self) -> str:
        """The name that `verdict.void_reasons` knows its section by."""
        return next((name for name in ("sse", workers.SECTION) if self.section.startswith(name)), self.section)


def _own(section: str, value: Callable[[Sample], float]) -> Values:
    def values(samples: Sequence[Sample], target: str) -> Range | None:
        found = Range.of(value(sample) for sample in verdict.of(samples, section, target))
        return found if found and found.high > 0 else None  # direct has no processes: its CPU is no figure

    return values


def _beside(section: str, other: str, combine: Callable[[Sample, Sample], float | None]) -> Values:
    def values(samples: Sequence[Sample], target: str) -> Range | None:
        own = verdict.of(samples, section, target)
        if target in {"direct", other} or not any(sample.units for sample in own):
            return None
        return verdict.paired(samples, section, (target, other), combine)

    return values


def _added_ms(q: float) -> Callable[[Sample, Sample], float]:
    return lambda ours, direct: (ours.load.latency.quantile_us(q) - direct.load.latency.quantile_us(q)) / 1e3


def _cpu(sample: Sample) -> float:
    return sample.cpu_us_per_unit


def _ms(pick: Callable[[Sample], Histogram]) -> Callable[[Sample], float]:
    return lambda sample: pick(sample).quantile_us(0.99) / 1e3


_JSON_RATIO: Final = _beside("json", "nginx", verdict.rate_ratio)
_SSE: Final = "sse-paced"
_TWO: Final = workers.measured_as(2)
YARDSTICK: Final = Measure("plain: CPU a request", "json", "µs", Good.LESS, Moves.WITH_MACHINE, _own("json", _cpu))
"""Of nginx, where it does not have the figure itself."""
MEASURES: Final = (
    Measure("plain: rate", "json", "1/s", Good.MORE, Moves.WITH_MACHINE, _own("json", lambda s: s.load.rps)),
    YARDSTICK,
    Measure("plain: rate beside nginx", "json", "×", Good.MORE, Moves.ALONE, _JSON_RATIO),
    Measure("streams: CPU a chunk", _SSE, "µs", Good.LESS, Moves.WITH_MACHINE, _own(_SSE, _cpu)),
    Measure("streams: CPU beside nginx", _SSE, "×", Good.LESS, Moves.ALONE, _beside(_SSE, "nginx", verdict.cost_ratio)),
    Measure(
        "streams: first token p99", _SSE, "ms", Good.LESS, Moves.WITH_MACHINE, _own(_SSE, _ms(lambda s: s.load.ttft))
    ),
    Measure("streams: lag p99", _SSE, "ms", Good.LESS, Moves.WITH_MACHINE, _own(_SSE, _ms(lambda s: s.load.lag))),
    Measure(
        "streams: chunks flat out",
        "sse-flat-out",
        "1/s",
        Good.MORE,
        Moves.WITH_MACHINE,
        _own("sse-flat-out", lambda s: s.units_per_s),
    ),
    Measure(
        "latency: p50 added",
        "latency",
        "ms",
        Good.LESS,
        Moves.WITH_MACHINE,
        _beside("latency", "direct", _added_ms(0.5)),
    ),
    Measure(
        "latency: p99 added",
        "latency",
        "ms",
        Good.LESS,
        Moves.WITH_MACHINE,
        _beside("latency", "direct", _added_ms(0.99)),
    ),
    Measure("TLS: CPU a request", tls.KEPT, "µs", Good.LESS, Moves.WITH_MACHINE, _own(tls.KEPT, _cpu)),
    Measure(
        "TLS: CPU beside nginx", tls.KEPT, "×", Good.LESS, Moves.ALONE, _beside(tls.KEPT, "nginx", verdict.cost_ratio)
    ),
    Measure("TLS: CPU a new connection", tls.ANEW, "µs", Good.LESS, Moves.WITH_MACHINE, _own(tls.ANEW, _cpu)),
    Measure("two workers: rate", _TWO, "1/s", Good.MORE, Moves.WITH_MACHINE, _own(_TWO, lambda s: s.load.rps)),
    Measure("two workers: CPU a request", _TWO, "µs", Good.LESS, Moves.WITH_MACHINE, _own(_TWO, _cpu)),
    Measure("two workers: CPU a request beside one", _TWO, "×", Good.LESS, Moves.ALONE, verdict.cost_of_two),
)


@dataclass(frozen=True)
class Row:
    """One figure of one target in both results, and what may be said of it and why."""

    target: str
    name: str
    unit: str
    a: Range
    b: Range
    word: Word
    because: str = ""

    @property
    def change(self) -> float:
        """Of the median, as a share of A's."""
        return (self.b.median - self.a.median) / abs(self.a.median) if self.a.median else 0.0


def judge(a: Range, b: Range, good: Good) -> tuple[Word, str]:
    """By the bands alone."""
    if a.low <= b.high and b.low <= a.high:
        return Word.CANNOT_TELL, "the bands overlap"
    if abs(b.median - a.median) < MIN_CHANGE * abs(a.median):
        return Word.CANNOT_TELL, f"less than {MIN_CHANGE:.0%} apart"
    return (Word.BETTER if (b.median > a.median) is (good is Good.MORE) else Word.WORSE), ""


class Comparison:
    """Result B against result A."""

    def __init__(self, a: Result, b: Result) -> None:
        self.a, self.b = a, b
        self.voided = {section for result in (a, b) for section in result.void}
        self.same_machine = a.conditions.get("machine") == b.conditions.get("machine")

    def rows(self) -> list[Row]:
        """All figures that both results have, target by target."""
        targets = [name for name in self.a.settings.targets if name in self.b.settings.targets]
        found = [row for target in targets for measure in MEASURES if (row := self._row(target, measure))]
        return found + self._memory_rows() + self._start_rows()

    def _row(self, target: str, measure: Measure) -> Row | None:
        a, b = measure.values(self.a.samples, target), measure.values(self.b.samples, target)
        if a is None or b is None:
            return None
        word, because = Word.CANNOT_TELL, self._obstacle(target, measure)
        if not because:
            word, because = judge(a, b, measure.good)
        return Row(target, measure.name, measure.unit, a, b, word, because)

    def _obstacle(self, target: str, measure: Measure) -> str:
        """Why nothing may be said whatever the bands are; empty when there is no such reason."""
        if measure.voided_with in self.voided:
            return "void"
        if few := _too_few(*(len(verdict.of(r.samples, measure.section, target)) for r in (self.a, self.b))):
            return few
        if measure.section == "latency" and (changed := self._rate_changed()):
            return changed
        return self._machine_changed(target, measure) if measure.moves is Moves.WITH_MACHINE else ""

    def _machine_changed(self, target: str, measure: Measure) -> str:
        if not self.same_machine:
            return "another machine"
        return "nginx moved as well" if target != "nginx" and self._nginx_moved(measure) else ""

    def _rate_changed(self) -> str:
        a, b = self.a.rate or 0.0, self.b.rate or 0.0
        return f"at {a:,.0f} and {b:,.0f} requests/s" if abs(a - b) > MAX_RATE_CHANGE * max(a, b) else ""

    def _nginx_moved(self, measure: Measure) -> bool:
        a, b = measure.values(self.a.samples, "nginx"), measure.values(self.b.samples, "nginx")
        if a and b:
            return judge(a, b, measure.good)[0] is not Word.CANNOT_TELL
        return measure is not YARDSTICK and self._nginx_moved(YARDSTICK)

    def _memory_rows(self) -> list[Row]:
        rows = []
        for result in self.a.memory:
            other = next((found for found in self.b.memory if found.target == result.target), None)
            if other is None:
                continue
            figures = [("memory: KB a stream", "KB", result.kb_per_stream, other.kb_per_stream)]
            for moment in result.moments:
                then = other.at(moment.when)
                if moment.when in {"idle", "1,000 connections"} and then:
                    figures.append((f"memory: {moment.when}", "MB", moment.rss_kb / 1024, then.rss_kb / 1024))
            rows += [_once(result.target, name, unit, a, b) for name, unit, a, b in figures if a and b]
        return rows + self._tls_memory_rows()

    def _tls_memory_rows(self) -> list[Row]:
        before = {result.target: result.kb_per_stream for result in self.a.tls_memory}
        both = ((r.target, before.get(r.target), r.kb_per_stream) for r in self.b.tls_memory)
        return [_once(target, "TLS: KB a stream", "KB", a, b) for target, a, b in both if a and b]

    def _start_rows(self) -> list[Row]:
        subject = self.b.settings.subject
        return [row for state in start.STATES if (row := self._start_row(subject, state))]

    def _start_row(self, subject: str, state: str) -> Row | None:
        a, b = (
            [one.answered_s for one in result.starts if (one.target, one.state) == (subject, state)]
            for result in (self.a, self.b)
        )
        then, now = Range.of(a), Range.of(b)
        if then is None or now is None:
            return None
        void = "void" if start.SECTION in self.voided else ""
        word, because = Word.CANNOT_TELL, void or _too_few(len(a), len(b)) or self._machine_changed(subject, YARDSTICK)
        if not because:
            word, because = judge(then, now, Good.LESS)
        return Row(subject, f"start: first answer, state_dir {state}", "s", then, now, word, because)


def _too_few(*counts: int) -> str:
    """Why so many repeats cannot decide; empty where they can."""
    return f"{min(counts)} repeats; {MIN_REPEATS} are needed" if min(counts) < MIN_REPEATS else ""


def _once(target: str, name: str, unit: str, a: float, b: float) -> Row:
    def band(value: float) -> Range:
        return Range(value, value * (1 - ASSUMED_BAND), value * (1 + ASSUMED_BAND))

    word, because = judge(band(a), band(b), Good.LESS)
    return Row(target, name, unit, Range(a, a, a), Range(b, b, b), word, because or "measured once")


def summary(comparison: Comparison, names: tuple[str, str]) -> list[str]:
    """A line for each target of B, its subject first: of how many figures what can be said."""
    rows, subject = comparison.rows(), comparison.b.settings.subject
    ordered = sorted(comparison.b.settings.targets, key=lambda target: target != subject)
    lines = []
    for target in ordered:
        told = Counter(row.word for row in rows if row.target == target)
        counts = ", ".join(f"{word.value} {told[word]}" for word in Word)
        name = f"{target} (the subject)" if target == subject else target
        lines.append(f"- {name}: {counts}" if told else f"- {name}: nothing to compare, {names[0]} does not have it")
    return lines


def markdown(comparison: Comparison, names: tuple[str, str]) -> str:
    """The table, after what can be said in a word and what it rests on."""
    a, b = comparison.a, comparison.b
    lines = [f"# {names[1]} beside {names[0]}", ""]
    for name, result in zip(names, (a, b), strict=True):
        told = "; ".join(result.conditions.get(key, "unknown") for key in ("date", "machine", "gateway"))
        lines.append(f"- {name}: {told}")
        lines += [f"  - void for {section}: {reason}" for section, found in result.void.items() for reason in found]
    lines += ["", *summary(comparison, names)]
    lines += ["", f"| target | figure | unit | {names[0]} | {names[1]} | change | |", "|---|---|---|---|---|---|---|"]
    for row in comparison.rows():
        said = f"**{row.word.value}**" + (f" ({row.because})" if row.because else "")
        lines.append(
            f"| {row.target} | {row.name} | {row.unit} | {_told(row.a)} | {_told(row.b)} | {row.change:+.0%} | {said} |"
        )
    return "\n".join(lines) + "\n"


def _told(value: Range) -> str:
    def short(number: float) -> str:
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"  # noqa: PLR2004 - thousands need no fraction

    text = short(value.median)
    return text if value.low == value.high else f"{text} ({short(value.low)} – {short(value.high)})"


def folder(text: str) -> Path:
    """A result's folder: as it is given, or by its name under bench/results/."""
    given = Path(text)
    return given if given.is_dir() or not (RESULTS / text).is_dir() else RESULTS / text


def known() -> list[str]:
    """The names under bench/results/ that can be compared."""
    return sorted(path.parent.name for path in RESULTS.glob(f"*/{stored.RAW}") if stored.is_result(path.parent))


def _no_result(problem: str) -> int:
    found = "\n  ".join(known()) or "none yet"
    print(f"bench-compare: {problem}; there are\n  {found}", file=sys.stderr)
    return NO_RESULT


def main(arguments: Sequence[str]) -> int:
    """Print the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", type=folder, nargs="?", help="the earlier result")
    parser.add_argument("b", metavar="B", type=folder, nargs="?", help="the later one")
    given = parser.parse_args(arguments)
    if given.b is None:
        return _no_result("two results are needed, A=earlier B=later")
    try:
        comparison = Comparison(stored.load(given.a), stored.load(given.b))
    except stored.NotAResult as problem:
        return _no_result(str(problem))
    print(markdown(comparison, (given.a.name, given.b.name)), end="")
    subjects = {comparison.b.settings.subject}
    worse = [row for row in comparison.rows() if row.word is Word.WORSE and row.target in subjects]
    return WORSE if worse else NOTHING_WORSE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
