"""Made-up samples for the tests of verdict and report, and a machine on which others take what a test says."""

from collections.abc import Iterable, Iterator, Sequence

from bench.speed.disturbance import Again, Disturbance, Look, Watch
from bench.speed.histogram import Histogram
from bench.speed.native import LoadResult
from bench.speed.procfs import CoreTimes, Spent
from bench.speed.sections import Sample


def sample(
    section: str,
    target: str,
    *,
    rps: float = 1000,
    cpu_us: float = 10,
    latency_ms: float = 0.2,
    repeat: int = 0,
    errors: int = 0,
    others: float = 0.0,
) -> Sample:
    """One second at `rps`, all of it at one latency and one cost; `direct` has no process."""
    latency = Histogram()
    latency.add(int(latency_ms * 1e6))
    load = LoadResult(
        seconds=1.0,
        ok=int(rps),
        rps=rps,
        events=0,
        terminated=0,
        held=0,
        errors={"short_body": errors} if errors else {},
        latency=latency,
        ttft=Histogram(),
        lag=Histogram(),
        lateness=Histogram(),
    )
    cpu = {} if target == "direct" else {7: int(cpu_us * rps), 8: 0}
    return Sample(section, target, repeat, load, int(rps), cpu, Disturbance(others))


def repeats(section: str, target: str, rates: Sequence[float], **other: float) -> list[Sample]:
    """A sample for each rate."""
    cpu_us, latency_ms = other.get("cpu_us", 10), other.get("latency_ms", 0.2)
    return [
        sample(section, target, rps=rps, cpu_us=cpu_us, latency_ms=latency_ms, repeat=n) for n, rps in enumerate(rates)
    ]


class Played(Watch):
    """A watch that finds what it is told: the share of a core that others took between its two looks."""

    def __init__(self, taken: float) -> None:
        super().__init__(0, 1, with_interrupts=True)
        self._taken_us = round(taken * 1e6)

    def look(self) -> None:
        """A second later than the one before; our own processes are idle."""
        ends = len(self._looks)
        idle = CoreTimes(ends * (1_000_000 - self._taken_us), 0, 0)
        self._looks.append(Look(float(ends), (idle, CoreTimes(ends * 1_000_000, 0, 0)), Spent({})))


def again(taken: Iterable[float] = (), spare_s: float = 100.0, notes: list[str] | None = None) -> Again:
    """What makes measurements again; others take these shares, watch after watch, then nothing. No time passes."""
    shares: Iterator[float] = iter(taken)
    note = (notes if notes is not None else []).append
    return Again(spare_s, lambda: Played(next(shares, 0.0)), note, sleep=lambda _: None)
