"""Rows on disk: what their bytes are, what a kill, a full disk or a race leaves of them, and which are destroyed."""

import errno
import hashlib
import hmac
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from gateway.journal import keytable
from gateway.journal.keytable import (
    KEY_BYTES,
    ROW_BYTES,
    KeyTable,
    NoSalt,
    Tags,
    UnknownKeyFile,
    count_erasure,
    destroy_rows,
    ensure_salt,
    erasures,
    key_files,
    key_path,
    locked,
    read_key,
    read_salt,
    spent,
)

SALT = bytes(range(32))
TAGS = Tags(SALT)
DAY_US = 86_400 * 1_000_000


def key_of(number: int) -> bytes:
    return bytes([number + 1]) * KEY_BYTES


@pytest.fixture
def table(tmp_path: Path) -> Iterator[KeyTable]:
    made = KeyTable.create(tmp_path, "w0")
    yield made
    made.close()


def filled(table: KeyTable, *people: tuple[str, str, str]) -> list[str]:
    return [table.append(key_of(number) + TAGS.row(*names)) for number, names in enumerate(people)]


def left(directory: Path, ids: list[str]) -> list[int]:
    """Which rows still have their key; one that has another's would be told by an error."""
    keys = [read_key(directory, key_id) for key_id in ids]
    assert all(key in (None, key_of(number)) for number, key in enumerate(keys))
    return [number for number, key in enumerate(keys) if key]


# --- the bytes ------------------------------------------------------------------------------------------------------


def test_a_file_byte_by_byte(tmp_path: Path) -> None:
    def tag(text: bytes, size: int) -> bytes:
        return hmac.new(SALT, text, hashlib.sha256).digest()[:size]

    with mock.patch.object(time, "time_ns", return_value=0x0102030405060708 * 1000):
        table = KeyTable.create(tmp_path, "w12", after=6)
    assert table.append(key_of(0) + TAGS.row("acme", "ann", "")) == "w12-7.1"
    table.close()
    path = tmp_path / "w12-7.keys"
    assert path.read_bytes() == (
        b"gwkeys\x01\x00\x08\x07\x06\x05\x04\x03\x02\x01" + bytes(48)
        + key_of(0) + tag(b"org\0acme", 16) + tag(b"user\0acme\0ann", 8) + bytes(8)
    )  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_user_and_an_end_user_of_one_name_have_one_tag_in_one_org_only() -> None:
    row = TAGS.row("acme", "ann", "ann")
    assert row[16:24] == row[24:32] == TAGS.user("acme", "ann")
    assert TAGS.user("acme", "ann") != TAGS.user("other", "ann")
    assert TAGS.org("") not in {TAGS.org("acme"), bytes(16)}


def test_half_a_character_is_a_name_too() -> None:
    assert TAGS.user("acme", "\ud800") != TAGS.user("acme", "\ud801")


# --- writing and reading --------------------------------------------------------------------------------------------


def test_each_row_is_found_by_its_name(tmp_path: Path, table: KeyTable) -> None:
    ids = filled(table, ("a", "b", "c"), ("a", "", ""), ("", "", "x"))
    assert ids == ["w0-1.1", "w0-1.2", "w0-1.3"]
    assert left(tmp_path, ids) == [0, 1, 2]


@pytest.mark.parametrize(
    "key_id",
    ["", "w0-1.2", "w0-1.0", "w0-1.01", "w0-2.1", "w1-1.1", "w0-1", "w0-1.1 ", "w0-1.-1", "../w0-1.1", "w0-1.\u0661",
     "W0-1.1", "workers-1.1", "w00-1.1", "w0-1.9999999999", "w0-1.99999999999", "\0-1.1"],
)  # fmt: skip
def test_what_names_no_row(tmp_path: Path, table: KeyTable, key_id: str) -> None:
    filled(table, ("a", "b", "c"))
    assert read_key(tmp_path, key_id) is None


def test_a_key_of_zeros_is_none_whatever_stands_behind_it(tmp_path: Path, table: KeyTable) -> None:
    assert read_key(tmp_path, table.append(bytes(KEY_BYTES) + TAGS.row("a", "", ""))) is None


def test_half_a_row_is_none(tmp_path: Path, table: KeyTable) -> None:
    ids = filled(table, ("a", "", ""), ("b", "", ""))
    os.truncate(table.path, 3 * ROW_BYTES - 1)
    assert left(tmp_path, ids) == [0]


