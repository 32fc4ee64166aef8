"""Rounds of the sync thread, turned by hand; and the thread itself, which only decides when."""

import errno
import os
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from gateway.journal.chain import Chain, Origin, SegmentFile
from gateway.journal.line import genesis
from gateway.journal.syncer import Syncer
from tests.fakes.disk import FaultyDisk, broken, no_space
from tests.fakes.handloop import HandLoop
from tests.fakes.journal_writer import NODE, content, segment


class Told:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, object]] = []

    def on_synced(self, position: int) -> None:
        self.reports.append(("synced", position))

    def on_sync_failed(self, error: OSError) -> None:
        self.reports.append(("failed", error.errno))

    def on_sync_healed(self, position: int) -> None:
        self.reports.append(("healed", position))


class Scene:
    """A chain with its first line written, and a syncer without its thread."""

    def __init__(self, journal: Path) -> None:
        self.disk = FaultyDisk()
        self.journal = journal
        (journal / "w0").mkdir()
        lock = self.disk.create(journal / "w0" / "lock")
        file = SegmentFile(self.disk.create(segment(journal, 1)), 1)
        self.chain = Chain(self.disk, journal, Origin(NODE, "eu", "w0"), lock, file, 0, genesis(NODE, "w0"))
        self.chain.keep_bytes = 1_000_000
        self.told = Told()
        self.loop = HandLoop()
        self.syncer = Syncer(self.chain, 0.0, self.told)
        self.syncer.prepare_bytes = 1 << 30
        self.syncer._loop = self.loop.real()
        self.write("first")
        self.turn()

    def write(self, text: str, *, urgent: bool = False) -> None:
        self.chain.write([content(text)])
        self.syncer.written(urgent=urgent)

    def turn_with(self, text: str) -> None:
        """Write, and a round."""
        self.write(text)
        self.turn()

    def turn(self) -> list[str]:
        """One round; the calls it made."""
        before = len(self.disk.calls)
        self.syncer.turn()
        self.loop.settle()
        return self.disk.calls[before:]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_round_syncs_what_was_written_and_reports_to_who_waits(scene: Scene) -> None:
    scene.write("a")
    assert (scene.turn(), scene.told.reports) == (["sync"], [])
    scene.write("b", urgent=True)
    assert (scene.turn(), scene.told.reports) == (["sync"], [("synced", scene.chain.written_bytes)])
    assert scene.chain.file.synced == scene.chain.file.size


def test_a_round_with_nothing_new_asks_nothing_of_the_disk(scene: Scene) -> None:
    assert scene.turn() == []
    assert scene.told.reports == []


def test_after_a_failed_sync_the_same_bytes_are_written_again(scene: Scene) -> None:
    scene.write("a", urgent=True)
    scene.disk.fault = lambda name, _: broken() if name == "sync" else None
    assert scene.turn() == ["sync"]
    data = segment(scene.journal, 1).read_bytes()
    with segment(scene.journal, 1).open("r+b") as file:
        file.seek(data.index(b'{"seq":2,'))
        file.write(bytes(20))
    scene.disk.fault = lambda _name, _: None
    assert scene.turn() == ["pwrite", "sync"]
    assert segment(scene.journal, 1).read_bytes() == data
    assert scene.told.reports == [("failed", 5), ("healed", len(data))]
    assert (scene.syncer.failures, scene.syncer.failed) == (1, False)
    assert scene.turn() == []


def test_what_is_written_during_a_sync_is_not_reported_with_it(scene: Scene) -> None:
    scene.write("a", urgent=True)
    position = scene.chain.written_bytes

    def write_more(name: str, _number: int) -> None:
        if name == "sync":
            scene.disk.fault = lambda _name, _: None
            scene.write("b", urgent=True)

    scene.disk.fault = write_more
    scene.turn()
    assert scene.told.reports == [("synced", position)]
    assert (scene.turn(), scene.told.reports[1:]) == (["sync"], [("synced", scene.chain.written_bytes)])


def test_stopping_tries_a_failed_sync_once_more(scene: Scene) -> None:
    scene.write("a")
    failures = [broken()]
    scene.disk.fault = lambda name, _: failures.pop() if name == "sync" and failures else None
    before = len(scene.disk.calls)
    scene.loop.run(scene.syncer.stop())
    assert scene.disk.calls[before:] == ["sync", "pwrite", "sync"]
    assert scene.chain.file.synced == scene.chain.file.size


def test_stopping_closes_all_but_the_current_segment_and_makes_none(scene: Scene) -> None:
    scene.syncer.want_next()
    scene.turn()
    scene.syncer.want_next()
    following = scene.syncer._next
    assert following is not None
    scene.loop.run(scene.syncer.stop())
    assert following.fd not in scene.disk.fds
    scene.syncer.want_next()
    assert "create" not in scene.turn()


def test_the_next_segment_is_made_ahead_and_the_full_one_closed_when_synced(scene: Scene) -> None:
    scene.syncer.prepare_bytes = scene.chain.file.size + 1
    assert scene.turn() == []
    assert scene.syncer.take_next() is None
    scene.write("a")
    assert scene.turn() == ["sync", "create", "sync_dir"]
    old = scene.chain.file
    following = scene.syncer.take_next()
    assert following is not None
    scene.write("b")
    scene.chain.roll(following, "size")
    scene.write("c", urgent=True)
    assert scene.turn() == ["sync", "sync"]
    assert old.fd not in scene.disk.fds
    assert scene.told.reports == [("synced", scene.chain.written_bytes)]


