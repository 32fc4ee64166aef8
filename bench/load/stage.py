"""The processes of a profile: simulated providers, a gateway in front of them, and an eye on its memory.

The gateway has a core of its own; the providers share the other with Locust, as in `bench.speed`. With a profile that
fails, the gateway has two providers, and the first is told to fail during the middle third of the run.
"""

import json
import secrets
import sys
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from bench.load.profiles import (
    PATIENT_CAPACITY,
    PATIENT_RPM,
    PATIENT_RULE,
    QUOTA_CAPACITY,
    QUOTA_RPM,
    QUOTA_RULE,
    Profile,
)
from bench.speed import launch, procfs
from bench.speed.sections import CLIENT_CORE, TARGET_CORE
from bench.speed.targets import AMPLE, PRICE, ROOT, UPSTREAM_MODEL, Gateway, Place, Running, overlaid
from bench.speed.workload import MODEL

FAILURE: Final = {"rules": [{"match": {"path": "*"}, "behave": {"status": 503}}]}
SPARE: Final = "spare-model"
LOOK_EVERY_S: Final = 2.0


@dataclass(frozen=True)
class Sim:
    """A simulated provider, steered and asked."""

    port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def fail(self) -> None:
        """Answer 503 to everything."""
        self._post("script", FAILURE)

    def heal(self) -> None:
        """Answer again, and forget what was seen."""
        self._post("reset", {})

    def seen(self) -> list[dict[str, Any]]:
        """The requests since it was started or healed; the last two hundred."""
        with launch.WITHOUT_PROXY.open(f"{self.url}/__sim/requests", timeout=5) as answer:
            requests: list[dict[str, Any]] = json.load(answer)["requests"]
        return requests

    def _post(self, verb: str, body: object) -> None:
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/__sim/{verb}", json.dumps(body).encode(), headers)  # noqa: S310
        with launch.WITHOUT_PROXY.open(asked, timeout=5):
            pass


@contextmanager
def sim(name: str, behave: str, folder: Path) -> Generator[Sim, None, None]:
    """A running provider."""
    log = folder / f"{name}.log"
    words = ["env", "-C", str(ROOT), sys.executable, "-m", "bench.sim", "--quiet"]
    with launch.started(name, [*words, "--behave", behave], core=CLIENT_CORE, log=log) as process:
        process.wait_for("`sim listening`", lambda: log.read_text().endswith("\n"))
        yield Sim(int(log.read_text().split()[-1].rpartition(":")[2]))


@dataclass(frozen=True)
class Stage:
    """What runs: the providers (the first is the one that fails), the gateway, the keys to ask it with, its config."""

    sims: tuple[Sim, ...]
    gateway: Running
    key: str
    neighbours_key: str
    patient_key: str = ""
    config: Path = Path("gateway.yaml")


@contextmanager
def raised(profile: Profile, folder: Path) -> Generator[Stage, None, None]:
    """Providers and gateway, ready."""
    descriptors = procfs.raise_descriptor_limit()
    names = ("first", "second") if profile.fails else ("first",)
    with ExitStack() as stack:
        sims = tuple(stack.enter_context(sim(name, profile.behave, folder)) for name in names)
        neighbours_key, patient_key = (f"gw-{secrets.token_urlsafe(32)}" for _ in range(2))
        spare = sims[1] if len(sims) > 1 else None
        gateway = Served({}, neighbours_key, patient_key, spare, limited=profile.limited, quota=profile.quota)
        place = Place(TARGET_CORE, sims[0].port, folder / "gateway", descriptors)
        running = stack.enter_context(gateway.running(place))
        key = running.headers[0].rpartition(" ")[2]
        yield Stage(sims, running, key, neighbours_key, patient_key, place.folder / "gateway.yaml")


@dataclass
class Served(Gateway):
    """The bench's gateway with three keys, and with limits or a spare provider where they are wanted."""

    neighbours_key: str = ""
    patient_key: str = ""
    spare: Sim | None = None
    limited: bool = False
    quota: bool = False

    def config(self, place: Place, port: int, secret: str) -> dict[str, object]:
        """The whole gateway.yaml."""
        secrets_by_id = {"bench": secret, "neighbour": self.neighbours_key, "patient": self.patient_key}
        limits = AMPLE if self.limited else {}
        keys = [{"id": id_, "secret": of, "org": id_, "models": ["*"], **limits} for id_, of in secrets_by_id.items()]
        changed: dict[str, object] = {"keys": keys}
        if self.limited:
            changed["models"] = {MODEL: {"price": PRICE}}
        if self.quota:
            changed["limits"] = {"rules": [_quota(*QUOTA), _quota(*PATIENT)]}
        if self.spare is not None:
            changed["providers"] = {"spare": {"kind": "openai", "base_url": f"{self.spare.url}/v1", "api_key": "sk-b"}}
            spare_model = {"targets": [{"provider": "spare", "model": UPSTREAM_MODEL}]}
            changed["models"] = {MODEL: {"fallbacks": [SPARE]}, SPARE: spare_model}
        return overlaid(super().config(place, port, secret), changed)


QUOTA: Final = (QUOTA_RULE, "bench", QUOTA_RPM, QUOTA_CAPACITY)
PATIENT: Final = (PATIENT_RULE, "patient", PATIENT_RPM, PATIENT_CAPACITY)


def _quota(name: str, key: str, rpm: int, capacity: int) -> dict[str, object]:
    per_minute = {"per": ["key"], "requests": rpm, "every": "minute", "capacity": capacity}
    return {"name": name, "match": {"key": key}, **per_minute}


@contextmanager
def failing(stage: Stage, profile: Profile, seconds: float, *, again: bool = False) -> Generator[None, None, None]:
    """While the block runs, the first provider fails from a third of `seconds` on, and heals at two; or so on end."""
    if not profile.fails:
        yield
        return
    first, over = stage.sims[0], threading.Event()

    def happen() -> None:  # one after the other: two timers may be late in any order
        for happens in cycle((first.fail, first.heal)):
            if over.wait(seconds / 3):
                return
            happens()
            if happens == first.heal and (not again or over.wait(seconds / 3)):
                return

    thread = threading.Thread(target=happen, name="bench provider fails")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class Watched:
    """The worker at one moment."""

    at_s: float
    rss_kb: int
    descriptors: int


@dataclass
class Watch:
    """Looks at a gateway's worker every so often, in a thread, while its block runs."""

    gateway: Running
    every_s: float = LOOK_EVERY_S
    looks: list[Watched] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Generator[None, None, None]:
        """Until the block ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        started_s = time.monotonic()
        while not self._stop.wait(self.every_s):
            worker = self.gateway.reading().worker()
            if worker is not None:
                self.looks.append(Watched(time.monotonic() - started_s, worker.rss_kb, worker.descriptors))