def test_a_file_of_no_chain_is_none_of_ours(tmp_path: Path, table: KeyTable) -> None:
    filled(table, ("a", "", ""))
    table.path.rename(tmp_path / "workers-1.keys")
    assert read_key(tmp_path, "workers-1.1") is None


def test_a_file_of_another_version_is_not_guessed_at(tmp_path: Path, table: KeyTable) -> None:
    ids = filled(table, ("a", "", ""))
    with table.path.open("r+b") as file:
        file.write(b"gwkeys\x02")
    assert left(tmp_path, ids) == []


def test_every_file_has_a_number_of_its_own(tmp_path: Path) -> None:
    made = [KeyTable.create(tmp_path, chain, after) for chain, after in [("w0", 0), ("w0", 0), ("w1", 0), ("w0", 8)]]
    (tmp_path / "w0-x.keys").touch()
    (tmp_path / "nobody-1.keys").touch()
    assert [table.number for table in made] == [1, 2, 1, 9]
    assert key_files(tmp_path) == [("w0", 1), ("w0", 2), ("w0", 9), ("w1", 1)]
    for table in made:
        table.close()


# --- a full disk ----------------------------------------------------------------------------------------------------


def test_after_half_a_row_the_next_takes_its_place(tmp_path: Path, table: KeyTable) -> None:
    filled(table, ("a", "", ""))
    real = os.pwrite
    with (
        mock.patch.object(os, "pwrite", lambda fd, row, offset: real(fd, row[:40], offset)),
        pytest.raises(OSError, match="No space left"),
    ):
        table.append(key_of(5) + TAGS.row("b", "", ""))
    assert table.path.stat().st_size == 2 * ROW_BYTES + 40
    assert read_key(tmp_path, "w0-1.2") is None
    assert table.append(key_of(1) + TAGS.row("c", "", "")) == "w0-1.2"
    assert left(tmp_path, ["w0-1.1", "w0-1.2"]) == [0, 1]


def test_a_file_without_room_for_its_header_is_not_left_behind(tmp_path: Path) -> None:
    with mock.patch.object(os, "pwrite", return_value=3), pytest.raises(OSError, match="No space left"):
        KeyTable.create(tmp_path, "w0")
    assert list(tmp_path.iterdir()) == []
    assert not [link for link in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(link)]


# --- syncing --------------------------------------------------------------------------------------------------------


def test_the_file_and_its_name_are_synced_when_there_is_something_new(table: KeyTable) -> None:
    with (
        mock.patch.object(os, "fdatasync") as data,
        mock.patch.object(keytable, "sync_directory") as name,
    ):
        table.sync()
        table.sync()
        assert (data.call_count, name.call_count) == (1, 1)
        filled(table, ("a", "", ""))
        table.sync()
        table.sync()
        assert (data.call_count, name.call_count) == (2, 1)


def test_a_row_appended_during_a_sync_asks_for_another(table: KeyTable) -> None:
    with mock.patch.object(os, "fdatasync", side_effect=lambda _: filled(table, ("a", "", ""))):
        table.sync()
    assert table.unsynced
    with mock.patch.object(os, "fdatasync") as data:
        table.sync()
    data.assert_called_once()
    assert not table.unsynced


def test_a_file_whose_sync_failed_is_never_called_synced_again(table: KeyTable) -> None:
    with mock.patch.object(os, "fdatasync", side_effect=OSError(errno.EIO, "no")), pytest.raises(OSError, match="no"):
        table.sync()
    assert (table.failed, table.unsynced) == (True, True)
    with pytest.raises(OSError, match=r"earlier sync.*w0-1\.keys"):
        table.sync()


# --- the salt -------------------------------------------------------------------------------------------------------


def test_the_salt_is_made_once_and_private(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "sealing"
    salt = ensure_salt(directory)
    assert len(salt) == 32
    assert ensure_salt(directory) == read_salt(directory) == salt
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "salt").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in directory.iterdir()] == ["salt"]


def test_a_new_directory_is_there_after_a_power_cut(tmp_path: Path) -> None:
    with mock.patch.object(keytable, "sync_directory") as synced:
        ensure_salt(tmp_path / "sealing")
    synced.assert_called_once_with(tmp_path)