def test_the_next_segment_waits_until_all_before_it_are_synced(scene: Scene) -> None:
    scene.syncer.want_next()
    scene.write("a")
    scene.disk.fault = lambda name, _: broken() if name == "sync" else None
    assert scene.turn() == ["sync"]
    scene.disk.fault = lambda _name, _: None
    assert scene.turn() == ["pwrite", "sync", "create", "sync_dir"]


@pytest.mark.parametrize("step", ["create", "sync_dir"])
def test_a_segment_that_cannot_be_made_is_tried_again_later(
    scene: Scene, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.syncer.want_next()
    scene.disk.fault = lambda name, _: no_space() if name == step else None
    scene.turn()
    assert scene.syncer.take_next() is None
    scene.disk.fault = lambda _name, _: None
    assert scene.turn() == []
    monkeypatch.setattr("gateway.journal.syncer._PREPARE_AGAIN_NS", 0)
    scene.syncer._next_not_before_ns = 0
    assert scene.turn() == ["create", "sync_dir"]
    following = scene.syncer.take_next()
    assert following is not None
    assert (following.number, following.size, scene.told.reports) == (2, 0, [])


def test_a_segment_that_holds_something_is_never_taken(scene: Scene) -> None:
    segment(scene.journal, 2).write_bytes(b"who wrote this?\n")
    scene.syncer.want_next()
    scene.turn()
    assert scene.syncer.take_next() is None
    assert segment(scene.journal, 2).read_bytes() == b"who wrote this?\n"


def test_the_thread_syncs_and_ends(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    synced = threading.Event()

    def note(name: str, _number: int) -> None:
        if name == "sync":
            synced.set()

    scene.disk.fault = note
    scene.syncer.start(scene.loop.real())
    scene.write("a", urgent=True)
    assert synced.wait(10)
    scene.loop.run(scene.syncer.stop())
    assert scene.chain.file.synced == scene.chain.file.size
    assert scene.syncer._thread is not None
    assert not scene.syncer._thread.is_alive()


def test_a_round_waits_for_more_to_come_and_after_a_failure_for_the_disk(scene: Scene) -> None:
    scene.syncer.sync_s = 0.05
    scene.write("a")
    begun_s = time.monotonic()
    assert not scene.syncer._wait(1_000)
    assert time.monotonic() - begun_s >= 0.05
    scene.syncer.sync_s = 1_000
    scene.write("b", urgent=True)
    assert not scene.syncer._wait(1_000), "at once when somebody waits"
    scene.syncer.failed = True
    begun_s = time.monotonic()
    assert not scene.syncer._wait(0.05)
    assert time.monotonic() - begun_s >= 0.05


def test_a_thread_that_crashes_says_so(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def crash(_name: str, _number: int) -> None:
        raise ZeroDivisionError("a defect")

    scene.write("a", urgent=True)
    scene.disk.fault = crash
    scene.syncer._run()
    scene.loop.settle()
    assert scene.told.reports == [("failed", 5)]
    assert "a defect" in caplog.text


def test_a_full_segment_that_will_not_close_is_let_go(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.syncer.want_next()
    scene.turn()
    following = scene.syncer.take_next()
    assert following is not None
    scene.chain.roll(following, "size")
    del scene.disk.fds[segment_fd := scene.syncer._files[0].fd]
    os.close(segment_fd)
    scene.write("a", urgent=True)
    with mock.patch.object(FaultyDisk, "close", side_effect=broken()):
        scene.turn()
    assert scene.told.reports == [("synced", scene.chain.written_bytes)]
    assert "segment 1" in caplog.text


def test_what_lines_rest_on_is_on_the_disk_before_them(scene: Scene) -> None:
    done: list[int] = []
    scene.syncer.before_sync = lambda: done.append(len(scene.disk.calls))
    scene.write("a")
    before = len(scene.disk.calls)
    assert scene.turn() == ["sync"]
    assert done == [before]


def test_what_lines_rest_on_and_cannot_be_synced_fails_them(scene: Scene) -> None:
    def fail() -> None:
        raise OSError(errno.EIO, "no key")

    scene.syncer.before_sync = fail
    scene.write("a", urgent=True)
    assert scene.turn() == [], "no line before its key"
    assert [report[0] for report in scene.told.reports] == ["failed"]
    scene.syncer.before_sync = lambda: None
    scene.turn()
    assert scene.told.reports[-1] == ("healed", scene.chain.written_bytes)


def test_a_segment_that_is_taken_during_a_round_is_not_made_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.syncer.prepare_bytes = 1
    scene.turn_with("a")
    sync = scene.disk.sync

    def taken_meanwhile(fd: int) -> None:
        sync(fd)
        following = scene.syncer.take_next()
        assert following is not None
        scene.chain.roll(following, "size")  # its first line comes with the loop's next write, a moment later

    scene.write("b")
    monkeypatch.setattr(scene.disk, "sync", taken_meanwhile)
    scene.turn()
    monkeypatch.setattr(scene.disk, "sync", sync)
    assert scene.syncer.take_next() is None
    scene.turn_with("c")
    following = scene.syncer.take_next()
    assert following is not None
    assert (scene.chain.file.number, following.number) == (2, 3)
