"""Steps add up to what was asked for, each is followed by a reading, and the disk is never filled."""

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from bench.memory import drive
from bench.memory.drive import Drive
from bench.speed import native, procfs
from bench.speed.histogram import Histogram
from bench.speed.launch import CannotRun
from bench.speed.native import LoadResult
from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.targets import Limited, Place, Running


@pytest.mark.parametrize(
    ("requests", "step"), [(10_000_000, 50_000), (200_000, 10_000), (1_000_000, 50_000), (100, 5), (3, 1)]
)
def test_steps_are_short_and_many(requests: int, step: int) -> None:
    assert drive.step_of(requests) == step


class Played:
    """A gateway whose worker holds 10 KB more with each step; every step has one wrong answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[int] = []
        self.processes = {1: Process(1, 0, 9000, 7, "gw-super"), 3: Process(3, 0, 90_000, 9, "gw-control")}
        monkeypatch.setattr(native, "load", self._load)
        monkeypatch.setattr(Running, "reading", lambda _: self._reading())
        monkeypatch.setattr(procfs, "pss_kb", lambda pid: pid * 1000)
        monkeypatch.setattr(Progress, "step", lambda *_: None)

    def _load(self, _port: int, words: Sequence[str], **_: object) -> LoadResult:
        self.sent.append(int(words[words.index("--requests") + 1]))
        none = Histogram()
        return LoadResult(1.0, self.sent[-1], 1.0, 0, 0, 0, {"short_body": 1}, none, none, none, none, ("a note",))

    def _reading(self) -> Reading:
        worker = Process(2, 0, 60_000 + 10 * len(self.sent), 40, "gw-worker-0")
        return Reading({**self.processes, 2: worker})


def test_all_requests_are_sent_and_each_step_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch)
    (tmp_path / "gateway" / "state" / "journal").mkdir(parents=True)
    (tmp_path / "gateway" / "state" / "journal" / "1.jsonl").write_bytes(b"x" * 70)
    found = Drive(Running("limited", 1, 1), 45, tmp_path, Progress(1)).run()
    assert played.sent == [2] * 22 + [1]
    assert [one.requests for one in found.readings] == [*range(2, 45, 2), 45]
    last = found.readings[-1]
    assert (last.rss_kb, last.pss_kb, last.descriptors, last.control_rss_kb) == (60_230, 2000, 40, 90_000)
    assert (last.state_bytes, last.collections, found.wrong) == (70, (0, 0, 0), 23)
    assert found.seconds >= last.at_s >= 0


def test_a_gateway_without_its_control_process_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(monkeypatch)
    del played.processes[3]
    with pytest.raises(CannotRun, match="lost a process"):
        Drive(Running("limited", 1, 1), 10, tmp_path, Progress(1)).run()


def test_it_does_not_begin_without_room(tmp_path: Path) -> None:
    drive.require_room(tmp_path, 1)
    with pytest.raises(CannotRun, match=r"GB free; the journal needs 1000000 GB there \(TMPDIR says where\)"):
        drive.require_room(tmp_path, 10**15)


def test_the_gateway_keeps_a_small_journal_and_counts_its_collections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Place] = []

    def run(target: Limited, place: Place) -> Generator[Running, None, None]:
        places.append(place)
        assert target.extra == {"journal": {"max_bytes": drive.MAX_JOURNAL}}
        yield Running(target.name, 1, 1)

    monkeypatch.setattr(Limited, "run", run)
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    with drive.gateway(9000, tmp_path):
        pass
    enter = places[0].host.enter
    assert enter == (
        "env",
        f"PYTHONPATH={drive.INSIDE}:elsewhere",
        f"BENCH_COLLECTIONS={tmp_path / 'collections'}",
    )
    assert (tmp_path / "collections").is_dir()
