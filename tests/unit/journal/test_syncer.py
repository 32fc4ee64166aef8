"""Rounds on a loop that is turned by hand: when they begin, who makes them, and what is on the disk when they end."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from gateway.journal.chain import Chain, Origin, SegmentFile
from gateway.journal.line import genesis
from gateway.journal.syncer import MAX_RETRY_S, Syncer
from tests.fakes.disk import Fault, FaultyDisk, HandSyncs, broken, no_space, unsupported
from tests.fakes.handloop import HandLoop
from tests.fakes.journal_writer import NODE, content, segment

SYNC_S = 0.005
BY_KERNEL = ["begin", "synced"]


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


class Footing:
    """What lines rest on."""

    def __init__(self) -> None:
        self.unsynced = False
        self.sync: Callable[[], None] = mock.Mock()


class Scene:
    """A chain with its first line on the disk."""

    def __init__(self, journal: Path, *, kernel: bool = True) -> None:
        self.disk = FaultyDisk(kernel=kernel)
        self.journal = journal
        (journal / "w0").mkdir()
        lock = self.disk.create(journal / "w0" / "lock")
        file = SegmentFile(self.disk.create(segment(journal, 1)), 1)
        self.chain = Chain(self.disk, journal, Origin(NODE, "eu", "w0"), lock, file, 0, genesis(NODE, "w0"))
        self.chain.keep_bytes = 1_000_000
        self.told = Told()
        self.loop = HandLoop()
        self.footing = Footing()
        self.syncer = Syncer(self.chain, SYNC_S, self.told)
        self.syncer.footing = self.footing
        self.syncer.prepare_bytes = 1 << 30
        self.syncer.start(self.loop.real())
        self.write("first")
        self.round()
        self.told.reports.clear()

    def write(self, text: str, *, urgent: bool = False) -> None:
        self.chain.write([content(text)])
        self.syncer.written(urgent=urgent)

    def round(self) -> list[str]:
        """Let the round that is due begin, and end it; the calls it made."""
        before = len(self.disk.calls)
        self.loop.advance(self.syncer.sync_s)
        while self.loop.elsewhere():
            self.loop.settle()
        return self.disk.calls[before:]

    def fail(self, *names: str, what: Callable[[], Fault] = broken) -> None:
        """From now on these calls fail."""
        self.disk.fault = lambda name, _: what() if name in names else None

    def heal(self) -> None:
        self.disk.fault = lambda _name, _: None

    def roll(self) -> SegmentFile:
        """Go on in the next segment, which is ready; returns the old one."""
        old, following = self.chain.file, self.syncer.take_next()
        assert following is not None
        self.chain.roll(following, "size")
        return old

    def kernel(self) -> HandSyncs | None:
        kernel = self.syncer._kernel
        assert kernel is None or isinstance(kernel, HandSyncs)
        return kernel

    def stop(self) -> None:
        self.loop.run(self.syncer.drain())
        self.syncer.close()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture(params=[True, False], ids=["kernel", "thread"])
def either(tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    return Scene(tmp_path, kernel=request.param)


def synced(scene: Scene) -> list[str]:
    """The calls of a plain round."""
    return BY_KERNEL if scene.disk.kernel else ["sync"]


# --- when -----------------------------------------------------------------------------------------------------------


def test_a_round_begins_when_more_had_time_to_come(either: Scene) -> None:
    before = len(either.disk.calls)
    either.write("a")
    either.loop.advance(SYNC_S * 0.9)
    either.write("b")
    assert not either.loop.elsewhere()
    either.loop.advance(SYNC_S * 0.2)
    assert either.loop.elsewhere()
    assert either.told.reports == [], "the loop has not heard yet"
    either.loop.settle()
    assert either.disk.calls[before:] == ["pwrite", "pwrite", *synced(either)]
    assert either.told.reports == [("synced", either.chain.written_bytes)]
    assert either.chain.file.synced == either.chain.file.size
    assert either.round() == [], "nothing is left to do"


def test_a_round_begins_at_once_when_somebody_waits(either: Scene) -> None:
    either.write("a")
    either.write("b", urgent=True)
    assert either.loop.elsewhere()
    either.loop.settle()
    assert either.told.reports == [("synced", either.chain.written_bytes)]
    assert either.round() == [], "and the one that was due is not needed"


def test_what_is_written_during_a_round_is_for_the_next(scene: Scene) -> None:
    scene.write("a", urgent=True)
    position, size = scene.chain.written_bytes, scene.chain.file.size
    scene.write("b", urgent=True)
    assert scene.loop.elsewhere()
    assert not scene.loop.elsewhere(), "one at a time"
    scene.loop.settle()
    assert scene.told.reports == [("synced", position)]
    assert scene.chain.file.synced == size
    assert scene.loop.elsewhere(), "which begins at once"
    scene.loop.settle()
    assert scene.told.reports[1:] == [("synced", scene.chain.written_bytes)]


def test_a_sync_that_never_ends_promises_nothing_and_is_alone(scene: Scene) -> None:
    for text in ("a", "b", "c"):
        scene.write(text, urgent=True)
        scene.loop.advance(1_000.0)
    assert scene.told.reports == []
    assert scene.disk.calls[-3:].count("begin") == 1
    assert scene.chain.file.synced < scene.chain.file.size


def test_after_a_failure_it_is_tried_again_later_and_later(either: Scene) -> None:
    either.fail("sync", "synced")
    either.write("a", urgent=True)
    assert either.loop.elsewhere()
    either.loop.settle()
    waits = []
    for _ in range(6):
        either.syncer.written(urgent=True)
        begun_s = either.loop.now_s
        while not either.loop.elsewhere():
            either.loop.advance(0.01)
        either.loop.settle()
        waits.append(round(either.loop.now_s - begun_s, 1))
    assert waits == [0.2, 0.4, 0.8, 1.6, MAX_RETRY_S, MAX_RETRY_S]
    assert either.syncer.failures == 7


# --- what is on the disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["sync", "synced"])
def test_after_a_failed_sync_the_same_bytes_are_written_again(tmp_path: Path, call: str) -> None:
    scene = Scene(tmp_path, kernel=call == "synced")
    scene.write("a")
    scene.fail(call)
    assert scene.round() == synced(scene)
    data = segment(scene.journal, 1).read_bytes()
    with segment(scene.journal, 1).open("r+b") as file:
        file.seek(data.index(b'{"seq":2,'))
        file.write(bytes(20))
    scene.heal()
    scene.loop.advance(1.0)
    assert scene.round() == ["pwrite", "sync"], "by the thread, whoever failed"
    assert segment(scene.journal, 1).read_bytes() == data
    assert scene.told.reports == [("failed", 5), ("healed", len(data))]
    assert (scene.syncer.failures, scene.syncer.failed) == (1, False)
    scene.write("b")
    assert scene.round() == synced(scene), "and then as before"


def test_what_was_written_while_a_sync_failed_is_written_again_too(scene: Scene) -> None:
    scene.write("a", urgent=True)
    scene.fail("synced")
    scene.write("b")
    assert scene.loop.elsewhere()
    scene.loop.settle()
    scene.heal()
    scene.loop.advance(1.0)
    assert scene.round() == ["pwrite", "pwrite", "sync"]
    assert scene.chain.file.synced == scene.chain.file.size


def test_what_lines_rest_on_is_on_the_disk_before_them(either: Scene) -> None:
    done: list[list[str]] = []
    either.footing.unsynced = True
    either.footing.sync = lambda: done.append(list(either.disk.calls))
    either.write("a")
    before = list(either.disk.calls)
    assert either.round() == ["sync"], "in the thread"
    assert done == [before]
    either.footing.unsynced = False
    either.write("b")
    assert either.round() == synced(either)


def test_what_lines_rest_on_and_cannot_be_synced_fails_them(either: Scene) -> None:
    either.footing.unsynced = True
    either.footing.sync = mock.Mock(side_effect=broken())
    either.write("a", urgent=True)
    assert either.round() == [], "no line before its key"
    assert either.told.reports == [("failed", 5)]
    either.footing.sync = mock.Mock()
    either.loop.advance(1.0)
    either.round()
    assert either.told.reports[-1] == ("healed", either.chain.written_bytes)


# --- segments -------------------------------------------------------------------------------------------------------


def test_the_next_segment_is_made_ahead_and_the_full_one_closed_when_synced(either: Scene) -> None:
    either.syncer.prepare_bytes = either.chain.file.size + 1
    assert either.syncer.take_next() is None
    either.write("a")
    assert either.round() == ["sync", "create", "sync_dir"]
    either.write("b")
    old = either.roll()
    either.write("c", urgent=True)
    assert either.round() == ["sync", "sync"]
    assert old.fd not in either.disk.fds
    assert either.told.reports[-1] == ("synced", either.chain.written_bytes)
    either.syncer.prepare_bytes = 1 << 30
    either.write("d")
    assert either.round() == synced(either)


def test_the_next_segment_waits_until_all_before_it_are_synced(either: Scene) -> None:
    either.syncer.want_next()
    either.write("a")
    either.fail("sync")
    assert either.round() == ["sync"]
    either.heal()
    either.loop.advance(1.0)
    assert either.round() == ["pwrite", "sync", "create", "sync_dir"]


def test_a_segment_that_was_synced_before_the_next_one_failed_is_not_synced_again(either: Scene) -> None:
    either.syncer.want_next()
    either.round()
    either.write("a")
    either.roll()
    either.write("b", urgent=True)
    calls: list[str] = []

    def second_fails(name: str, _number: int) -> Fault | None:
        calls.append(name)
        return broken() if calls == ["sync", "sync"] else None

    either.disk.fault = second_fails
    assert either.round() == ["sync", "sync"]
    either.loop.advance(1.0)
    assert either.round() == ["pwrite", "sync"]


@pytest.mark.parametrize("step", ["create", "sync_dir"])
def test_a_segment_that_cannot_be_made_is_tried_again_later(
    either: Scene, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    either.syncer.want_next()
    either.fail(step, what=no_space)
    either.round()
    assert either.syncer.take_next() is None
    either.heal()
    either.write("a")
    assert either.round() == synced(either), "not yet"
    monkeypatch.setattr("gateway.journal.syncer._PREPARE_AGAIN_NS", 0)
    either.syncer._next_not_before_ns = 0
    either.write("b")
    assert either.round() == ["sync", "create", "sync_dir"]
    following = either.syncer.take_next()
    assert following is not None
    assert (following.number, following.size) == (2, 0)
    assert [report[0] for report in either.told.reports] == ["synced"] * 3, "it is no failure of what is written"


def test_a_segment_that_holds_something_is_never_taken(scene: Scene) -> None:
    segment(scene.journal, 2).write_bytes(b"who wrote this?\n")
    scene.syncer.want_next()
    scene.round()
    assert scene.syncer.take_next() is None
    assert segment(scene.journal, 2).read_bytes() == b"who wrote this?\n"


def test_a_segment_that_is_taken_during_a_round_is_not_made_again(scene: Scene) -> None:
    scene.syncer.prepare_bytes = 1
    scene.write("a")
    scene.round()
    scene.write("b")
    scene.loop.advance(SYNC_S)
    scene.roll()
    assert scene.loop.elsewhere()
    scene.loop.settle()
    assert scene.syncer.take_next() is None, "it has no line yet"
    scene.write("c")
    scene.round()
    following = scene.syncer.take_next()
    assert following is not None
    assert (scene.chain.file.number, following.number) == (2, 3)


def test_a_full_segment_that_will_not_close_is_let_go(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.syncer.want_next()
    scene.round()
    old = scene.roll()
    del scene.disk.fds[old.fd]
    os.close(old.fd)
    scene.write("a", urgent=True)
    with mock.patch.object(FaultyDisk, "close", side_effect=broken()):
        scene.round()
    assert scene.told.reports[-1] == ("synced", scene.chain.written_bytes)
    assert "segment 1" in caplog.text
    assert scene.syncer._files == [scene.chain.file]


# --- without the kernel ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["begin", "synced"])
def test_a_kernel_that_makes_no_syncs_is_not_asked_again(
    scene: Scene, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = scene.kernel()
    scene.fail(call, what=unsupported)
    scene.write("a", urgent=True)
    tried = scene.round()[-2:]
    # What it says of a sync that has ended may be all that a file system says of bytes which are lost.
    assert tried == (["sync"] if call == "begin" else ["pwrite", "sync"])
    assert scene.told.reports == [("synced", scene.chain.written_bytes)]
    assert (scene.syncer.failures, scene.syncer.by_thread, scene.kernel()) == (0, True, None)
    assert kernel is not None
    assert kernel.closed
    scene.heal()
    for text in ("b", "c"):
        scene.write(text)
        assert scene.round() == ["sync"]
    assert caplog.text.count("the kernel makes no syncs by itself (Invalid argument)") == 1


def test_a_kernel_that_cannot_at_the_moment_is_asked_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.fail("begin", what=lambda: BlockingIOError(11, "not now"))
    scene.write("a")
    assert scene.round() == ["begin", "sync"]
    assert scene.told.reports == [("synced", scene.chain.written_bytes)]
    scene.heal()
    scene.write("b")
    assert (scene.round(), scene.syncer.by_thread, caplog.text) == (BY_KERNEL, False, "")


def test_a_kernel_without_such_syncs_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tmp_path, kernel=False)
    assert scene.syncer.by_thread
    assert caplog.text.count("the kernel makes no syncs by itself") == 1


def test_an_end_that_nothing_began_is_a_defect(scene: Scene) -> None:
    with pytest.raises(RuntimeError, match="nobody began"):
        scene.syncer._kernel_done(None)


def test_a_thread_that_crashes_fails_the_round(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.footing.unsynced = True
    scene.footing.sync = mock.Mock(side_effect=ZeroDivisionError("a defect"))
    scene.write("a", urgent=True)
    scene.round()
    assert scene.told.reports == [("failed", 5)]
    assert "a defect" in caplog.text
    scene.footing.sync = mock.Mock()
    scene.loop.advance(1.0)
    scene.round()
    assert scene.told.reports[-1] == ("healed", scene.chain.written_bytes)


# --- the end --------------------------------------------------------------------------------------------------------


def test_draining_brings_what_is_written_to_the_disk(either: Scene) -> None:
    either.write("a")
    before = len(either.disk.calls)
    either.stop()
    assert either.disk.calls[before:] == ["sync"]
    assert either.chain.file.synced == either.chain.file.size
    either.write("b", urgent=True)
    either.loop.advance(1_000.0)
    assert not either.loop.elsewhere(), "no round begins by itself any more"
    either.loop.run(either.syncer.drain())
    assert either.chain.file.synced == either.chain.file.size


def test_draining_waits_for_the_round_that_goes_on(scene: Scene) -> None:
    kernel = scene.kernel()
    scene.write("a", urgent=True)
    scene.write("b")
    before = len(scene.disk.calls)
    scene.stop()
    assert scene.disk.calls[before:] == ["synced", "sync"]
    assert scene.chain.file.synced == scene.chain.file.size
    assert kernel is not None
    assert kernel.closed


def test_draining_tries_a_failed_sync_once_more(either: Scene) -> None:
    either.write("a")
    failures = [broken()]
    either.disk.fault = lambda name, _: failures.pop() if name == "sync" and failures else None
    before = len(either.disk.calls)
    either.stop()
    assert either.disk.calls[before:] == ["sync", "pwrite", "sync"]
    assert either.chain.file.synced == either.chain.file.size


def test_closing_closes_all_but_the_current_segment(scene: Scene) -> None:
    scene.syncer.want_next()
    scene.round()
    old = scene.roll()
    scene.syncer.want_next()
    scene.round()
    following = scene.syncer._next
    assert following is not None
    scene.write("a")
    scene.stop()
    assert {old.fd, following.fd}.isdisjoint(scene.disk.fds)
    assert scene.chain.file.fd in scene.disk.fds


def test_draining_makes_no_segment(scene: Scene) -> None:
    scene.syncer.want_next()
    before = len(scene.disk.calls)
    scene.stop()
    assert "create" not in scene.disk.calls[before:]


def test_on_a_loop_of_its_own_the_thread_syncs_and_ends(tmp_path: Path) -> None:
    scene = Scene(tmp_path, kernel=False)
    threads: list[str] = []

    def note(name: str, _number: int) -> None:
        if name == "sync":
            threads.append(threading.current_thread().name)

    async def live() -> None:
        told = asyncio.Event()
        scene.syncer._listener = mock.Mock(on_synced=lambda _: told.set())
        scene.syncer.start(asyncio.get_running_loop())
        scene.disk.fault = note
        scene.write("a", urgent=True)
        await told.wait()
        await scene.syncer.drain()
        scene.syncer.close()

    asyncio.run(live())
    assert threads == ["journal-w0_0"]
    assert scene.chain.file.synced == scene.chain.file.size
    assert scene.syncer._thread._shutdown
