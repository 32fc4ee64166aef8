"""A chain that nobody writes goes on by itself, under its lock, whole at every step, and then ages like any other."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.control import inventory
from gateway.control.expiry import Expiry, RetentionSettings, Standing
from gateway.control.idle import OPENED_BY, REST_S, IdleChains
from gateway.control.notary import Notary
from gateway.journal import layout
from gateway.journal.disk import Disk
from gateway.journal.read import Place, entries
from gateway.journal.signing import load_signer, public_keys
from gateway.journal.verify import verify
from gateway.record import Kind, Record
from gateway.units import US_PER_S
from tests.fakes.written_journal import WrittenJournal

DAY_US = int(REST_S) * US_PER_S
NOW_US = 4_000_000_000 * US_PER_S  # later than any clock that these tests run under
MOST_STEPS = 100


class Scene:
    """A journal with one abandoned chain, signed."""

    def __init__(self, directory: Path) -> None:
        self.journal = WrittenJournal(directory)
        self.signing = layout.signing_of(directory)
        self.journal.chain("w0").segment(DAY_US, Record(Kind.OUTCOME, "x", DAY_US))
        self.sign()

    def sign(self) -> None:
        notary = Notary(self.journal.path, self.signing, lambda: NOW_US)
        notary.turn()
        notary.close()

    def idle(self, now_us: int = NOW_US, segment_s: float = 1, disk: Disk | None = None) -> IdleChains:
        return IdleChains(self.journal.path, "eu", segment_s, lambda: load_signer(self.signing), lambda: now_us, disk)

    def check(self, segments: list[int]) -> None:
        """These segments hold something, and everything is in order."""
        stock = inventory.take(self.journal.path).chains["w0"]
        assert [segment.number for segment in stock if segment.bytes] == segments
        self.sign()
        report = verify(self.journal.path, public_keys(self.signing), pause=lambda _: None)
        assert (report.findings, report.unsigned) == ([], 0)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_chain_that_rests_goes_on(scene: Scene) -> None:
    idle = scene.idle()
    idle.turn()
    scene.check([1, 2])
    first = inventory.first_line(scene.journal.path, "w0", 2)
    assert first is not None
    assert (first.seq, first.record.region, f'"opened_by": "{OPENED_BY}"' in first.record.detail) == (2, "eu", True)
    assert idle.begun == 1
    scene.idle().turn()
    scene.check([1, 2, 3])


@pytest.mark.parametrize(("now_us", "segment_s"), [(2 * DAY_US, 1), (9 * DAY_US, 8 * REST_S), (DAY_US - 1, 1)])
def test_one_that_was_written_lately_does_not(scene: Scene, now_us: int, segment_s: float) -> None:
    scene.idle(now_us, segment_s).turn()
    scene.check([1])
    scene.idle(now_us + DAY_US, segment_s).turn()
    assert (len(layout.segments(scene.journal.path, "w0")) == 2) == (now_us >= 2 * DAY_US)


def test_nor_one_that_somebody_has_nor_controls_own(scene: Scene) -> None:
    scene.journal.chain("control").segment(DAY_US)
    fd = os.open(scene.journal.path / "w0" / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    idle = scene.idle()
    idle.turn()
    os.close(fd)
    scene.check([1])
    assert layout.segments(scene.journal.path, "control") == [1]
    assert idle.begun == 0


def test_an_empty_chain_stays_empty(scene: Scene) -> None:
    (scene.journal.path / "w9").mkdir()
    layout.segment_path(scene.journal.path, "w9", 1).touch()
    scene.idle().turn()
    assert inventory.take(scene.journal.path).chains["w9"][0].bytes == 0


def test_a_segment_made_ahead_is_used(scene: Scene) -> None:
    layout.segment_path(scene.journal.path, "w0", 2).touch()
    scene.idle().turn()
    scene.check([1, 2])


def test_half_a_line_is_repaired_on_the_way(scene: Scene) -> None:
    path = scene.journal.chain("w0").path
    with path.open("ab") as file:
        file.write(b'{"seq":2,"half')
    os.utime(path, ns=(0, DAY_US * 1000))
    scene.idle().turn()
    repaired = [entry for entry in entries(scene.journal.path, "w0") if entry.record.action == "repaired"]
    assert len(repaired) == 1
    scene.check(layout.segments(scene.journal.path, "w0"))


def test_it_ages_like_any_other_then(scene: Scene) -> None:
    scene.idle().turn()
    scene.sign()
    settings = RetentionSettings(10**12, 30)
    standing = Standing(NOW_US, settings, {"w0": Place(2, 10)}, {}, ())
    plan = Expiry(scene.journal.path).plan(inventory.take(scene.journal.path), standing)
    assert [drop.segment.name for drop in plan.drops] == ["w0/1"]


# --- what fails -----------------------------------------------------------------------------------------------------


class FailingDisk(Disk):
    """The nth call fails, or ends the process."""

    def __init__(self, nth: int, effect: BaseException) -> None:
        self.left = nth
        self._effect = effect
        self.open_fds: set[int] = set()

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise self._effect

    def create(self, path: Path) -> int:
        self._step()
        fd = super().create(path)
        self.open_fds.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.open_fds.discard(fd)
        super().close(fd)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self._step()
        taken = super().pwrite(fd, data[: len(data) // 2] if len(data) > 1 else data, offset)
        self._step()
        return taken

    def sync(self, fd: int) -> None:
        self._step()
        super().sync(fd)

    def sync_dir(self, path: Path) -> None:
        self._step()
        super().sync_dir(path)


@pytest.mark.parametrize("effect", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_whatever_fails_the_chain_is_whole_and_goes_on_next_time(tmp_path: Path, effect: BaseException) -> None:
    for nth in range(1, MOST_STEPS):
        (tmp_path / str(nth)).mkdir()
        scene = Scene(tmp_path / str(nth))
        disk = FailingDisk(nth, effect)
        idle = scene.idle(disk=disk)
        with suppress(KeyboardInterrupt):
            idle.turn()
        assert disk.open_fds == set(), "the lock as well is given back"
        if disk.left > 0:
            break
        scene.idle().turn()
        scene.check(layout.segments(scene.journal.path, "w0"))
        assert layout.segments(scene.journal.path, "w0")[:2] == [1, 2]
    else:
        raise AssertionError("there were more steps than this test takes")
    assert nth > 5


def test_what_cannot_be_done_is_said_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.journal.chain("w1").segment(DAY_US)
    scene.journal.chain("w1").path.write_bytes(scene.journal.chain("w0").path.read_bytes())

    idle = scene.idle()
    idle.turn()
    idle.turn()
    (said,) = caplog.records
    assert "chain w1, which nobody writes" in said.getMessage()
    assert idle.begun == 2, "and the others go on: by this clock once a turn"
