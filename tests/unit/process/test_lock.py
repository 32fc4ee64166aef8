"""One owner per state_dir, told by name; the lock outlives neither its file nor its owner's processes."""

import fcntl
import os
from pathlib import Path

import pytest

from gateway.process.lock import StateLock
from gateway.process.settings import StartError


def test_the_directory_is_made_private_and_the_file_names_its_owner(tmp_path: Path) -> None:
    lock = StateLock.acquire(tmp_path / "deep" / "state", 0)
    assert (tmp_path / "deep" / "state").stat().st_mode & 0o777 == 0o700
    assert lock.path.read_text() == f"{os.getpid()}\n"
    lock.release()
    assert list((tmp_path / "deep" / "state").iterdir()) == []
    StateLock.acquire(tmp_path / "deep" / "state", 0).release()


def test_a_living_owner_is_named_at_once(tmp_path: Path) -> None:
    lock = StateLock.acquire(tmp_path, 0)
    lock.path.write_text("1\n")  # somebody who surely lives
    with pytest.raises(StartError, match="in use by the gateway with pid 1: stop it"):
        StateLock.acquire(tmp_path, 60)
    lock.release()


@pytest.mark.parametrize(
    "owner", ["999999999", "9" * 30, "\xb2", "nobody"], ids=["no pid", "too long", "odd", "a word"]
)
def test_the_orphans_of_a_dead_owner_are_waited_for_as_long_as_told(tmp_path: Path, owner: str) -> None:
    lock = StateLock.acquire(tmp_path, 0)
    lock.path.write_text(f"{owner}\n")  # the first is beyond any pid_max
    with pytest.raises(StartError, match="in use"):
        StateLock.acquire(tmp_path, 0)
    lock.release()


def test_a_file_unlinked_between_open_and_lock_guards_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock
    calls: list[int] = []

    def flock(fd: int, operation: int) -> None:
        if not calls:
            (tmp_path / "lock").unlink()  # the previous owner leaves just now
        calls.append(fd)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = StateLock.acquire(tmp_path, 0.5)
    assert len(calls) == 2
    assert lock.path.stat().st_ino == os.fstat(lock.fd).st_ino
    lock.release()


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="give one this user may write to"):
        StateLock.acquire(tmp_path / "file" / "state", 0)


def test_an_upgrade_keeps_the_lock_or_moves_with_the_config(tmp_path: Path) -> None:
    lock = StateLock.acquire(tmp_path / "old", 0)
    same = StateLock.inherited(tmp_path / "old", lock.fd, str(lock.path))
    assert same.fd == lock.fd
    moved = StateLock.inherited(tmp_path / "new", lock.fd, str(lock.path))
    assert moved.path == tmp_path / "new" / "lock"
    StateLock.acquire(tmp_path / "old", 0.5).release()
    moved.release()
