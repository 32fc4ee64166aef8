"""The file sink beyond its contract: crashes, full disks, rotation by us and by others, and who may write and read."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from unittest import mock

import pytest

from gateway.control.sinks import file
from gateway.control.sinks.base import SinkError
from gateway.control.sinks.file import FileSink
from tests.unit.control.sinks.scenes import failing_writes

NOON: Final = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
BIG: Final = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def sent(path: Path, *lines: bytes, rotate_bytes: int = BIG) -> None:
    """What one process does."""
    sink = FileSink(path, rotate_bytes, lambda: NOON)
    sink.send(lines)
    sink.close()


def all_files(path: Path) -> list[bytes]:
    """Contents in the order they were written."""
    old = sorted(path.parent.glob(f"{path.name}.*"))
    return [found.read_bytes() for found in [*old, path]]


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# --- crashes and full disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"n":2', b"x" * 3_000_000, b"{"])
@pytest.mark.parametrize("before", [b"", b'{"n":1}\n', b'{"n":0}\n{"n":1}\n'])
def test_half_a_line_of_a_killed_process_is_cut_off(path: Path, before: bytes, torn: bytes) -> None:
    path.write_bytes(before + torn)
    sent(path, b'{"n":2}')
    assert path.read_bytes() == before + b'{"n":2}\n'


def test_a_whole_end_is_left_alone(path: Path) -> None:
    path.write_bytes(b'{"n":1}\n')
    with mock.patch.object(os, "ftruncate", side_effect=AssertionError):
        sent(path, b'{"n":2}')
    assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'


def test_a_full_disk_leaves_whole_lines_and_the_next_try_goes_on(path: Path) -> None:
    sink = FileSink(path, BIG)
    sink.send([b'{"n":0}'])
    with failing_writes(1, errno.ENOSPC), pytest.raises(SinkError, match="No space left"):
        sink.send([b'{"n":1}', b'{"n":2}', b'{"n":3}'])
    assert path.read_bytes() == b'{"n":0}\n{"n":1}\n'
    sink.send([b'{"n":1}', b'{"n":2}'])
    sink.close()
    assert path.read_bytes() == b'{"n":0}\n{"n":1}\n{"n":1}\n{"n":2}\n'


def test_what_cannot_be_repaired_now_is_repaired_at_the_next_opening(path: Path) -> None:
    sink = FileSink(path, BIG)
    broken = mock.patch.object(os, "ftruncate", side_effect=OSError(errno.EIO, "broken"))
    with failing_writes(1, errno.EIO), broken, pytest.raises(SinkError):
        sink.send([b'{"number":1}'])
    assert path.read_bytes() == b'{"numb'
    sink.send([b'{"number":1}'])
    sink.close()
    assert path.read_bytes() == b'{"number":1}\n'


def test_a_batch_whose_sync_failed_is_written_again(path: Path) -> None:
    sink = FileSink(path, BIG)
    sink.send([b'{"n":0}'])
    with mock.patch.object(os, "fsync", side_effect=OSError(errno.EIO, "broken")), pytest.raises(SinkError):
        sink.send([b'{"n":1}'])
    assert path.read_bytes() == b'{"n":0}\n', "the kernel may not have kept it, whatever it shows"
    sink.send([b'{"n":1}'])
    sink.close()
    assert path.read_bytes() == b'{"n":0}\n{"n":1}\n'


def test_send_returns_after_the_sync_and_a_new_name_is_synced_too(path: Path) -> None:
    done = list[str]()
    real_fsync, real_write = os.fsync, os.write

    def fsync(fd: int) -> None:
        done.append("sync file" if stat.S_ISREG(os.fstat(fd).st_mode) else "sync directory")
        real_fsync(fd)

    def write(fd: int, data: bytes) -> int:
        done.append("write")
        return real_write(fd, data)

    with mock.patch.object(os, "fsync", fsync), mock.patch.object(os, "write", write):
        sent(path, b"{}")
    assert done[-2:] == ["write", "sync file"]
    assert "sync directory" in done


def test_partial_writes_are_carried_on(path: Path) -> None:
    real = os.write
    with mock.patch.object(os, "write", lambda fd, data: real(fd, bytes(data)[:3])):
        sent(path, b'{"n":1}', b'{"n":2}')
    assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'


# --- where it cannot write ------------------------------------------------------------------------------------------


def test_no_directory_is_said_with_the_path(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "away" / "out", BIG)
    with pytest.raises(SinkError, match="away/out cannot be written: No such file"):
        sink.send([b"{}"])
    (tmp_path / "away").mkdir()
    sink.send([b"{}"])
    sink.close()
    assert (tmp_path / "away" / "out").read_bytes() == b"{}\n"


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        with pytest.raises(SinkError, match=r"is not a file|Is a directory"):
            FileSink(tmp_path / name, BIG).send([b"{}"])


def test_one_process_writes_at_a_time(path: Path) -> None:
    first, second = FileSink(path, BIG), FileSink(path, BIG)
    first.send([b'{"n":1}'])
    with pytest.raises(SinkError, match="another process"):
        second.send([b'{"n":2}'])
    first.close()
    second.send([b'{"n":2}'])
    second.close()
    assert path.read_bytes() == b'{"n":1}\n{"n":2}\n'


def test_a_failed_opening_leaves_no_descriptor(path: Path) -> None:
    holder = FileSink(path, BIG)
    holder.send([b"{}"])
    sink, before = FileSink(path, BIG), descriptors()
    for _ in range(3):
        with pytest.raises(SinkError):
            sink.send([b"{}"])
    assert descriptors() == before
    holder.close()


def test_the_file_is_private(path: Path) -> None:
    sent(path, b"{}", rotate_bytes=1)
    sent(path, b"{}", rotate_bytes=1)
    for found in path.parent.iterdir():
        assert stat.S_IMODE(found.stat().st_mode) == 0o600


def test_a_mode_the_operator_chose_stays(path: Path) -> None:
    path.touch(0o640)
    path.chmod(0o640)
    sent(path, b"{}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# --- rotation -------------------------------------------------------------------------------------------------------


def test_a_file_is_put_aside_before_it_outgrows_its_size(path: Path) -> None:
    sink = FileSink(path, 20, lambda: NOON)
    for number in range(5):
        sink.send([b'{"n":%d}' % number])  # 8 bytes each with the newline
    sink.close()
    assert all_files(path) == [b'{"n":0}\n{"n":1}\n', b'{"n":2}\n{"n":3}\n', b'{"n":4}\n']
    assert sorted(found.name for found in path.parent.iterdir()) == [
        "out.jsonl", "out.jsonl.20261121T120000.000000Z", "out.jsonl.20261121T120000.000001Z",
    ]  # fmt: skip


def test_a_batch_larger_than_that_goes_into_one_file(path: Path) -> None:
    sent(path, b"1" * 50, b"2" * 50, rotate_bytes=20)
    assert [len(content) for content in all_files(path)] == [102]


def test_nothing_is_overwritten(path: Path) -> None:
    (path.parent / "out.jsonl.20261121T120000.000000Z").symlink_to("nowhere")
    sent(path, b"1", rotate_bytes=1)
    sent(path, b"2", rotate_bytes=1)
    assert (path.parent / "out.jsonl.20261121T120000.000000Z").is_symlink()
    assert (path.parent / "out.jsonl.20261121T120000.000001Z").read_bytes() == b"1\n"


def test_killed_between_putting_aside_and_beginning(path: Path) -> None:
    sent(path, b"1")
    sink = FileSink(path, 1, lambda: NOON)
    with mock.patch.object(FileSink, "_let_go", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        sink.send([b"2"])
    assert not path.exists()
    sink.close()
    sent(path, b"2")
    assert all_files(path) == [b"1\n", b"2\n"]


def test_behind_a_link_the_file_is_put_aside_and_not_the_link(path: Path) -> None:
    volume = path.parent / "volume"
    volume.mkdir()
    path.symlink_to(volume / "data")
    sent(path, b"1", rotate_bytes=1)
    sent(path, b"2", rotate_bytes=1)
    assert path.is_symlink()
    assert (volume / "data").read_bytes() == b"2\n"
    assert (volume / "data.20261121T120000.000000Z").read_bytes() == b"1\n"


@contextmanager
def open_sink(path: Path) -> Iterator[FileSink]:
    sink = FileSink(path, BIG)
    sink.send([b"1"])
    yield sink
    sink.close()


def test_moved_away_by_logrotate(path: Path) -> None:
    with open_sink(path) as sink:
        path.rename(path.with_suffix(".1"))
        sink.send([b"2"])
        path.rename(path.with_suffix(".2"))
        path.touch()
        sink.send([b"3"])
    assert [path.with_suffix(end).read_bytes() for end in (".1", ".2", ".jsonl")] == [b"1\n", b"2\n", b"3\n"]


def test_deleted(path: Path) -> None:
    with open_sink(path) as sink:
        path.unlink()
        sink.send([b"2"])
    assert path.read_bytes() == b"2\n"


def test_emptied_in_place(path: Path) -> None:
    with open_sink(path) as sink:
        os.truncate(path, 0)
        sink.send([b"2"])
    assert path.read_bytes() == b"2\n", "no hole where the old content was"


# --- closing --------------------------------------------------------------------------------------------------------


def test_close_lets_a_write_finish(path: Path) -> None:
    sink, writing, go_on = FileSink(path, BIG), threading.Event(), threading.Event()
    real = os.write

    def write(fd: int, data: bytes) -> int:
        writing.set()
        assert go_on.wait(10)
        return real(fd, data)

    with mock.patch.object(os, "write", write):
        sender = threading.Thread(target=sink.send, args=([b"{}"],))
        sender.start()
        assert writing.wait(10)
        closer = threading.Thread(target=sink.close)
        closer.start()
        go_on.set()
        sender.join(10)
        closer.join(10)
    assert path.read_bytes() == b"{}\n"


def test_looking_for_the_last_newline_takes_any_distance(path: Path) -> None:
    for chunk in (1, 2, 7, 8, 9):
        path.write_bytes(b'{"n":1}\n' + b"y" * 20)
        with mock.patch.object(file, "_CHUNK_BYTES", chunk):
            sent(path, b"2")
        assert path.read_bytes() == b'{"n":1}\n2\n'
