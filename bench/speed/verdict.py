"""What the figures mean: medians with their range, when a run says nothing, and which goals are met.

A run is void where its own yardstick moved: nginx by more than 10 % between repeats, or an upstream and load generator
that by themselves are not at least 1.5 times as fast as nginx (then they, not the target, were measured), or a direct
p99 that alone is above what may be added. It is void too where other programs took more than 5 % of the target's core:
they cost an interpreter more than nginx, so even the ratio moves. A void run says nothing about the gateway, good or
bad. A wrong answer voids no run: it fails the goal, since speed without right answers is nothing. The section of TLS
voids none either: its goal is of memory, and its times stand there with their range.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self

from bench.speed import start, workers
from bench.speed.disturbance import MAX_DISTURBANCE, Thrown
from bench.speed.memory import BUSY_CONNECTIONS, MemoryResult
from bench.speed.sections import Sample
from bench.speed.start import Start
from bench.speed.workload import CHUNKS, LONG_CHUNKS

MAX_NGINX_SPREAD: Final = 0.10
MIN_DIRECT_OVER_NGINX: Final = 1.5
MIN_RATE_HELD: Final = 0.98
LIMITED, UNLIMITED = "limited", "gateway"
MAX_OTHERS: Final = 0.05

MIN_JSON_RATIO: Final = 0.40
MIN_LIMITED_RATIO: Final = 0.33  # with four limits on every request
MIN_BESIDE_UNLIMITED: Final = 0.9
MAX_SSE_CPU_RATIO: Final = 1.3
_STREAMED: Final = (("sse", "sse-paced"), ("sse-long", "sse-long"))  # what a void names, and what was measured
MAX_P99_ADDED_MS: Final = 1.0
MAX_WORKER_MB: Final = 100.0
MAX_STREAM_KB: Final = 30.0
MAX_TLS_STREAM_KB: Final = 100.0
MAX_START_S: Final = 1.0
MAX_COST_OF_TWO: Final = 1.1


@dataclass(frozen=True)
class Range:
    """Repeats of one figure: their median, and the least and greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """None when there are no values."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found)) if found else None

    @property
    def spread(self) -> float:
        """How far the repeats lie apart, as a share of their median."""
        return (self.high - self.low) / self.median if self.median else 0.0


class Status(Enum):
    """How a goal stands."""

    MET = "met"
    MISSED = "missed"
    VOID = "void"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Goal:
    """A figure with a limit: at least it (`floor`) or at most it."""

    name: str
    limit: float
    unit: str
    value: Range | None
    floor: bool = False
    wrong_answers: int = 0
    void: bool = False

    @property
    def status(self) -> Status:
        """By the median; the range beside it says how sure that is."""
        if self.void:
            return Status.VOID
        if self.value is None:
            return Status.NOT_MEASURED
        within = self.value.median >= self.limit if self.floor else self.value.median <= self.limit
        return Status.MET if within and not self.wrong_answers else Status.MISSED

    @property
    def close(self) -> bool:
        """Whether the limit lies inside the range, so that another run may well say otherwise."""
        return self.value is not None and self.value.low <= self.limit <= self.value.high


def of(samples: Sequence[Sample], section: str, target: str) -> list[Sample]:
    """The samples of one section and target, by repeat."""
    chosen = [sample for sample in samples if (sample.section, sample.target) == (section, target)]
    return sorted(chosen, key=lambda sample: sample.repeat)


def paired(
    samples: Sequence[Sample],
    section: str,
    targets: tuple[str, str],
    combine: Callable[[Sample, Sample], float | None],
) -> Range | None:
    """`combine` of two targets' samples of the same repeat: what is slow for both cancels out; None says nothing."""
    return beside(of(samples, section, targets[0]), of(samples, section, targets[1]), combine)


def beside(
    ours: Iterable[Sample], others: Iterable[Sample], combine: Callable[[Sample, Sample], float | None]
) -> Range | None:
    """The same of samples by repeat."""
    pairs = zip(ours, others, strict=False)
    return Range.of(found for one, other in pairs if (found := combine(one, other)) is not None)


def of_workers(samples: Sequence[Sample], subject: str, number: int) -> list[Sample]:
    """The samples of a gateway with so many workers, by repeat."""
    return of(samples, workers.measured_as(number), subject)


def cost_of_two(samples: Sequence[Sample], subject: str) -> Range | None:
    """CPU a request with two workers, as a share of that with one."""
    return beside(of_workers(samples, subject, 2), of_workers(samples, subject, 1), cost_ratio)


