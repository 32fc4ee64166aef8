"""One worker and two of the same gateway, asked in turn: what the second one adds, and what a request then costs.

The gateway of one worker is on the target's core, as everywhere else in this bench. The one of two runs wherever there
is room: on a machine of two cores its workers share the second one with callers and upstream, so the rate is limited by
these as well. CPU a request is that of all of its processes: what workers pay for the limits, metrics and caches that
they share.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from bench.speed import workload
from bench.speed.sections import TARGET_CORE, Bench, Sample, Settings
from bench.speed.targets import Running

SECTION: Final = "workers"
WORKERS: Final = (1, 2)
SECONDS: Final = 2.0  # of one measurement, at most


def core(number: int) -> int | None:
    """Where a gateway of so many workers runs; None: wherever there is room."""
    return TARGET_CORE if number == 1 else None


def measured_as(number: int) -> str:
    """The section that samples of so many workers name."""
    return f"{SECTION}-{number}"


def settings_of(settings: Settings) -> Settings:
    """With shorter measurements."""
    return replace(settings, seconds=min(settings.seconds, SECONDS))


def expected_s(settings: Settings) -> float:
    """About how long the section takes."""
    return settings.repeats * len(WORKERS) * settings_of(settings).measurement_s()


def measure(bench: Bench, running: Mapping[int, Running]) -> list[Sample]:
    """Closed loop, as plain requests are asked; `running` are the gateways by their number of workers."""
    work, connections = workload.plain(), str(bench.settings.connections)
    bench = replace(bench, settings=settings_of(bench.settings))
    return [
        bench.sample(measured_as(number), running[number], repeat, work, "--connections", connections)
        for repeat in range(bench.settings.repeats)
        for number in (WORKERS if repeat % 2 == 0 else reversed(WORKERS))
    ]
