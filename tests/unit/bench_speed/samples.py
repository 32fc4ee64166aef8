"""Made-up samples for the tests of verdict and report."""

from collections.abc import Sequence

from bench.speed.histogram import Histogram
from bench.speed.native import LoadResult
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
    return Sample(section, target, repeat, load, int(rps), cpu, others)


def repeats(section: str, target: str, rates: Sequence[float], **other: float) -> list[Sample]:
    """A sample for each rate."""
    cpu_us, latency_ms = other.get("cpu_us", 10), other.get("latency_ms", 0.2)
    return [
        sample(section, target, rps=rps, cpu_us=cpu_us, latency_ms=latency_ms, repeat=n) for n, rps in enumerate(rates)
    ]
