"""What is compared: nothing in between, nginx, the gateway, and the plainest aiohttp proxy.

Each target is one worker on one core in front of the same upstream. `port` takes plain requests and `stream_port`
streams: the same but for nginx, which is given its best setting for each (buffered answers, unbuffered streams).
"""

import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Final

import yaml

from bench.speed import launch, nginx, procfs
from bench.speed.certificates import Certificates
from bench.speed.launch import LOOPBACK, CannotRun, Host
from bench.speed.workload import MODEL

ROOT: Final = Path(__file__).parent.parent.parent
UPSTREAM_MODEL: Final = "bench-upstream-model"


@dataclass(frozen=True)
class Place:
    """Where a target runs: its core, the upstream behind it, a folder of its own, and the descriptors it may open.

    A gateway may be on another host than loopback, and its upstream at another address. With certificates a target that
    can speaks TLS on both sides.
    """

    core: int | None  # None: wherever there is room
    upstream_port: int
    folder: Path
    descriptors: int
    host: Host = LOOPBACK
    upstream_address: str = LOOPBACK.address
    certificates: Certificates | None = None


@dataclass(frozen=True)
class Running:
    """A target that takes requests. `pid` is the root of its processes; None when there are none of its own."""

    name: str
    port: int
    stream_port: int
    pid: int | None = None
    headers: tuple[str, ...] = ()
    verbatim: bool = True  # answers pass as they are, so their length and number of events can be checked
    no_streams: str = ""  # why it cannot answer one; empty where it can
    address: str = LOOPBACK.address

    def reading(self) -> procfs.Reading:
        """Its processes now."""
        return procfs.Reading.of(self.pid)


class Target(ABC):
    """A way from the load generator to the upstream."""

    name: ClassVar[str]
    optional: ClassVar[bool] = False  # where it cannot run, the others do without it
    speaks_tls: ClassVar[bool] = False  # on both sides, with the certificates of its place

    @abstractmethod
    def run(self, place: Place) -> Generator[Running, None, None]:
        """Start it, yield it ready, stop it."""

    @contextmanager
    def running(self, place: Place) -> Generator[Running, None, None]:
        """The target, ready until the block ends; CannotRun if it does not start."""
        place.folder.mkdir(parents=True, exist_ok=True)
        yield from self.run(place)


class Direct(Target):
    """No target at all: what the upstream and the load generator can do by themselves."""

    name = "direct"

    def run(self, place: Place) -> Generator[Running, None, None]:
        """The upstream's own port."""
        yield Running(self.name, place.upstream_port, place.upstream_port)


class Nginx(Target):
    """nginx as a reverse proxy with one worker and keep-alive on both sides: the practical limit."""

    name = "nginx"
    speaks_tls = True

    def run(self, place: Place) -> Generator[Running, None, None]:
        """Started in the foreground."""
        port, tls = place.upstream_port, place.certificates
        ways = nginx.Ways(port, port, place.descriptors, callers=tls, upstream=tls)
        with nginx.started(self.name, ways, place.folder, place.core) as found:
            yield Running(self.name, found.port, found.stream_port, found.process.pid)


class AiohttpProxy(Target):
    """What one writes first in Python: aiohttp's server in front of its ClientSession, on uvloop, no checks."""

    name = "aiohttp"

    def run(self, place: Place) -> Generator[Running, None, None]:
        """Start bench/speed/aiohttp_proxy.py."""
        port = launch.free_port()
        command = [sys.executable, "-m", "bench.speed.aiohttp_proxy", str(port), str(place.upstream_port)]
        command = ["env", "-C", str(ROOT), *command]
        with launch.started(self.name, command, core=place.core, log=place.folder / "log") as process:
            process.wait_for("open port", lambda: launch.accepts(port))
            yield Running(self.name, port, port, process.pid)


