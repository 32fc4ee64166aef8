"""Every row of corpus/bucket on every engine: the model, the scripts in Lua 5.1 and 5.4, and in a real store."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.limiter.engine import NOTHING_BINDS, Amount, Outcome, Renewal
from gateway.limiter.hold import State
from gateway.limiter.spec import Spec, rate, slots, window
from tests.fakes.limit_engines import TimedEngine, lua_engine, store_engine
from tests.fakes.limit_model import LimitModel
from tests.fakes.store_server import StoreConnection, any_store, connect

CORPUS = Path(__file__).parents[1] / "corpus" / "bucket"
START_MS = 1_700_000_000_000
FILES = sorted(CORPUS.glob("*.json"))

Case = dict[str, Any]


def cases() -> Iterator[Any]:
    for path in FILES:
        for case in json.loads(path.read_text()):
            yield pytest.param(case, id=f"{path.stem}: {case['name']}")


@pytest.fixture(scope="module")
def store() -> Iterator[StoreConnection]:
    with any_store() as url, connect(url) as connection:
        yield connection


domains = (f"conformance-{number}" for number in itertools.count())
ENGINES: dict[str, Callable[[StoreConnection], TimedEngine]] = {
    "model": lambda _: LimitModel(),
    "lua 5.1": lambda _: lua_engine(51),
    "lua 5.4": lambda _: lua_engine(54),
    "store": lambda store: store_engine(store, next(domains)),
}


def spec_of(words: list[Any]) -> Spec:
    kind, *numbers = (word for word in words if word != "shadow")
    shadow = words[-1] == "shadow"
    if kind == "rate":
        return rate(*numbers, shadow=shadow)
    if kind == "window":
        limit, start_ms, end_ms = numbers
        return window(limit, START_MS + start_ms, START_MS + end_ms, shadow=shadow)
    assert kind == "slots"
    return slots(*numbers, shadow=shadow)


class Run:
    """One case on one engine; each method is a `do` and returns what the corpus writes under `gives`."""

    def __init__(self, engine: TimedEngine, buckets: dict[str, list[Any]]) -> None:
        self.engine = engine
        self.specs: dict[str, Spec] = {}
        self.limits({"buckets": buckets})

    def step(self, step: Case) -> None:
        given = getattr(self, step["do"])(step)
        assert given == step.get("gives"), step

    def limits(self, step: Case) -> None:
        self.specs |= {name: spec_of(words) for name, words in step["buckets"].items()}

    def reserve(self, step: Case) -> Case:
        takes = self._amounts(step["take"])
        done = self.engine.reserve(
            START_MS + step["at"],
            step["hold"],
            takes,
            lease_ms=step.get("lease_ms", 30_000),
            attempt=step.get("attempt", 0),
            releases=self._amounts(step.get("release", {})),
        )
        given = {"outcome": done.outcome.name.lower(), "levels": self._levels(takes, done.levels)}
        if done.outcome is Outcome.REFUSED:
            return given | {"binding": takes[done.binding].bucket, "wait_ms": done.wait_ms}
        assert (done.binding, done.wait_ms) == (NOTHING_BINDS, 0)
        return given

    def settle(self, step: Case) -> Case:
        actuals = self._amounts(step["used"])
        done = self.engine.settle(START_MS + step["at"], step["hold"], actuals)
        return {"found": done.found.name.lower(), "levels": self._levels(actuals, done.levels)}

    def renew(self, step: Case) -> list[str]:
        renewals = [Renewal(hold, tuple(names)) for hold, names in step["holds"].items()]
        states = self.engine.renew(START_MS + step["at"], renewals, lease_ms=step["lease_ms"])
        return [State(state).name.lower() for state in states]

    def lease(self, step: Case) -> Case:
        done = self.engine.lease(
            START_MS + step["at"],
            step["node"],
            step["turn"],
            step["bucket"],
            self.specs[step["bucket"]],
            want=step["want"],
            least=step["least"],
            unused=step.get("unused", 0),
            lease_ms=step["lease_ms"],
        )
        return {"granted": done.granted, "level": done.level, "wait_ms": done.wait_ms}

    def peek(self, step: Case) -> Case:
        asked = self._amounts(step["ask"])
        standings = self.engine.peek(START_MS + step["at"], asked)
        return {a.bucket: [s.level, s.wait_ms] for a, s in zip(asked, standings, strict=True)}

    def _amounts(self, named: dict[str, int]) -> list[Amount]:
        return [Amount(name, self.specs[name], amount) for name, amount in named.items()]

    @staticmethod
    def _levels(amounts: list[Amount], levels: tuple[int, ...]) -> dict[str, int]:
        return {amount.bucket: level for amount, level in zip(amounts, levels, strict=True)}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", list(cases()))
def test_engines_give_what_the_corpus_says(case: Case, engine: str, store: StoreConnection) -> None:
    run = Run(ENGINES[engine](store), case["buckets"])
    for step in case["steps"]:
        run.step(step)


def test_the_corpus_is_there() -> None:
    assert [path.stem for path in FILES] == ["bounds", "holds", "lease", "rate", "slots", "window"]
