"""The gateway of a stage has its two tenants and, where a provider fails, another one to go to."""

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from bench.load import stage
from bench.load.profiles import BY_NAME, PATIENT_RULE, QUOTA_RULE
from bench.load.stage import Served, Sim, Stage, Watch
from bench.speed.procfs import Process, Reading
from bench.speed.targets import Place, Running
from bench.speed.workload import MODEL
from gateway.config.load import load
from gateway.config.schema import Config

NEIGHBOUR, PATIENT = "gw-neighbour" + "0" * 31, "gw-patient" + "0" * 31
PLACE = Place(0, 9000, Path("folder"), 1000)


@pytest.mark.parametrize("spare", [None, Sim(9001)])
def test_the_config_is_one_that_the_gateway_takes(spare: Sim | None, tmp_path: Path) -> None:
    config = served(tmp_path, Served({}, NEIGHBOUR, PATIENT, spare))
    assert [key.id for key in config.keys] == ["bench", "neighbour", "patient"]
    assert not any(key.allowance for key in config.keys)
    assert config.models[MODEL].fallbacks == ((stage.SPARE,) if spare else ())
    assert sorted(config.providers) == (["bench", "spare"] if spare else ["bench"])


@pytest.mark.parametrize("quota", [False, True])
def test_keys_have_limits_where_the_profile_says_so(quota: bool, tmp_path: Path) -> None:
    config = served(tmp_path, Served({}, NEIGHBOUR, PATIENT, limited=True, quota=quota))
    assert all(key.allowance and len(key.allowance.limits) == 4 for key in config.keys)
    assert config.models[MODEL].price is not None
    assert [rule.name for rule in config.limits.rules] == ([QUOTA_RULE, PATIENT_RULE] if quota else [])
    assert [rule.match.key for rule in config.limits.rules] == (["bench", "patient"] if quota else [])


def served(folder: Path, gateway: Served) -> Config:
    (folder / "gateway.yaml").write_text(yaml.safe_dump(gateway.config(PLACE, 8080, "gw-" + "s" * 40)))
    return load(folder / "gateway.yaml")


def test_a_provider_fails_heals_and_tells_what_it_saw(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sim = stack.enter_context(stage.sim("first", "tokens=3", tmp_path))
        sim.fail()
        assert sim.seen() == []
        sim.heal()
        assert sim.url.endswith(str(sim.port))


class Told(Sim):
    """Notes what it is told, and when so many words came."""

    words: list[str]
    wanted: int
    enough: threading.Event

    def fail(self) -> None:
        self.words.append("fail")

    def heal(self) -> None:
        self.words.append("heal")
        if len(self.words) >= self.wanted:
            self.enough.set()


def told_provider(wanted: int) -> tuple[Told, Stage]:
    told = Told(1)
    for name, value in (("words", []), ("wanted", wanted), ("enough", threading.Event())):
        object.__setattr__(told, name, value)
    return told, Stage((told, Sim(2)), Running("gateway", 3, 3), "", "")


def test_with_a_page_it_fails_and_heals_on_end() -> None:
    told, raised = told_provider(6)
    with stage.failing(raised, BY_NAME["degraded"], 0.003, again=True):
        assert told.enough.wait(10)
    assert told.words[:6] == ["fail", "heal"] * 3


def test_a_profile_that_fails_does_so_once_and_heals() -> None:
    told, raised = told_provider(2)
    with stage.failing(raised, BY_NAME["degraded"], 0.03):
        assert told.enough.wait(10)
    assert told.words == ["fail", "heal"]
    with stage.failing(raised, BY_NAME["chat"], 0.0):
        assert told.words == ["fail", "heal"]


def test_a_watch_looks_at_the_largest_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = threading.Event()

    def reading(_: Running) -> Reading:
        if len(watch.looks) > 2:
            seen.set()
        return Reading({1: Process(1, 0, 100, 5), 2: Process(2, 0, 900, 7)})

    monkeypatch.setattr(Running, "reading", reading)
    watch = Watch(Running("gateway", 1, 1), every_s=0.001)
    with watch.watching():
        assert seen.wait(10)
    assert {(look.rss_kb, look.descriptors) for look in watch.looks} == {(900, 7)}
