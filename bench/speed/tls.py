"""TLS on both sides of a target: plain requests, requests on new connections, and what connections keep in memory.

    callers - nginx == target == nginx - upstream        == is TLS; all but the target is on the callers' core

The native programs speak plain HTTP, so two more nginxes stand at their sides: one is the callers' TLS client, and one
the provider's TLS server. Target and callers' nginx verify whom they connect to. All of it speaks TLS 1.3 with what
OpenSSL prefers; certificates are made for the run. What the nginxes cost is on the callers' core, where they are the
wall for rates: a target's CPU time is the figure, beside nginx as a proxy that does the same on the target's core.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.speed import nginx, workload
from bench.speed.certificates import Certificates
from bench.speed.memory import MemoryResult, MemoryRun, streams_possible
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, Bench, Sample, Settings
from bench.speed.targets import Place, Running, Target

MOST_STREAMS: Final = 2_000
SECONDS: Final = 1.2
WARM_UP_S: Final = 0.4
HOLD_S: Final = 3.0
MEMORY_TARGET_S: Final = 12.0  # of one target, beside holding its streams
KEPT, ANEW = "tls", "tls-new"
"""The sections of the samples: on connections that are kept, and on one for each request."""


@dataclass(frozen=True)
class Surrounded:
    """A target between the two nginxes. `running` keeps the callers' connections, `anew` makes one a request."""

    running: Running
    anew: Running


def shorter(settings: Settings) -> Settings:
    """As the other sections, in windows and with streams that leave them the time."""
    return replace(
        settings,
        seconds=min(settings.seconds, SECONDS),
        warmup=min(settings.warmup, WARM_UP_S),
        hold=min(settings.hold, MOST_STREAMS),
        hold_seconds=min(settings.hold_seconds, HOLD_S),
    )


def measured(targets: Sequence[Target], subject: str) -> list[Target]:
    """Of these nginx and the subject, where they speak TLS."""
    return [target for target in targets if target.speaks_tls and target.name in {"nginx", subject}]


def expected_s(settings: Settings, targets: int) -> float:
    """About how long the section takes."""
    short = shorter(settings)
    return targets * (2 * short.repeats * short.measurement_s() + MEMORY_TARGET_S + short.hold_seconds)


@contextmanager
def surrounded(target: Target, place: Place) -> Generator[Surrounded, None, None]:
    """The target with TLS on both sides, between nginxes on the callers' core; `place` tells of the plain upstream."""
    place.folder.mkdir(parents=True, exist_ok=True)
    made = Certificates.make(place.folder)
    provider = nginx.Ways(place.upstream_port, place.upstream_port, place.descriptors, callers=made)
    with nginx.started("provider's TLS", provider, place.folder / "provider", CLIENT_CORE) as behind:
        secured = replace(place, upstream_port=behind.stream_port, folder=place.folder / "target", certificates=made)
        with target.running(secured) as running:
            callers = nginx.Ways(running.port, running.stream_port, place.descriptors, upstream=made)
            with nginx.started("callers' TLS", callers, place.folder / "callers", CLIENT_CORE) as before:
                kept = replace(running, port=before.port, stream_port=before.stream_port)
                yield Surrounded(kept, replace(running, port=before.anew_port))


def requests(bench: Bench, targets: Sequence[Surrounded]) -> list[Sample]:
    """Closed loop on kept connections, then with a new connection and a whole handshake for each request."""
    kept, anew = tuple(one.running for one in targets), tuple(one.anew for one in targets)
    return [*_plain(KEPT, replace(bench, targets=kept)), *_plain(ANEW, replace(bench, targets=anew))]


def _plain(section: str, bench: Bench) -> list[Sample]:
    work, connections = workload.plain(), str(bench.settings.connections)
    return bench.interleaved(lambda target, n: bench.sample(section, target, n, work, "--connections", connections))


def memory(
    name: str,
    start: Callable[[], AbstractContextManager[Surrounded]],
    settings: Settings,
    descriptors: int,
    folder: Path,
    progress: Progress,
) -> MemoryResult:
    """What an open stream adds to a freshly started target, and what large answers leave behind in another one."""
    result, streams = MemoryResult(name, settings.hold), streams_possible(settings.hold, descriptors)
    with start() as target:
        MemoryRun(target.running, settings, result, streams, folder, progress).open_streams()
    with start() as target:
        MemoryRun(target.running, settings, result, streams, folder, progress).large_answers()
    return result
