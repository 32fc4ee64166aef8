"""The stages of a gateway, wired as `assemble.py` does it, around providers that are played: no file, no segment.

    wired = Wired(FakeProvider())
    wired.gateway            # what the pipeline takes
    wired.records            # what has been recorded
    wired.desk.lines.told()  # what stands in the journal
    wired.engine             # what limits count in, and its clock

Every provider serves the model `gpt`, the first in the list first, and `passthrough` by its name.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from gateway.config.keys import KeyRecord, digest
from gateway.config.schema import Config, Model
from gateway.config.schema import Target as TargetConfig
from gateway.dialects.mediarules import rule
from gateway.identity.identify import Identity
from gateway.limiter.estimate import Estimator, Weights
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.limiter import Engines, Limiter
from gateway.limiter.rules import Rules
from gateway.pipeline import Gateway, RandomBytes
from gateway.record import Record
from gateway.routing.match import Router
from gateway.routing.models import Candidate, catalogue
from gateway.units import NS_PER_MS
from gateway.wheel import Wheel
from tests.fakes.journal import FakeDesk
from tests.fakes.limits import FakeEngine
from tests.fakes.provider import FakeProvider

if TYPE_CHECKING:
    from gateway.config.keyindex import KeyIndex

KEY = b"gw-" + b"k" * 43
LIMITED = b"gw-" + b"l" * 43
KEYS = (
    KeyRecord(digest(KEY), "demo", "acme", "search", "ann", {"app": "ui"}, role="analyst", data_class="internal"),
    KeyRecord(digest(LIMITED), "limited", "acme", models=("gpt",)),
    KeyRecord(digest(b"gw-disabled"), "disabled", disabled=True),
    KeyRecord(digest(b"gw-expired"), "expired", expires_ms=1),
)


class FakeKeys:
    """A `KeyIndex` without its file."""

    def __init__(self, records: Sequence[KeyRecord]) -> None:
        self._by_digest = {record.digest: record for record in records}
        self.revoked: set[str] = set()

    def find(self, known: bytes) -> KeyRecord | None:
        return self._by_digest.get(known)


class FakeGuard:
    """Refuses the bodies in `refused`; `reading` is the one being read now."""

    def __init__(self) -> None:
        self.refused: set[bytes] = set()
        self.reading: bytes | None = None
        self.entered = 0

    def enter(self, body: bytes) -> bool:
        if body in self.refused:
            return False
        self.reading = body
        self.entered += 1
        return True

    def leave(self) -> None:
        self.reading = None


class Wired:
    """A gateway and what it has recorded; (record, route, model entry) each."""

    def __init__(self, *providers: FakeProvider, models: dict[str, Model] | None = None, **config: Any) -> None:
        self.providers = providers
        self.keys = FakeKeys(KEYS)
        self.guard = FakeGuard()
        self.records: list[tuple[Record, str, str]] = []
        self.polls = 0
        self.ticks: list[tuple[int, int]] = []
        self.retired_for: list[Gateway] = []
        self.closed = False
        self.desk = FakeDesk()
        own = Model(targets=tuple(TargetConfig(provider=p.account.name, model="gpt-real", weight=1) for p in providers))
        served = {"gpt": own} if models is None else models
        self.config = Config(models=served if providers else {}, **config)
        self.engine = FakeEngine()
        self.learned = Learned(memoryview(bytearray(8 * LEARNED.words(0))).cast("q"))
        self.gateway = self._gateway()

    @property
    def recorded(self) -> list[Record]:
        return [record for record, _, _ in self.records]

    def _gateway(self) -> Gateway:
        by_name = {provider.account.name: provider for provider in self.providers}

        def candidates(model: Model, star: str) -> list[Candidate[Any]]:
            return [
                Candidate(
                    by_name[t.provider].target(t.model, star=star, defaults=t.defaults),
                    1 if index == 0 else 0,
                    by_name[t.provider].account.dialect,
                )
                for index, t in enumerate(model.targets)
            ]

        return Gateway(
            config=self.config,
            identity=Identity(cast("KeyIndex", self.keys)),
            router=Router(self.config),
            catalogue=catalogue(self.config, candidates),
            passthrough={name: provider.target("*") for name, provider in by_name.items()},
            guard=self.guard,
            wheel=Wheel(),
            scribe=self.desk.scribe,
            rules=Rules(self.config.limits, self.config.teams, name_key=b""),
            limiter=Limiter(Engines(self.engine), owner=7, wall_ns=self.now_ns, monotonic_ns=self.now_ns),
            estimator=Estimator(self.learned, {name: Weights(rule("openai", "")) for name in self.config.models}),
            record=lambda record, route, model: self.records.append((record, route, model)),
            tick=lambda streams, connections: self.ticks.append((streams, connections)),
            poll=self._poll,
            retire=self.retired_for.append,
            close=self._close,
            generation=7,
            loaded_s=int(time.time()),
            random_bytes=RandomBytes(),
        )

    def now_ns(self) -> int:
        return self.engine.now_ms * NS_PER_MS

    def _poll(self) -> None:
        self.polls += 1

    async def _close(self) -> None:
        self.closed = True
