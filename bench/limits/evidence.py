"""From what callers saw to findings: was as much admitted as a limit allows, no more, and was all of it accounted for.

A token bucket begins full at its first charge, so by the time T after it, at most capacity + rate x T has been
admitted: that bounds the number from above, at the last admission. A refusal says that less than one was left when it
was made: that bounds it from below, at the last refusal. Both moments are known only to lie between a request and the
head of its answer; each bound takes the side that is right whatever the moment was, so neither is a matter of
tolerance, and how far the two lie apart says how sharp the proof is. Only the millisecond that an engine's clock counts
in is allowed for.

A request that broke off may have been charged or not: those count as a doubt, in the bound that they weaken. So do
answers that limits were unavailable (503) shortly before the last refusal: what they had taken was being given back.

For tokens the long run decides: what was settled, over time. A reservation below the real use is debt, one above it is
given back later, and neither may move the rate. Pure: times are arguments, in seconds of one clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from bench.load.judge import Finding
from bench.speed.histogram import Histogram

CLOCK_S: Final = 0.002  # two readings of a clock that counts milliseconds
RETURNING_S: Final = 3.5  # within which a 503's reservation has been given back: a third of a lease, and a little
MAX_WIDTH: Final = 4.0  # of the two bounds; further apart they would prove little
MAX_RATE_ERROR: Final = 0.02
SETTLED_IN: Final = 0.1  # of a run, after which its rate is looked at: the burst at the beginning is allowed
ASKED_S: Final = 0.05  # within which the admin port has looked at the buckets
FREED_WITHIN_S: Final = 12.0  # a lease, and the second in which its end is noticed


@dataclass(frozen=True)
class Rate:
    """A limit: so much at once, and so much more every second."""

    capacity: float
    per_s: float

    def allowed(self, seconds: float) -> float:
        """The most that a bucket which began full can have admitted so long after its first charge."""
        return self.capacity + self.per_s * seconds


class Admitted(NamedTuple):
    """A request that was answered with 200, to its end. It was charged between `sent_s` and `begun_s`, the head's."""

    sent_s: float
    begun_s: float
    done_s: float
    tokens: int  # as the answer's usage says
    node: int = 0


@dataclass(frozen=True)
class Broken:
    """A request of which the connection ended before its answer. `begun_s`: a 200 had come, so it was admitted."""

    sent_s: float
    lost_s: float
    begun_s: float | None = None


@dataclass
class Seen:
    """Everything that callers saw in one scenario."""

    admitted: list[Admitted] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    refused: int = 0
    refusals: Histogram = field(default_factory=Histogram)
    last_refusal_sent_s: float = 0.0
    asked_s: float = 0.0  # when the first request of all was sent: it may be charged, and given back later
    unavailable_s: list[float] = field(default_factory=list)  # when a 503 came
    unreachable: int = 0  # connections that were not accepted
    wrong: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """For proof.json; every admission is in it, refusals as a distribution."""
        return {
            "admitted": [[*(round(at, 6) for at in a[:3]), a.tokens, a.node] for a in self.admitted],
            "asked_s": self.asked_s,
            "broken": [asdict(broken) for broken in self.broken],
            "refused": self.refused,
            "refusals": self.refusals.summary() if self.refused else None,
            "unavailable_s": self.unavailable_s,
            "unreachable": self.unreachable,
            "wrong": dict(self.wrong),
        }

    @property
    def begun(self) -> list[tuple[float, float]]:
        """When each request that was admitted was sent, and when the head of its 200 came."""
        broken = [(broken.sent_s, broken.begun_s) for broken in self.broken if broken.begun_s is not None]
        return [(admitted.sent_s, admitted.begun_s) for admitted in self.admitted] + broken

    @property
    def first_s(self) -> tuple[float, float]:
        """Between which two moments the first charge was made."""
        first_sent_s = min(sent_s for sent_s, _ in self.begun)
        return min(self.asked_s or first_sent_s, first_sent_s), min(begun_s for _, begun_s in self.begun)


# ---- requests


def requests_within(seen: Seen, rate: Rate, given_back: int = 0) -> list[Finding]:
    """Whether the number of admitted requests is what the limit allows, to within one.

    `given_back`: so many may stand in the bucket because who gave back what a store had lost does not know when each
    request had been charged there, and of what other nodes have left of the refill nothing.
    """
    if not seen.admitted or not seen.last_refusal_sent_s:
        return [Finding("admitted and refused", f"{len(seen.admitted)} and {seen.refused}", "some", holds=False)]
    admitted, doubts, (not_before_s, not_after_s) = len(seen.begun), _doubts(seen) + given_back, seen.first_s
    most = rate.allowed(max(begun_s for _, begun_s in seen.begun) - not_before_s + CLOCK_S)
    least = rate.allowed(seen.last_refusal_sent_s - not_after_s - CLOCK_S) - 1
    found = [
        Finding("admitted at most", f"{admitted:,}", f"≤ {most:,.2f}", admitted <= most),
        Finding("admitted at least", _with_doubts(admitted, doubts), f"≥ {least:,.2f}", admitted + doubts >= least),
    ]
    width = most - least
    return [*found, Finding("the two bounds apart", f"{width:.2f}", f"≤ {MAX_WIDTH:g}", width <= MAX_WIDTH)]


