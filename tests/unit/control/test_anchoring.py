"""Each anchor keeps its own time; what fails is tried again with pauses that grow, and is told."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import Anchor as AnchorSettings
from gateway.config.schema import Config, Journal
from gateway.control import anchoring as module
from gateway.control.anchoring import Anchoring, NothingSigned, Result, Scheduled, anchor_now
from gateway.journal.anchor.base import AnchorFailed
from gateway.journal.manifest import BadManifest
from tests.fakes.manifest_heads import NODE, head

US = 1_800_000_000_000_000


class Place:
    """An anchor that notes what it is given, and fails when told to."""

    name = "file /somewhere"

    def __init__(self) -> None:
        self.given: list[int] = []
        self.error: Exception | None = None

    def put(self, given: bytes, n: int, node: str) -> str:
        assert (given, node) == (head(n), NODE)
        if self.error is not None:
            raise self.error
        self.given.append(n)
        return f"there/{n}"

    def check(self, given: bytes, n: int, node: str) -> str:
        raise AssertionError((given, n, node))


class Scene:
    """One scheduled anchor, a clock, and a journal that has the manifests it is told to have."""

    def __init__(self, journal: Path, every_s: float = 60) -> None:
        self.journal = journal
        self.place = Place()
        self.now_s = 0.0
        settings = AnchorSettings(kind="file", path="/somewhere", every_s=every_s)
        self.scheduled = Scheduled(journal, settings, self.place, lambda: US + int(self.now_s), lambda: self.now_s)

    def signed(self, n: int) -> None:
        (self.journal / "manifests").mkdir(exist_ok=True)
        (self.journal / "manifests/0000000001.jsonl").write_bytes(head(n) + b"\n")

    def until(self, now_s: float) -> None:
        """Let time pass a second at a time."""
        while self.now_s < now_s:
            if self.scheduled.due():
                self.scheduled.turn()
            self.now_s += 1


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_first_manifest_is_anchored_as_soon_as_there_is_one(scene: Scene) -> None:
    scene.until(5)
    assert (scene.place.given, scene.scheduled.problem) == ([], "")
    scene.signed(3)
    scene.until(6)
    assert scene.place.given == [3]
    assert (scene.scheduled.last_n, scene.scheduled.where) == (3, "there/3")
    assert (scene.scheduled.anchored, scene.scheduled.failures) == (1, 0)
    assert scene.scheduled.last_success_us == US + 5


def test_then_every_so_often_and_only_what_is_new(scene: Scene) -> None:
    for n in range(200):
        scene.signed(min(n, 130))
        scene.until(n + 1)
    assert scene.place.given == [0, 60, 120, 130]
    scene.until(1000)
    assert scene.place.given == [0, 60, 120, 130]


@pytest.mark.parametrize("error", [AnchorFailed("no bucket"), OSError("no disk")])
def test_what_fails_is_tried_again_after_longer_and_longer(
    scene: Scene, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene.signed(1)
    scene.place.error = error
    tried = []
    while scene.now_s < 2000:
        before = scene.scheduled.failures
        scene.until(scene.now_s + 1)
        if scene.scheduled.failures > before:
            tried.append(int(scene.now_s) - 1)
    assert tried[:8] == [0, 5, 15, 35, 75, 155, 315, 615]
    assert tried[8] == 615 + module.PAUSE_MAX_S
    assert scene.scheduled.problem == str(error)
    assert f"anchor file /somewhere: {error}; it is tried again in 5 s" in caplog.text
    scene.place.error = None
    scene.signed(2)
    scene.until(3000)
    assert (scene.place.given, scene.scheduled.problem) == ([2], "")
    assert "works again: there/2" in caplog.text
    scene.place.error = error
    scene.signed(3)
    caplog.clear()
    scene.until(3061)
    assert "in 5 s" in caplog.records[0].getMessage()  # a new failure begins with a short pause


def test_a_defect_does_not_end_the_schedule(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.signed(1)
    scene.place.error = ZeroDivisionError("a secret")
    scene.until(1)
    assert scene.scheduled.problem == "internal error: ZeroDivisionError"
    assert caplog.records[0].exc_info is not None
    scene.place.error = None
    scene.until(10)
    assert scene.place.given == [1]


def test_a_manifest_that_cannot_be_read_is_a_failure(scene: Scene) -> None:
    scene.signed(1)
    (scene.journal / "manifests/0000000001.jsonl").write_bytes(b"rubbish\n")
    scene.until(1)
    assert "no manifest" in scene.scheduled.problem


# --- all of them ----------------------------------------------------------------------------------------------------


class Hanging(Place):
    """An anchor that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def put(self, given: bytes, n: int, node: str) -> str:
        self.begun.set()
        assert self.go_on.wait(10)
        return super().put(given, n, node)