def rate_ratio(ours: Sample, other: Sample) -> float | None:
    """How many times as many requests; None where the other one answered none."""
    return ours.load.rps / other.load.rps if other.load.rps else None


def cost_ratio(ours: Sample, other: Sample) -> float | None:
    """How many times as much CPU a unit; None where either did nothing."""
    both = ours.cpu_us_per_unit and other.cpu_us_per_unit
    return ours.cpu_us_per_unit / other.cpu_us_per_unit if both else None


def wrong_answers(samples: Iterable[Sample], thrown: Iterable[Thrown], target: str, section: str = "") -> int:
    """Answers that failed the load generator's checks, also where others disturbed: that makes no answer wrong."""
    kept = (s.load.errors for s in samples if s.target == target and s.section.startswith(section))
    others = (t.errors for t in thrown if t.found.get("target") == target and t.section.startswith(section))
    return sum(sum(errors.values()) for errors in (*kept, *others))


def void_reasons(
    samples: Sequence[Sample], asked_rate: float | None = None, starts: Sequence[Start] = ()
) -> dict[str, list[str]]:
    """By section, why its figures say nothing; a section without reasons is absent. Empty input has no reasons."""
    reasons: dict[str, list[str]] = {}

    def void(section: str, reason: str) -> None:
        reasons.setdefault(section, []).append(reason)

    for section, reason in _taken_by_others(samples, starts):
        void(section, reason)
    nginx = Range.of(sample.load.rps for sample in of(samples, "json", "nginx"))
    direct = Range.of(sample.load.rps for sample in of(samples, "json", "direct"))
    if nginx and nginx.spread > MAX_NGINX_SPREAD:
        void("json", f"nginx's rate varied by {nginx.spread:.0%} between repeats (at most {MAX_NGINX_SPREAD:.0%})")
    if nginx and direct and direct.median < MIN_DIRECT_OVER_NGINX * nginx.median:
        void("json", f"direct is only {direct.median / nginx.median:.2f} × nginx (at least {MIN_DIRECT_OVER_NGINX} ×)")
    for section, measured in _STREAMED:
        chunk = Range.of(sample.cpu_us_per_unit for sample in of(samples, measured, "nginx"))
        if chunk and chunk.spread > MAX_NGINX_SPREAD:
            void(section, f"nginx's CPU per chunk varied by {chunk.spread:.0%} between repeats")
    held = Range.of(sample.load.rps for sample in of(samples, "latency", "direct"))
    if held and asked_rate and held.median < MIN_RATE_HELD * asked_rate:
        void("latency", f"even direct, only {held.median:,.0f} of {asked_rate:,.0f} requests a second were answered")
    late = Range.of(_p99_ms(sample) for sample in of(samples, "latency", "direct"))
    if late and late.median > MAX_P99_ADDED_MS:
        void(
            "latency", f"even direct, p99 is {late.median:.1f} ms: the machine is too busy to see {MAX_P99_ADDED_MS} ms"
        )
    return reasons


def _taken_by_others(samples: Sequence[Sample], starts: Sequence[Start]) -> Iterator[tuple[str, str]]:
    """Sections whose core was shared with other programs; of those that take both cores, what was taken of both."""
    for section, measured in (("json", "json"), *_STREAMED, ("latency", "latency")):
        others = Range.of(sample.others for sample in samples if sample.section == measured)
        if others and others.median > MAX_OTHERS:
            yield section, f"other programs took {others.median:.0%} of the target's core (at most {MAX_OTHERS:.0%})"
    found = {
        workers.SECTION: [s.disturbance.total for s in samples if s.section.startswith(workers.SECTION)],
        start.SECTION: [one.disturbance.total for one in starts],
    }
    for section, shares in found.items():
        taken = Range.of(shares)
        if taken and taken.median > MAX_DISTURBANCE:
            yield section, f"other programs took {taken.median:.0%} of a core (at most {MAX_DISTURBANCE:.0%})"


def _p99_ms(sample: Sample) -> float:
    return sample.load.latency.quantile_us(0.99) / 1e3