def test_who_waited_for_the_lock_takes_the_salt_that_came_meanwhile(tmp_path: Path) -> None:
    made = list[bytes]()

    def overtaken(directory: Path) -> object:
        with mock.patch.object(keytable, "locked", locked):
            made.append(ensure_salt(directory))
        return locked(directory)

    with mock.patch.object(keytable, "locked", overtaken):
        assert [ensure_salt(tmp_path)] == made


def test_processes_that_make_it_at_once_agree(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gateway.journal.keytable import ensure_salt\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin: print(ensure_salt(Path(line[:-1])).hex(), flush=True)"
    )
    start = [sys.executable, "-c", program]
    racers = [
        subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(3)
    ]

    def said(racer: "subprocess.Popen[str]") -> str:
        assert racer.stdout is not None
        return racer.stdout.readline()

    assert {said(racer) for racer in racers} == {"ready\n"}
    for number in range(20):
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{tmp_path / str(number)}\n")
        assert {said(racer) for racer in racers} == {read_salt(tmp_path / str(number)).hex() + "\n"}
    for racer in racers:
        racer.communicate(timeout=30)


@pytest.mark.parametrize(
    ("damage", "told"), [(Path.unlink, "missing"), (lambda path: os.truncate(path, 31), "damaged")]
)
def test_beside_key_files_a_lost_salt_is_told_not_replaced(
    tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    ensure_salt(tmp_path)
    KeyTable.create(tmp_path, "w0").close()
    damage(tmp_path / "salt")
    for ask in (ensure_salt, read_salt):
        with pytest.raises(NoSalt, match=f"salt is {told}: bring it back from a backup"):
            ask(tmp_path)


def test_a_kill_before_the_salt_is_in_place_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    with mock.patch.object(os, "fsync", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        ensure_salt(tmp_path)
    assert len(ensure_salt(tmp_path)) == 32


# --- the count of erasures ------------------------------------------------------------------------------------------


def test_each_erasure_changes_what_writers_see_even_if_the_count_was_damaged(tmp_path: Path) -> None:
    seen = [erasures(tmp_path)]
    for _ in range(3):
        count_erasure(tmp_path)
        seen.append(erasures(tmp_path))
    assert seen == [b"", b"1\n", b"2\n", b"3\n"]
    for damaged in (b"\xffrubbish", b"", b"9" * 5000):
        (tmp_path / "erasures").write_bytes(damaged)
        count_erasure(tmp_path)
        assert erasures(tmp_path) == b"1\n"


def test_another_user_than_who_erased_can_read_the_count(tmp_path: Path) -> None:
    count_erasure(tmp_path)
    assert (tmp_path / "erasures").stat().st_mode & 0o777 == 0o644


# --- destroying -----------------------------------------------------------------------------------------------------

PEOPLE = [
    ("acme", "", ""),
    ("acme", "ann", ""),
    ("acme", "bob", "ann"),
    ("acme", "bob", "cat"),
    ("other", "ann", "ann"),
    ("", "ann", ""),
]


@pytest.mark.parametrize("chunk_bytes", [ROW_BYTES, 3 * ROW_BYTES, 1024 * 1024])
@pytest.mark.parametrize(
    ("org", "user", "kept"),
    [
        ("acme", "", [4, 5]),
        ("acme", "ann", [0, 3, 4, 5]),
        ("acme", "bob", [0, 1, 4, 5]),
        ("acme", "nobody", [0, 1, 2, 3, 4, 5]),
        ("other", "", [0, 1, 2, 3, 5]),
        ("", "ann", [0, 1, 2, 3, 4]),
        ("nobody", "ann", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_rows_of_an_org_or_a_user_and_no_others(
    tmp_path: Path, table: KeyTable, chunk_bytes: int, org: str, user: str, kept: list[int]
) -> None:
    ids = filled(table, *PEOPLE)
    user_tag = TAGS.user(org, user) if user else b""
    with mock.patch.object(keytable, "_CHUNK_BYTES", chunk_bytes):
        assert destroy_rows(table.path, TAGS.org(org), user_tag) == len(PEOPLE) - len(kept)
        assert destroy_rows(table.path, TAGS.org(org), user_tag) == 0
    assert left(tmp_path, ids) == kept
    rows = table.path.read_bytes()[ROW_BYTES:]
    gone = [number for number in range(len(PEOPLE)) if not any(rows[number * ROW_BYTES : (number + 1) * ROW_BYTES])]
    assert sorted(gone + kept) == list(range(len(PEOPLE)))


def test_a_tag_in_the_wrong_place_destroys_nothing_and_hides_nothing(tmp_path: Path, table: KeyTable) -> None:
    org, ann = TAGS.org("acme"), TAGS.user("acme", "ann")
    inside = table.append(org + ann + org[:8] + TAGS.row("other", "", ""))  # a key that looks like tags
    across = table.append(b"k" * 32 + TAGS.org("other") + bytes(8) + org[:8])
    table.append(org[8:] + bytes([1]) * 24 + TAGS.row("other", "x", "y"))
    target = table.append(ann * 4 + TAGS.row("acme", "ann", ""))  # found in the key first, though it is behind it
    assert destroy_rows(table.path, org, ann) == 1
    assert destroy_rows(table.path, org) == 0
    assert read_key(tmp_path, target) is None
    assert read_key(tmp_path, inside)
    assert read_key(tmp_path, across)


def test_a_user_in_the_row_behind_one_as_end_user_is_found(tmp_path: Path, table: KeyTable) -> None:
    ids = filled(table, ("acme", "bob", "ann"), ("acme", "ann", ""), ("acme", "ann", "bob"))
    assert destroy_rows(table.path, TAGS.org("acme"), TAGS.user("acme", "ann")) == 3
    assert left(tmp_path, ids) == []


def test_a_writer_that_lives_goes_on_behind_what_was_destroyed(tmp_path: Path, table: KeyTable) -> None:
    ids = filled(table, PEOPLE[0], PEOPLE[4])
    destroy_rows(table.path, TAGS.org("acme"))
    ids.append(table.append(key_of(2) + TAGS.row("acme", "", "")))
    assert left(tmp_path, ids) == [1, 2]


def test_what_is_not_whole_has_no_rows(tmp_path: Path, table: KeyTable) -> None:
    filled(table, ("other", "", ""), PEOPLE[0])
    os.truncate(table.path, 3 * ROW_BYTES - 1)
    (tmp_path / "w0-2.keys").write_bytes(b"gwk")
    for path in (table.path, tmp_path / "w0-2.keys", tmp_path / "w0-3.keys"):
        assert destroy_rows(path, TAGS.org("acme")) == 0


def test_rows_that_cannot_be_understood_are_not_said_to_be_destroyed(tmp_path: Path) -> None:
    (tmp_path / "w0-1.keys").write_bytes(b"gwkeys\x02".ljust(4 * ROW_BYTES, b"\0"))
    with pytest.raises(UnknownKeyFile, match=r"w0-1\.keys is damaged, or of a version"):
        destroy_rows(tmp_path / "w0-1.keys", TAGS.org("acme"))


def test_what_was_destroyed_is_on_the_disk_and_so_is_what_a_killed_run_destroyed(table: KeyTable) -> None:
    filled(table, PEOPLE[0])
    for expected in (1, 0):
        with mock.patch.object(os, "fdatasync") as data:
            assert destroy_rows(table.path, TAGS.org("acme")) == expected
        data.assert_called_once()


# --- files that nothing names any more ------------------------------------------------------------------------------


def test_a_file_is_spent_when_its_successor_is_older_than_any_exchange_under_way(tmp_path: Path) -> None:
    for day in (0, 10, 20, 21):
        with mock.patch.object(time, "time_ns", return_value=(1000 + day) * DAY_US * 1000):
            KeyTable.create(tmp_path, "w0").close()
    KeyTable.create(tmp_path, "w1").close()
    for number in (3, 5):  # one lost its header, one never had it
        key_path(tmp_path, "w0", number).write_bytes(b"")

    def numbers(day: int) -> list[int]:
        return [int(path.stem[3:]) for path in spent(tmp_path, "w0", (1000 + day) * DAY_US + 1)]

    assert numbers(17) == []
    assert numbers(18) == [1]
    assert numbers(28) == [1]
    assert numbers(29) == [1, 2, 3]
    assert numbers(10_000) == [1, 2, 3]
    assert spent(tmp_path, "w2", 10_000 * DAY_US) == []
