"""Each part turns its knob; gateways, loads and processes are played."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import yaml

from bench import keys
from bench.scaling import parts
from bench.scaling.parts import PARTS, Laddered
from bench.scaling.points import CHARTS, TITLES
from bench.scaling.stand import COST, Stand
from bench.speed import memory
from bench.speed.launch import CannotRun
from bench.speed.memory import MemoryResult, Moment
from bench.speed.progress import Progress
from bench.speed.sections import Bench, Sample, Settings
from bench.speed.targets import Place, Running, Target
from bench.speed.workload import Workload
from gateway.config.load import load
from gateway.limiter.rules import Rules, Subject
from tests.unit.bench_speed.samples import again, sample

SETTINGS = Settings(repeats=2, seconds=1.0, warmup=0.0)


class Played:
    """What was started and asked; every gateway costs the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, errors: int = 0) -> None:
        self.started: list[tuple[str, int | None]] = []
        self.asked: list[tuple[str, int, tuple[str, ...]]] = []
        self.errors = errors
        self.stand = Stand(9000, folder, SETTINGS, 20_000, Progress(1), again())
        monkeypatch.setattr(Target, "running", self._running())
        monkeypatch.setattr(Bench, "sample", self._sample())
        monkeypatch.setattr(Progress, "step", lambda *_: None)

    def _running(self) -> Callable[[Target, Place], AbstractContextManager[Running]]:
        @contextmanager
        def running(target: Target, place: Place) -> Generator[Running, None, None]:
            self.started.append((place.folder.name, place.core))
            yield Running(target.name, 1, 1, headers=("authorization: Bearer first",))

        return running

    def _sample(self) -> Callable[..., Sample]:
        def taken(_: Bench, section: str, target: Running, repeat: int, work: Workload, *_words: str) -> Sample:
            self.asked.append((section, work.request_bytes, target.headers))
            cost = 10 if target.name == "nginx" else 40
            return sample(section, target.name, rps=1000 / cost, cpu_us=cost, repeat=repeat, errors=self.errors)

        return taken


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Played:
    return Played(monkeypatch, tmp_path)


def test_prompts_grow_to_a_megabyte_beside_nginx(played: Played) -> None:
    found = list(parts.prompts(played.stand))
    assert [point.at for point in found][: len(parts.PROMPTS_KB)] == [
        "1 KB",
        "4 KB",
        "16 KB",
        "64 KB",
        "256 KB",
        "1,000 KB",
    ]
    assert len(found) == 2 * len(parts.PROMPTS_KB)
    assert {size for _, size, _ in played.asked} == {kb * 1000 for kb in parts.PROMPTS_KB}
    assert found[0].figures[COST] == pytest.approx(40)
    assert found[0].figures["× nginx's CPU"] == pytest.approx(4)


def test_each_number_of_limits_is_asked_for_with_a_key_of_its_own(played: Played) -> None:
    found = list(parts.limits(played.stand))
    assert [point.at for point in found] == [str(n) for n in parts.LIMITS] * 2
    assert len({headers for _, _, headers in played.asked}) == len(parts.LIMITS)
    assert len(played.started) == 1


def test_a_key_of_the_ladder_meets_as_many_limits_as_it_says(tmp_path: Path) -> None:
    place = Place(0, 9000, tmp_path, 1000)
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(Laddered().config(place, 8000, "gw-" + "s" * 43)))
    config = load(path)
    rules = Rules(config.limits, config.teams, name_key=b"")
    met: dict[str, int] = {}
    for key in config.keys[1:]:
        limits = rules.limits(Subject(key.id, org=key.org, model="m", entry="m", route="r", allowance=key.allowance))
        met[key.id] = 0 if limits is None else len(limits.lines(1_800_000_000_000).lines)
    assert met == {f"limits-{number}": number for number in parts.LIMITS}


def test_wrong_answers_are_no_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="wrong answers"):
        list(parts.limits(Played(monkeypatch, tmp_path, errors=1).stand))


def test_keys_are_measured_by_their_own_bench(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(count: int, folder: Path) -> Mapping[str, float]:
        assert folder.is_dir()
        names = ("authenticate_first_us", "authenticate_again_us", "shared_mb", "own_mb", "build_s")
        return dict.fromkeys(names, float(count))

    monkeypatch.setattr(keys, "measure", measure)
    found = list(parts.key_index(played.stand))
    assert [point.at for point in found] == ["10", "1,000", "100,000", "1,000,000"]
    assert found[1].figures["MB shared"] == 1000


def test_streams_are_as_many_as_descriptors_allow_and_that_is_said(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held(memory.MemoryRun):
        def open_streams(self) -> None:
            result: MemoryResult = self.result
            result.streams = self._streams
            kb = self._streams * 20
            result.moments += [Moment("before streams", 50_000, 20), Moment("streams open", 50_000 + kb, 20)]

    monkeypatch.setattr(memory, "MemoryRun", Held)
    found = list(parts.streams(played.stand))
    assert [point.figures["held"] for point in found] == [100, 1_000, 9_800]
    assert {point.figures["KB a stream"] for point in found} == {20}
    assert played.stand.remarks == ["9,800 of 10,000 streams: the hard limit is 20,000 descriptors"]


def test_streams_that_could_not_be_held_are_no_figures(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.MemoryRun, "open_streams", lambda _: None)
    with pytest.raises(CannotRun, match="none could be held"):
        list(parts.streams(played.stand))


def test_every_part_has_a_title_a_chart_and_a_length() -> None:
    assert list(PARTS) == list(TITLES) == list(CHARTS)
    assert parts.expected_s(Settings(repeats=3, seconds=2.0, warmup=0.5), tuple(PARTS)) < 600