def speed_goals(
    samples: Sequence[Sample], subject: str, voided: Iterable[str], thrown: Sequence[Thrown] = ()
) -> list[Goal]:
    """The goals of speed, for the target they are set for; `limited` has one more, beside the unlimited gateway."""
    voided = set(voided)
    limited = subject == LIMITED
    return [
        Goal(
            "plain requests, rate beside nginx",
            MIN_LIMITED_RATIO if limited else MIN_JSON_RATIO,
            "× nginx",
            paired(samples, "json", (subject, "nginx"), rate_ratio),
            floor=True,
            wrong_answers=wrong_answers(samples, thrown, subject, "json"),
            void="json" in voided,
        ),
        Goal(
            f"paced streams of {CHUNKS} chunks, CPU per chunk beside nginx",
            MAX_SSE_CPU_RATIO,
            "× nginx",
            paired(samples, "sse-paced", (subject, "nginx"), cost_ratio),
            wrong_answers=wrong_answers(samples, thrown, subject, "sse"),
            void="sse" in voided,
        ),
        Goal(
            f"paced streams of {LONG_CHUNKS} chunks, CPU per chunk beside nginx",
            MAX_SSE_CPU_RATIO,
            "× nginx",
            paired(samples, "sse-long", (subject, "nginx"), cost_ratio),
            wrong_answers=wrong_answers(samples, thrown, subject, "sse-long"),
            void="sse-long" in voided,
        ),
        Goal(
            "p99 added at half load",
            MAX_P99_ADDED_MS,
            "ms",
            paired(samples, "latency", (subject, "direct"), lambda ours, direct: _p99_ms(ours) - _p99_ms(direct)),
            wrong_answers=wrong_answers(samples, thrown, subject, "latency"),
            void="latency" in voided,
        ),
        *(_beside_unlimited(samples, voided, thrown) if limited else ()),
    ]


def _beside_unlimited(samples: Sequence[Sample], voided: Iterable[str], thrown: Sequence[Thrown]) -> list[Goal]:
    """What limits cost a whole gateway, as a share of its rate."""
    ratio = paired(samples, "json", (LIMITED, UNLIMITED), rate_ratio)
    return [
        Goal(
            "plain requests, rate with four limits beside none",
            MIN_BESIDE_UNLIMITED,
            "× the gateway without",
            ratio,
            floor=True,
            wrong_answers=wrong_answers(samples, thrown, UNLIMITED, "json"),
            void="json" in voided,
        )
    ]


def start_goals(starts: Sequence[Start], thrown: Sequence[Thrown], subject: str, voided: Iterable[str]) -> list[Goal]:
    """One for each state of the state_dir."""
    wrong = sum(sum(one.errors.values()) for one in starts) + wrong_answers((), thrown, subject, start.SECTION)
    return [
        Goal(
            f"start to the first answer, state_dir {state}",
            MAX_START_S,
            "s",
            Range.of(one.answered_s for one in starts if one.state == state),
            wrong_answers=wrong,
            void=start.SECTION in voided,
        )
        for state in start.STATES
    ]


def workers_goals(
    samples: Sequence[Sample], thrown: Sequence[Thrown], subject: str, voided: Iterable[str]
) -> list[Goal]:
    """What a request costs with a second worker."""
    return [
        Goal(
            "CPU a request with two workers beside one",
            MAX_COST_OF_TWO,
            "× one",
            cost_of_two(samples, subject),
            wrong_answers=wrong_answers(samples, thrown, subject, workers.SECTION),
            void=workers.SECTION in voided,
        )
    ]


def _one(value: float | None) -> Range | None:
    return None if value is None else Range(value, value, value)


def memory_goals(result: MemoryResult | None) -> list[Goal]:
    """The goals of memory."""
    wrong = sum(result.errors.values()) if result else 0
    busy = result.at(f"{BUSY_CONNECTIONS:,} connections") if result else None
    return [
        Goal(
            f"worker's RSS at {BUSY_CONNECTIONS:,} connections",
            MAX_WORKER_MB,
            "MB",
            _one(busy.rss_kb / 1024 if busy else None),
            wrong_answers=wrong,
        ),
        Goal(
            "memory per open idle stream",
            MAX_STREAM_KB,
            "KB",
            _one(result.kb_per_stream if result else None),
            wrong_answers=wrong,
        ),
    ]


def tls_goals(result: MemoryResult | None) -> list[Goal]:
    """The goal of TLS on both sides."""
    return [
        Goal(
            "memory per open idle stream, TLS on both sides",
            MAX_TLS_STREAM_KB,
            "KB",
            _one(result.kb_per_stream if result else None),
            wrong_answers=sum(result.errors.values()) if result else 0,
        )
    ]
