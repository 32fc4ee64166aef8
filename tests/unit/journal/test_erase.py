"""Who is erased never opens again, nobody else is touched, and an erasure cut short anywhere is finished by another."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from gateway.journal import keytable
from gateway.journal.erase import NotErased, erase
from gateway.journal.keytable import erasures
from gateway.journal.seal import Opener, Sealer
from gateway.record import Kind, Personal, Record

PEOPLE = [
    ("acme", "", ""),
    ("acme", "ann", ""),
    ("acme", "bob", "ann"),
    ("acme", "bob", ""),
    ("other", "ann", "ann"),
    ("", "ann", ""),
]


def sealed(sealer: Sealer, org: str, user: str, end_user: str) -> Record:
    key = sealer.key(org, user, end_user)
    part = key.seal(Personal(user, end_user, "203.0.113.7"), "x")
    return Record(Kind.OUTCOME, "x", 1, org=org, sealed=part, sealed_by=key.id, prompt_digest=key.digest(b"prompt"))


@pytest.fixture
def records(tmp_path: Path) -> Iterator[list[Record]]:
    """Everybody in two chains and two lives of each: four records a person."""
    sealers = [Sealer(tmp_path, chain) for chain in ("w0", "w1", "w0", "w1")]
    yield [sealed(sealer, *names) for sealer in sealers for names in PEOPLE]
    for sealer in sealers:
        sealer.close()


def readable(directory: Path, records: list[Record]) -> list[int]:
    """Which of PEOPLE still open in every file; a person is in all of them or in none."""
    opener = Opener(directory)
    opened = [opener.open(record) is not None for record in records]
    digests = [opener.digest(record.sealed_by, b"prompt") == record.prompt_digest for record in records]
    assert opened == digests
    lives = [opened[start : start + len(PEOPLE)] for start in range(0, len(opened), len(PEOPLE))]
    assert all(life == lives[0] for life in lives)
    return [number for number, opens in enumerate(lives[0]) if opens]


@pytest.mark.parametrize(
    ("org", "user", "kept"),
    [
        ("acme", "", [4, 5]),
        ("acme", "ann", [0, 3, 4, 5]),
        ("other", "", [0, 1, 2, 3, 5]),
        ("", "ann", [0, 1, 2, 3, 4]),
        ("", "", [0, 1, 2, 3, 4]),
        ("nobody", "", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_an_org_or_a_user_and_nobody_else(
    tmp_path: Path, records: list[Record], org: str, user: str, kept: list[int]
) -> None:
    reader_since_before = Opener(tmp_path)
    assert readable(tmp_path, records) == list(range(len(PEOPLE)))
    assert erase(tmp_path, org=org, user=user) == 4 * (len(PEOPLE) - len(kept))
    assert readable(tmp_path, records) == kept
    assert [reader_since_before.open(record) is not None for record in records[:6]] == [
        number in kept for number in range(6)
    ]
    assert erase(tmp_path, org=org, user=user) == 0
    assert readable(tmp_path, records) == kept


def test_nothing_of_a_destroyed_row_is_left_in_any_file(tmp_path: Path, records: list[Record]) -> None:
    rows = [row for path in tmp_path.glob("*.keys") for row in keys_of(path)]
    assert erase(tmp_path, org="acme") == len([row for row in rows if row[32:48] == rows[0][32:48]])
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("*.keys"))
    for row in rows:
        ours = row[32:48] == rows[0][32:48]
        assert (row[:32] in kept, row[32:48] in kept) == (not ours, not ours)
    assert readable(tmp_path, records) == [4, 5]


def keys_of(path: Path) -> list[bytes]:
    raw = path.read_bytes()
    return [raw[start : start + 64] for start in range(64, len(raw), 64)]


class Killed(BaseException):
    """Nothing in the program catches it."""


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync", "fchmod"])
def test_killed_at_any_step_and_run_again(tmp_path: Path, records: list[Record], call: str) -> None:
    for step in range(1, 100):
        steps = iter([*[None] * (step - 1), Killed])
        with mock.patch.object(os, call, side_effect=steps_of(getattr(os, call), steps)):
            try:
                erase(tmp_path, org="acme", user="ann")
                break
            except Killed:
                assert set(records_open(tmp_path, records)) >= {0, 3, 4, 5}
    assert 1 < step < 99
    assert readable(tmp_path, records) == [0, 3, 4, 5]


def steps_of(real: Callable[..., object], steps: Iterator[type[Killed] | None]) -> Callable[..., object]:
    """The real call, until the step that kills."""

    def call(*args: object) -> object:
        killed = next(steps, None)
        if killed:
            raise killed
        return real(*args)

    return call


def records_open(directory: Path, records: list[Record]) -> list[int]:
    """People who open in all files."""
    opener = Opener(directory)
    return [
        person
        for person in range(len(PEOPLE))
        if all(opener.open(record) is not None for record in records[person :: len(PEOPLE)])
    ]


def test_a_run_that_finds_nothing_left_tells_the_writers_all_the_same(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path, "w0")
    sealed(sealer, "acme", "ann", "")
    with mock.patch("gateway.journal.erase.count_erasure", side_effect=Killed), pytest.raises(Killed):
        erase(tmp_path, org="acme")
    sealer.poll()
    lost = sealed(sealer, "acme", "ann", "")  # the writer has not been told: under the dead key, for nobody to read
    assert Opener(tmp_path).open(lost) is None
    assert erase(tmp_path, org="acme") == 0
    sealer.poll()
    assert Opener(tmp_path).open(sealed(sealer, "acme", "ann", "")) is not None


def test_a_worker_that_seals_meanwhile(tmp_path: Path) -> None:
    """Rows made while an erasure runs may stay; none made before it does, and what stays is whole."""
    sealer = Sealer(tmp_path, "w0")
    before = [sealed(sealer, "acme", f"user{number}", "") for number in range(2000)]
    during = list[Record]()
    started, done = threading.Event(), threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            during.append(sealed(sealer, "acme", f"new{number}", ""))
            number += 1
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    destroyed = erase(tmp_path, org="acme")
    done.set()
    thread.join()
    opener = Opener(tmp_path)
    assert not any(opener.open(record) for record in before)
    open_now = [record for record in during if opener.open(record)]
    assert destroyed == len(before) + len(during) - len(open_now)
    after = [sealed(sealer, "acme", f"late{number}", "") for number in range(3)]
    assert all(opener.open(record) for record in after)


def test_two_erasures_at_once_both_hold_and_both_count(tmp_path: Path, records: list[Record]) -> None:
    threads = [threading.Thread(target=erase, args=(tmp_path,), kwargs={"org": org}) for org in ("acme", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readable(tmp_path, records) == [5]
    assert erasures(tmp_path) == b"2\n"


def test_one_bad_file_saves_none_of_the_others_and_is_told(tmp_path: Path, records: list[Record]) -> None:
    (tmp_path / "w0-1.keys").write_bytes(b"gwkeys\x09".ljust(256, b"\0"))
    with pytest.raises(
        NotErased, match=r"^12 keys or more are destroyed, but: keys may be left in w0-1\.keys: .*again$"
    ):
        erase(tmp_path, org="acme")
    assert readable(tmp_path, records[len(PEOPLE) :]) == [4, 5]


def test_a_disk_that_fails_is_told_and_the_erasure_finished_later(tmp_path: Path, records: list[Record]) -> None:
    with (
        mock.patch.object(keytable, "replacing", side_effect=OSError(errno.ENOSPC, "No space left on device")),
        pytest.raises(NotErased, match=r"^16 keys .*: writers that run may hold on to destroyed keys: .*No space left"),
    ):
        erase(tmp_path, org="acme")
    with (
        mock.patch.object(os, "fdatasync", side_effect=OSError(errno.EIO, "Input/output error")),
        pytest.raises(NotErased, match=r"^0 keys .*w0-1\.keys: .*; .*w1-2\.keys: .*Input/output error"),
    ):
        erase(tmp_path, org="other")
    assert erase(tmp_path, org="other") == 0
    assert readable(tmp_path, records) == [5]


def test_without_a_salt_nobody_is_said_to_be_erased(tmp_path: Path, records: list[Record]) -> None:
    (tmp_path / "salt").unlink()
    with pytest.raises(NotErased, match=r"^nothing is erased: .*salt is missing: bring it back"):
        erase(tmp_path, org="acme")
    assert readable(tmp_path, records) == list(range(len(PEOPLE)))


def test_where_there_are_no_sealing_keys_nobody_is_said_to_be_erased(tmp_path: Path) -> None:
    with pytest.raises(NotErased, match=r"nothing is erased: .*No such file"):
        erase(tmp_path / "nowhere", org="acme")
    with pytest.raises(NotErased, match="salt is missing"):
        erase(tmp_path, org="acme")


def test_a_file_that_retention_drops_meanwhile_is_nothing_to_erase(tmp_path: Path, records: list[Record]) -> None:
    real = keytable.key_files

    def dropping(directory: Path) -> list[tuple[str, int]]:
        found = real(directory)
        (directory / "w0-1.keys").unlink()
        return found

    with mock.patch("gateway.journal.erase.key_files", dropping):
        assert erase(tmp_path, org="acme") == 12
    assert readable(tmp_path, records[len(PEOPLE) :]) == [4, 5]
