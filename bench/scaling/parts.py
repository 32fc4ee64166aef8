"""The five parts. Each starts what it needs, turns one knob, and gives points.

CPU is that of all processes of a gateway over exactly the load's window, a request. The gateway is `limited` of
`bench.speed` throughout, so a figure here and one there are of the same thing.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench import keys
from bench.scaling.nodes import NODES, nodes, quota_s
from bench.scaling.points import Point
from bench.scaling.stand import CONNECTIONS, Stand, plain_figures
from bench.speed import memory, workload
from bench.speed.launch import CannotRun
from bench.speed.memory import MemoryResult
from bench.speed.sections import Settings
from bench.speed.targets import AMPLE, Limited, Nginx, Place, overlaid

KB: Final = 1_000
PROMPTS_KB: Final = (1, 4, 16, 64, 256, 1_000)
LIMITS: Final = (0, 1, 2, 3, 4, 6, 8)
KEYS: Final = (10, 1_000, 100_000, 1_000_000)
STREAMS: Final = (100, 1_000, 10_000)
HOLD_S: Final = 7.0
_AMPLE_COUNT: Final = 10**9


# ---- prompts


def prompts(stand: Stand) -> Iterator[Point]:
    """1 KB to 1 MB, beside nginx in the same repeat."""
    with stand.started(Nginx()) as nginx, stand.started(Limited()) as gateway:
        bench = stand.bench(nginx, gateway)
        for repeat in range(stand.settings.repeats):
            for size_kb in PROMPTS_KB:
                work = replace(workload.plain(), name=f"prompts-{size_kb}", request_bytes=size_kb * KB)
                beside, ours = (
                    bench.sample(work.name, target, repeat, work, "--connections", str(CONNECTIONS))
                    for target in (nginx, gateway)
                )
                nginx_us, ours_us = beside.cpu_us_per_unit, ours.cpu_us_per_unit
                ratio = {"µs of nginx": nginx_us, "× nginx's CPU": ours_us / nginx_us}
                most = max(beside.disturbance, ours.disturbance, key=lambda found: found.total)
                yield Point("prompts", f"{size_kb:,} KB", {**plain_figures(ours), **ratio}, most)


# ---- limits


@dataclass
class Laddered(Limited):
    """A gateway whose keys have 0, 1, 2 … limits each."""

    name = "laddered"
    secrets: Mapping[int, str] = field(
        default_factory=lambda: {number: f"gw-{secrets.token_urlsafe(32)}" for number in LIMITS}
    )

    def config(self, place: Place, port: int, secret: str) -> dict[str, object]:
        """As the limited one's, with more keys; what is above the four short forms are rules for one key."""
        config = super().config(place, port, secret)
        own = config["keys"] if isinstance(config["keys"], list) else []
        more = [_key_with(number, of) for number, of in self.secrets.items()]
        rules = [rule for number in LIMITS for rule in _rules_of(number)]
        return overlaid(config, {"keys": [*own, *more], "limits": {"rules": rules}})


def _key_with(number: int, secret: str) -> dict[str, object]:
    short = dict(list(AMPLE.items())[:number])
    return {"id": f"limits-{number}", "secret": secret, "org": "bench", "models": ["*"], **short}


def _rules_of(number: int) -> list[dict[str, object]]:
    """Those beyond the four: requests and tokens of an hour, in turn."""
    return [
        {
            "name": f"limits-{number}-{extra}",
            "per": ["key"],
            "requests" if extra % 2 else "tokens": _AMPLE_COUNT,
            "every": "hour",
            "match": {"key": f"limits-{number}"},
        }
        for extra in range(number - len(AMPLE))
    ]


def limits(stand: Stand) -> Iterator[Point]:
    """0 to 8 on each request, by one gateway and keys in turn."""
    target, work = Laddered(), workload.plain()
    with stand.started(target) as running:
        bench = stand.bench(running)
        for repeat in range(stand.settings.repeats):
            for number, secret in target.secrets.items():
                asked = replace(running, headers=(f"authorization: Bearer {secret}",))
                sample = bench.sample(f"limits-{number}", asked, repeat, work, "--connections", str(CONNECTIONS))
                yield Point("limits", str(number), plain_figures(sample), sample.disturbance)


# ---- keys


def key_index(stand: Stand) -> Iterator[Point]:
    """What finding one costs, and what holding them takes."""
    for count in KEYS:
        stand.progress.step(f"keys: {count:,}", 1.0 + count / 100_000)
        with tempfile.TemporaryDirectory(dir=stand.folder) as folder:
            found = keys.measure(count, Path(folder))
        yield Point(
            "keys",
            f"{count:,}",
            {
                "µs to authenticate, first time": found["authenticate_first_us"],
                "µs, again": found["authenticate_again_us"],
                "MB shared": found["shared_mb"],
                "MB a worker": found["own_mb"],
                "s to build": found["build_s"],
            },
        )


# ---- streams


def streams(stand: Stand) -> Iterator[Point]:
    """100 to 10,000 held open, each number on a fresh gateway."""
    for wanted in STREAMS:
        possible = memory.streams_possible(wanted, stand.descriptors)
        if possible < wanted:
            stand.remarks.append(
                f"{possible:,} of {wanted:,} streams: the hard limit is {stand.descriptors:,} descriptors"
            )
        result = MemoryResult("limited", wanted)
        settings = replace(stand.settings, hold_seconds=HOLD_S)
        with stand.started(Limited(), f"streams-{wanted}") as running:
            memory.MemoryRun(running, settings, result, possible, stand.folder, stand.progress).open_streams()
        held = result.at("streams open")
        if result.errors or held is None or result.kb_per_stream is None:
            raise CannotRun(f"{wanted:,} streams: {result.errors or 'none could be held'}")
        figures = {"KB a stream": result.kb_per_stream, "RSS MB": held.rss_kb / 1024, "held": float(result.streams)}
        yield Point("streams", f"{wanted:,}", figures)


PARTS: Final[Mapping[str, Callable[[Stand], Iterator[Point]]]] = {
    "prompts": prompts,
    "limits": limits,
    "keys": key_index,
    "streams": streams,
    "nodes": nodes,
}


def expected_s(settings: Settings, parts: Sequence[str]) -> float:
    """About how long these take, for the progress line."""
    one = settings.repeats * settings.measurement_s()
    each = {
        "prompts": 2 * len(PROMPTS_KB) * one,
        "limits": len(LIMITS) * one,
        "keys": sum(1.0 + count / 100_000 for count in KEYS),
        "streams": len(STREAMS) * (HOLD_S + 20),
        "nodes": len(NODES) * (2 * one + quota_s(settings.seconds)),
    }
    return sum(each[part] for part in parts)
