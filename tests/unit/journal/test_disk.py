"""Each method is one system call that does what it says."""

import os
from pathlib import Path

import pytest

from gateway.journal.disk import Disk


def test_files(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.create(tmp_path / "a")
    assert disk.pwrite(fd, b"hello", 3) == 5
    assert (disk.size(fd), disk.pread(fd, 100, 2), disk.pread(fd, 1, 8)) == (8, b"\0hello", b"")
    disk.truncate(fd, 4)
    disk.sync(fd)
    disk.close(fd)
    again = disk.create(tmp_path / "a")
    assert disk.pread(again, 100, 0) == b"\0\0\0h"
    assert os.fstat(again).st_mode & 0o777 == 0o600
    disk.close(again)
    with pytest.raises(OSError):
        disk.size(again)


def test_directories_and_names(tmp_path: Path) -> None:
    disk = Disk()
    for _ in range(2):
        disk.make_dir(tmp_path / "d")
    disk.close(disk.create(tmp_path / "d" / "a"))
    disk.rename(tmp_path / "d" / "a", tmp_path / "d" / "b")
    disk.sync_dir(tmp_path / "d")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["b"]
    with pytest.raises(NotADirectoryError):
        disk.sync_dir(tmp_path / "d" / "b")


def test_a_lock_ends_with_its_descriptor(tmp_path: Path) -> None:
    disk = Disk()
    one, other = disk.create(tmp_path / "lock"), disk.create(tmp_path / "lock")
    disk.lock(one)
    with pytest.raises(BlockingIOError):
        disk.lock(other)
    disk.close(one)
    disk.lock(other)
    disk.close(other)
