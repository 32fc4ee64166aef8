"""A revocation is on disk when `add` returns, and every reader sees it at its next look."""

import os
import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.config.revocations import Revocations


def test_what_one_process_adds_another_polls(tmp_path: Path) -> None:
    reader = Revocations(tmp_path)
    assert not reader.poll()
    assert reader.read() == set()
    Revocations(tmp_path).add("a", 1)
    assert reader.changed()
    assert reader.poll()
    assert reader.ids == {"a"}
    assert not reader.changed()
    assert not reader.poll()


def test_the_file_is_private_and_readable_by_people(tmp_path: Path) -> None:
    revocations = Revocations(tmp_path / "state")
    revocations.add("a", 17)
    assert stat.S_IMODE(revocations.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(revocations.path.parent.stat().st_mode) == 0o700
    assert revocations.path.read_text() == '{"key":"a","at_ms":17}\n'


def test_when_each_key_was_revoked_first(tmp_path: Path) -> None:
    revocations = Revocations(tmp_path)
    assert revocations.times_ms() == {}
    for key_id, at_ms in (("a", 1), ("b", 2), ("a", 3)):
        revocations.add(key_id, at_ms)
    with revocations.path.open("ab") as file:
        file.write(b'rubbish\n{"key":"torn","at_ms":4}')
    assert revocations.times_ms() == {"a": 1, "b": 2}


def test_a_torn_write_revokes_nothing_and_is_repaired_by_the_next(tmp_path: Path) -> None:
    reader = Revocations(tmp_path)
    reader.path.write_text('{"key":"a","at_ms":1}\n{"key":"b","at')
    assert reader.read() == {"a"}
    assert not reader.changed()  # until somebody writes again
    Revocations(tmp_path).add("c", 2)
    assert reader.read() == {"a", "c"}
    assert reader.unreadable == 1


def test_a_disk_with_room_for_half_a_line_revokes_nothing_and_says_so(tmp_path: Path) -> None:
    revocations = Revocations(tmp_path)
    revocations.add("a", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (revocations.path.stat().st_size + 9, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            revocations.add("b", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    revocations.add("c", 3)
    assert Revocations(tmp_path).read() == {"a", "c"}


@pytest.mark.parametrize("damaged", [b'{"key":"\xff","at_ms":1}', b'{"key":"b","x":' + b"[" * 50_000, b"rubbish"])
def test_a_damaged_line_hides_no_other(tmp_path: Path, damaged: bytes) -> None:
    reader = Revocations(tmp_path)
    reader.path.write_bytes(b'{"key":"a","at_ms":1}\n%b\n{"key":"c","at_ms":1}\n' % damaged)
    assert reader.read() == {"a", "c"}
    assert reader.unreadable == 1


def test_an_id_once_seen_stays_revoked_while_the_process_runs(tmp_path: Path) -> None:
    reader = Revocations(tmp_path)
    Revocations(tmp_path).add("a", 1)
    reader.poll()
    reader.path.unlink()
    assert not reader.poll()
    Revocations(tmp_path).add("b", 2)
    assert reader.poll()
    assert reader.ids == {"a", "b"}


def test_a_file_that_came_back_is_read_whole_though_it_looks_like_the_one_before(tmp_path: Path) -> None:
    reader = Revocations(tmp_path)
    reader.path.write_text('{"key":"a","at_ms":1}\n')
    reader.poll()
    for text in ('{"key":"b","at_ms":1}\n', '{"key":"long","at_ms":1}\n{"key":"c","at_ms":1}\n'):
        inode = reader.path.stat().st_ino
        reader.path.write_text(text)  # same inode, and at first the same size
        os.utime(reader.path, ns=(0, len(text)))
        assert reader.path.stat().st_ino == inode
        assert reader.poll()
    assert reader.ids == {"a", "b", "long", "c"}


def test_a_file_that_was_replaced_or_shortened_is_read_from_its_start(tmp_path: Path) -> None:
    reader = Revocations(tmp_path)
    for name in ("a", "b"):
        Revocations(tmp_path).add(name, 1)
    reader.poll()
    reader.path.write_text('{"key":"c","at_ms":1}\n')
    assert reader.poll()
    assert reader.ids == {"a", "b", "c"}


def test_an_unreadable_file_is_an_error_and_not_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "revocations").mkdir()
    with pytest.raises(IsADirectoryError):
        Revocations(tmp_path).read()


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    def add_many(name: str) -> None:
        for number in range(20):
            Revocations(tmp_path).add(f"{name}{number}", number)  # a descriptor, and so a lock, of its own

    with ThreadPoolExecutor() as pool:
        list(pool.map(add_many, "abcd"))
    reader = Revocations(tmp_path)
    assert reader.read() == {f"{name}{number}" for name in "abcd" for number in range(20)}
    assert reader.unreadable == 0