def overlaid(base: Mapping[str, object], extra: Mapping[str, object]) -> dict[str, object]:
    """`base` with the settings of `extra` in their places; mappings merge, anything else is replaced."""
    merged = dict(base)
    for name, value in extra.items():
        below = merged.get(name)
        merged[name] = overlaid(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


@dataclass
class Gateway(Target):
    """The gateway with keys and metrics on, the model name rewritten for the provider, and no line per request."""

    name = "gateway"
    speaks_tls = True
    extra: Mapping[str, object] = field(default_factory=dict)

    def run(self, place: Place) -> Generator[Running, None, None]:
        """Start it, and wait for /readyz."""
        trust = place.certificates.trust() if place.certificates else None
        with self.starting(place) as (process, running):
            process.wait_for(
                "200 from /readyz", lambda: launch.answers(running.port, "/readyz", running.address, trust)
            )
            yield running

    @contextmanager
    def starting(self, place: Place) -> Generator[tuple[launch.Process, Running], None, None]:
        """Write its configuration and start it as an operator would; it need not be ready yet."""
        command = Path(sys.executable).parent / "gateway"
        if not command.exists():
            raise CannotRun(f"{command.name} is not installed beside this Python; run `make setup`")
        port, secret = launch.free_port(), f"gw-{secrets.token_urlsafe(32)}"
        config = place.folder / "gateway.yaml"
        config.write_text(yaml.safe_dump(self.config(place, port, secret), sort_keys=False))
        serve = [*place.host.enter, str(command), "serve", "--config", str(config)]
        address = place.host.address
        headers = (f"authorization: Bearer {secret}",)
        with launch.started(self.name, serve, core=place.core, log=place.folder / "log") as process:
            yield process, Running(self.name, port, port, process.pid, headers, address=address)

    def config(self, place: Place, port: int, secret: str) -> dict[str, object]:
        """The whole gateway.yaml, with what the operator of the bench adds laid over it."""
        base: dict[str, object] = {
            "listen": {"host": place.host.address, "port": port, "workers": 1, "max_connections": place.descriptors},
            "admin": {"host": "127.0.0.1", "port": launch.free_port(), "token": secrets.token_urlsafe(32)},
            "state_dir": str(place.folder / "state"),
            "drain_s": 2,
            "drain_delay_s": 0,
            "providers": {
                "bench": {
                    "kind": "openai",
                    "base_url": f"http://{place.upstream_address}:{place.upstream_port}/v1",
                    "api_key": "sk-bench",
                    "max_connections": place.descriptors,
                }
            },
            "models": {MODEL: {"targets": [{"provider": "bench", "model": UPSTREAM_MODEL}]}},
            "keys": [{"id": "bench", "secret": secret, "org": "bench", "models": ["*"]}],
            "log": {"requests": "none"},
        }
        return overlaid(overlaid(base, _with_tls(place)), self.extra)


def _with_tls(place: Place) -> dict[str, object]:
    """What gateway.yaml says where both sides speak TLS."""
    made = place.certificates
    if made is None:
        return {}
    url = f"https://{place.upstream_address}:{place.upstream_port}/v1"
    return {
        "listen": {"tls": {"cert": str(made.cert), "key": str(made.key)}},
        "providers": {"bench": {"base_url": url, "ca_file": str(made.ca_file)}},
    }


@dataclass
class Unrecorded(Gateway):
    """The gateway without its journal: what recording every exchange costs is the difference."""

    name = "unrecorded"

    def config(self, place: Place, port: int, secret: str) -> dict[str, object]:
        """As the gateway's, and no journal."""
        return overlaid(super().config(place, port, secret), {"journal": {"enabled": False}})


AMPLE: Final[Mapping[str, object]] = {
    "rpm": 1_000_000_000,
    "tpm": 1_000_000_000,
    "max_in_flight": 1_000_000,
    "usd_per_month": 1_000_000,
}
"""Limits of a key that no load here reaches; each is counted all the same."""
PRICE: Final = {"input": 2.5, "output": 10}


@dataclass
class Limited(Gateway):
    """The gateway as it is sold: key, journal, metrics, and four limits that every request is counted in."""

    name = "limited"

    def config(self, place: Place, port: int, secret: str) -> dict[str, object]:
        """As the gateway's; its keys have the four limits, and its model a price."""
        config = super().config(place, port, secret)
        keys = config["keys"] if isinstance(config["keys"], list) else []
        limited = {"keys": [{**AMPLE, **key} for key in keys], "models": {MODEL: {"price": PRICE}}}
        return overlaid(config, limited)


def with_workers(gateway: Gateway, number: int) -> Gateway:
    """The same with so many workers."""
    return replace(gateway, extra=overlaid(gateway.extra, {"listen": {"workers": number}}))


NAMES: Final = ("direct", "nginx", "gateway", "limited", "unrecorded", "aiohttp")
"""In the order of the report."""
USUAL: Final = ("direct", "nginx", "gateway", "limited", "aiohttp")
"""What is compared when nothing else is asked for."""


def make(names: tuple[str, ...], gateway_settings: Mapping[str, object]) -> list[Target]:
    """The targets of these names, in the order of NAMES."""
    known: dict[str, Target] = {
        "direct": Direct(),
        "nginx": Nginx(),
        "gateway": Gateway(extra=gateway_settings),
        "limited": Limited(extra=gateway_settings),
        "unrecorded": Unrecorded(extra=gateway_settings),
        "aiohttp": AiohttpProxy(),
    }
    return [known[name] for name in NAMES if name in names]