def settings_of(*paths: str) -> tuple[AnchorSettings, ...]:
    return tuple(AnchorSettings(kind="file", path=path, every_s=1) for path in paths)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop go on until something has happened; a test that waits in vain fails in `run`."""
    while not true():  # noqa: ASYNC110 - what is waited for happens in a thread
        await asyncio.sleep(0.001)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def test_an_anchor_that_hangs_holds_up_no_other_and_is_called_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scene(tmp_path).signed(1)
    slow, quick = Hanging(), Place()
    places = {"/slow": slow, "/quick": quick}
    monkeypatch.setattr(module, "anchor_of", lambda settings: places[settings.path])
    now_s = 0.0
    anchoring = Anchoring(tmp_path, settings_of("/slow", "/quick"), lambda: US, lambda: now_s)
    first, second = anchoring.scheduled

    async def main() -> None:
        nonlocal now_s
        for _ in range(3):
            anchoring.tick()
            await until(lambda: not second.busy)
            now_s += 2
        await asyncio.to_thread(slow.begun.wait)
        assert (first.busy, first.due()) == (True, False)
        slow.go_on.set()
        await until(lambda: not first.busy)

    run(main)
    assert (slow.given, quick.given) == ([1], [1])
    assert (first.anchored, second.anchored) == (1, 1)


def test_it_runs_until_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scene(tmp_path).signed(1)
    monkeypatch.setattr(module, "TICK_S", 0.001)
    audit = tmp_path / "audit"
    anchoring = Anchoring(tmp_path, settings_of(str(audit)))

    async def main() -> None:
        task = asyncio.create_task(anchoring.run())
        await until(lambda: anchoring.scheduled[0].anchored == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)
    assert [path.read_bytes() for path in (audit / NODE).iterdir()] == [head(1) + b"\n"]


def test_a_reload_keeps_the_schedule_of_what_is_as_it_was(tmp_path: Path) -> None:
    anchoring = Anchoring(tmp_path, settings_of("/a", "/b", "/b"))
    a, b, other_b = anchoring.scheduled
    anchoring.adopt(settings_of("/b", "/c", "/b", "/b"))
    kept = anchoring.scheduled
    assert (kept[0], kept[2]) == (b, other_b)
    assert kept[1] not in (a, b, other_b)
    assert kept[3] not in (a, b, other_b)


# --- on demand ------------------------------------------------------------------------------------------------------


def test_every_anchor_is_tried_and_told_of(tmp_path: Path) -> None:
    Scene(tmp_path).signed(4)
    (tmp_path / "file").write_text("no directory")
    paths = (str(tmp_path / "file"), str(tmp_path / "audit"))
    results = anchor_now(Config(journal=Journal(anchors=settings_of(*paths))), tmp_path)
    assert [result.n for result in results] == [4, 4]
    assert results[0].anchor == f"file {paths[0]}"
    assert "manifest 4 cannot be written" in results[0].problem
    assert results[1] == Result(f"file {paths[1]}", 4, results[1].where)
    assert Path(results[1].where).read_bytes() == head(4) + b"\n"
    assert anchor_now(Config(), tmp_path) == []


def test_nothing_to_anchor(tmp_path: Path) -> None:
    with pytest.raises(NothingSigned, match="holds no manifest: one is signed a second after"):
        anchor_now(Config(), tmp_path)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/0000000001.jsonl").write_bytes(b"rubbish\n")
    with pytest.raises(BadManifest):
        anchor_now(Config(), tmp_path)