def _doubts(seen: Seen) -> int:
    """Requests that may stand in the bucket and were not seen admitted."""
    returning = sum(at_s > seen.last_refusal_sent_s - RETURNING_S for at_s in seen.unavailable_s)
    return sum(broken.begun_s is None for broken in seen.broken) + returning


def _with_doubts(number: int, doubts: int) -> str:
    return f"{number:,}, and {doubts:,} that may have been" if doubts else f"{number:,}"


# ---- the long run


def tokens_at_rate(seen: Seen, rate: Rate, end_s: float) -> list[Finding]:
    """Whether tokens were used at the limit's rate, from the first tenth of the run to its end."""
    return _at_rate("tokens settled", seen, rate, end_s, lambda admitted: admitted.tokens)


def requests_at_rate(seen: Seen, rate: Rate, end_s: float) -> list[Finding]:
    """The same of requests: where slices lie idle, what is left over is bounded by this alone."""
    return _at_rate("requests admitted", seen, rate, end_s, lambda _: 1)


def _at_rate(what: str, seen: Seen, rate: Rate, end_s: float, amount: Callable[[Admitted], int]) -> list[Finding]:
    if not seen.admitted:
        return [Finding("admitted", "none", "some", holds=False)]
    first_s, _ = seen.first_s
    begin_s = first_s + SETTLED_IN * (end_s - first_s)
    used = sum(amount(admitted) for admitted in seen.admitted if begin_s < admitted.done_s <= end_s)
    per_s = used / (end_s - begin_s)
    error = per_s / rate.per_s - 1
    return [
        Finding(
            f"{what} a second, in the long run",
            f"{per_s:,.0f}, {error:+.2%} of the limit ({len(seen.admitted):,} streams)",
            f"{rate.per_s:,.0f} ± {MAX_RATE_ERROR:.0%}",
            abs(error) <= MAX_RATE_ERROR,
        )
    ]


# ---- how the buckets stand in the end


@dataclass(frozen=True)
class Standing:
    """A bucket as the admin port tells it, in the unit of its resource. `at_s`: asked then, in the callers' clock."""

    capacity: float
    level: float
    at_s: float


def level_accounted(seen: Seen, rate: Rate, standing: Standing, used: float, doubt: float = 0.0) -> Finding:
    """Whether a rate's level is what began, plus what came, less what was `used`; `doubt` of that is not certain.

    A level at the capacity says nothing but that enough time went by.
    """
    not_before_s, not_after_s = seen.first_s
    expected = rate.allowed(standing.at_s - not_after_s) - used
    slack = 1 + rate.per_s * (not_after_s - not_before_s + CLOCK_S + ASKED_S)
    low, high = min(expected - doubt, rate.capacity) - slack, min(expected, rate.capacity) + slack
    return Finding(
        "level in the end", f"{standing.level:,.1f}", f"{low:,.1f} … {high:,.1f}", low <= standing.level <= high
    )


def budget_accounted(used: float, seen: Seen, reserved: int) -> Finding:
    """Whether a budget's use is what callers were told they used; each one broken off counts at most as reserved."""
    told = sum(admitted.tokens for admitted in seen.admitted)
    most = told + reserved * (len(seen.broken) + len(seen.unavailable_s))
    return Finding("tokens in the budget", f"{used:,.0f}", f"{told:,} … {most:,}", told <= used <= most)


def slots_free(in_flight: float, waited_s: float) -> Finding:
    """Whether every slot came back once nobody was under way any more."""
    return Finding(
        "still in flight in the end",
        f"{in_flight:.0f}, {waited_s:.1f} s after the last answer",
        f"0 within {FREED_WITHIN_S:g} s",
        in_flight == 0 and waited_s <= FREED_WITHIN_S,
    )


# ---- answers, and what came of a kill


def answers_right(seen: Seen) -> Finding:
    """Whether every answer was one that a limited caller is to get."""
    worst = seen.wrong.most_common(1)
    told = f", most often: {worst[0][0]}" if worst else ""
    return Finding("wrong answers", f"{seen.wrong.total():,}{told}", "none", not seen.wrong)


def undisturbed(seen: Seen) -> list[Finding]:
    """Where nothing was killed, nothing may break off."""
    return [Finding("requests that broke off", f"{len(seen.broken):,}", "none", not seen.broken)]


def longest_pause_s(moments_s: Iterable[float], begin_s: float, end_s: float) -> float:
    """The longest time without one of the moments, between the two."""
    within = [begin_s, *sorted(at_s for at_s in moments_s if begin_s < at_s < end_s), end_s]
    return max(later - sooner for sooner, later in pairwise(within))


@dataclass(frozen=True)
class Look:
    """One moment: slots taken, as the gateway counts, and streams that callers were reading."""

    at_s: float
    taken: float
    reading: int


def leaked_until_s(looks: Sequence[Look], killed_s: float, noise: int) -> float:
    """How long after a kill more slots were taken than callers had streams, beyond the `noise` of looking twice."""
    leaking = [look.at_s for look in looks if look.at_s > killed_s and look.taken - look.reading > noise]
    return max(leaking, default=killed_s) - killed_s
