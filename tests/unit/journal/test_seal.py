"""What is sealed opens for who has the row, as what it was and nowhere else; without the row nothing is sealed."""

import base64
import errno
import hashlib
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.journal import keytable, seal
from gateway.journal.erase import erase
from gateway.journal.keytable import KeyTable, key_files
from gateway.journal.seal import Opener, Sealer, SealKey
from gateway.record import Kind, Personal, Record

ANN = Personal("ann", "u-7", "203.0.113.7", "an agent/1.0 ünïcode")
DAY_S = 86_400


Begin = Callable[..., Sealer]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Makes sealers of one directory, and closes them."""
    begun = list[Sealer]()

    def make(chain: str = "w0", **how: int) -> Sealer:
        begun.append(Sealer(tmp_path, chain, **how))
        return begun[-1]

    yield make
    for sealer in begun:
        sealer.close()


@pytest.fixture
def sealer(begin: Begin) -> Sealer:
    return begin()


def sealed(key: SealKey, personal: Personal = ANN, exchange_id: str = "x1") -> Record:
    return Record(Kind.OUTCOME, exchange_id, 1, sealed=key.seal(personal, exchange_id), sealed_by=key.id)


def disk_full() -> "mock._patch[mock.Mock]":
    return mock.patch.object(os, "pwrite", side_effect=OSError(errno.ENOSPC, "No space left on device"))


# --- the format -----------------------------------------------------------------------------------------------------


def test_anybody_with_the_row_can_open_and_digest_by_the_page(tmp_path: Path, sealer: Sealer) -> None:
    sealer.key("acme", "", "")
    record = sealed(sealer.key("acme", "ann", "u-7"))
    assert record.sealed_by == "w0-1.2"
    row_key = (tmp_path / "w0-1.keys").read_bytes()[2 * 64 : 2 * 64 + 32]
    blob = base64.b64decode(record.sealed, validate=True)
    assert json.loads(AESGCM(row_key).decrypt(blob[:12], blob[12:], b"x1")) == {
        "user": "ann", "end_user": "u-7", "client_ip": "203.0.113.7", "user_agent": "an agent/1.0 ünïcode",
    }  # fmt: skip
    derived = hmac.new(row_key, b"gateway digest 1", hashlib.sha256).digest()
    for body in (b"", b"a body", bytes(100_000)):
        expected = hmac.new(derived, body, hashlib.sha256).hexdigest()
        assert sealer.key("acme", "ann", "u-7").digest(body) == expected
        assert Opener(tmp_path).digest("w0-1.2", body) == expected


def test_a_body_in_pieces_has_the_digest_of_the_whole(sealer: Sealer) -> None:
    key = sealer.key("acme", "ann", "")
    one, other = key.hasher(), key.hasher()
    for piece in (b"", b"in ", b"pieces"):
        one.update(piece)
        other.update(piece[::-1])
    assert one.hexdigest() == one.hexdigest() == key.digest(b"in pieces")
    assert other.hexdigest() != one.hexdigest()


def test_no_nonce_comes_twice(sealer: Sealer) -> None:
    key = sealer.key("acme", "ann", "")
    blobs = [base64.b64decode(key.seal(ANN, "x1")) for _ in range(1000)]
    assert len({blob[:12] for blob in blobs}) == 1000


def test_half_a_character_does_not_end_the_request(tmp_path: Path, sealer: Sealer) -> None:
    key = sealer.key("acme", "ann", "\ud800")
    assert Opener(tmp_path).open(sealed(key, Personal("ann", "\ud800-7"))) == Personal("ann", "\\ud800-7")


# --- opening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end_user", ["u" * 5_000_000, "\0" * 9_000, "ü" * 9_000, "\ud800" * 9_000, "\U0001f600" * 9_000]
)
def test_what_is_sealed_is_bounded_and_the_key_goes_by_the_whole(begin: Begin, tmp_path: Path, end_user: str) -> None:
    sealer = begin()
    key = sealer.key("acme", "ann", end_user)
    record = sealed(key, Personal("ann", end_user, "203.0.113.7", "a" * 60_000))
    assert len(record.sealed) < 8_000
    opened = Opener(tmp_path).open(record)
    assert opened is not None
    assert (opened.user, opened.client_ip, opened.user_agent) == ("ann", "203.0.113.7", "a" * 511 + "…")
    assert opened.end_user[-1] == "…"
    assert sealer.key("acme", "ann", end_user + "x") is not key
    assert erase(tmp_path, org="acme", user=end_user) == 1


def test_a_part_of_common_size_is_sealed_whole(begin: Begin, tmp_path: Path) -> None:
    ann = Personal("ann", "u" * 1_000, "203.0.113.7", "a" * 2_000)
    assert Opener(tmp_path).open(sealed(begin().key("acme", "ann", ann.end_user), ann)) == ann


def test_what_was_sealed_opens_also_when_its_process_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from gateway.journal.seal import Sealer\n"
        "from gateway.record import Personal\n"
        "key = Sealer(Path(sys.argv[1]), 'w3').key('acme', 'ann', '')\n"
        "print(key.id, key.seal(Personal('ann'), 'x9'), key.digest(b'body'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    key_id, part, digest = done.stdout.split()
    opener = Opener(tmp_path)
    assert opener.open(Record(Kind.OUTCOME, "x9", 1, sealed=part, sealed_by=key_id)) == Personal("ann")
    assert opener.digest(key_id, b"body") == digest


def test_what_does_not_open(tmp_path: Path, sealer: Sealer) -> None:
    other = sealer.key("acme", "bob", "")
    record = sealed(sealer.key("acme", "ann", "u-7"))
    blob = bytearray(base64.b64decode(record.sealed))
    blob[-1] ^= 1
    damaged = base64.b64encode(blob).decode()
    short = base64.b64encode(blob[:10]).decode()
    zeros = Record(Kind.OUTCOME, "x1", 1, sealed=SealKey("", bytes(32)).seal(ANN, "x1"), sealed_by="w0-1.3")
    erase(tmp_path, org="third")
    with (tmp_path / "w0-1.keys").open("ab") as file:
        file.write(bytes(64))
    no_json = AESGCM((tmp_path / "w0-1.keys").read_bytes()[128:160]).encrypt(bytes(12), b"[1]", b"x1")
    opener = Opener(tmp_path)
    assert opener.open(record) == ANN
    for part, key_id, exchange_id in [
        (record.sealed, record.sealed_by, "x2"),  # another exchange's
        (record.sealed, other.id, "x1"),  # another's key
        (record.sealed, "", "x1"),
        (record.sealed, "w0-9.1", "x1"),
        (record.sealed, "rubbish", "x1"),
        ("", record.sealed_by, "x1"),
        ("", "", ""),  # counted refusals
        (damaged, record.sealed_by, "x1"),
        (short, record.sealed_by, "x1"),
        (record.sealed + "\n", record.sealed_by, "x1"),  # one part has one spelling
        (record.sealed[:-1], record.sealed_by, "x1"),
        ("ümlaut", record.sealed_by, "x1"),
        (zeros.sealed, zeros.sealed_by, "x1"),  # forged for an erased row
        (base64.b64encode(bytes(12) + no_json).decode(), record.sealed_by, "x1"),
    ]:
        assert opener.open(Record(Kind.OUTCOME, exchange_id, 1, sealed=part, sealed_by=key_id)) is None
    assert opener.digest("w0-9.1", b"") is None


def test_a_directory_that_is_not_there_opens_nothing_and_one_that_cannot_be_read_says_so(
    tmp_path: Path, sealer: Sealer
) -> None:
    record = sealed(sealer.key("acme", "ann", ""))
    assert Opener(tmp_path / "nowhere").open(record) is None
    with mock.patch.object(os, "open", side_effect=PermissionError):
        with pytest.raises(PermissionError):
            Opener(tmp_path).open(record)
        with pytest.raises(PermissionError):
            Opener(tmp_path).digest(record.sealed_by, b"")


# --- which key ------------------------------------------------------------------------------------------------------


def test_everybody_has_a_key_of_their_own_and_keeps_it(sealer: Sealer) -> None:
    people = [("a", "", ""), ("", "a", ""), ("", "", "a"), ("a", "b", "c"), ("a", "c", "b")]
    keys = [sealer.key(*names) for names in people]
    assert len({key.id for key in keys}) == len(people)
    assert [sealer.key(*names) for names in people] == keys


def test_another_life_of_the_process_begins_another_file(begin: Begin, tmp_path: Path, sealer: Sealer) -> None:
    first = sealed(sealer.key("acme", "ann", ""))
    second = sealed(begin().key("acme", "ann", ""))
    third = sealed(begin("control").key("acme", "ann", ""))
    assert [record.sealed_by for record in (first, second, third)] == ["w0-1.1", "w0-2.1", "control-1.1"]
    assert [Opener(tmp_path).open(record) for record in (first, second, third)] == [ANN] * 3


def test_a_number_that_retention_has_freed_is_not_given_out_again(begin: Begin, tmp_path: Path) -> None:
    begin()
    begin()
    (tmp_path / "w0-1.keys").unlink()
    assert begin().key("acme", "ann", "").id == "w0-3.1"


def test_only_so_many_keys_are_held_and_the_oldest_goes_first(begin: Begin) -> None:
    sealer = begin(capacity=2)
    ann, bob, cat = (sealer.key("acme", name, "") for name in ("ann", "bob", "cat"))
    assert sealer.key("acme", "bob", "") is bob
    assert sealer.key("acme", "cat", "") is cat
    assert sealer.key("acme", "ann", "").id not in {ann.id, bob.id, cat.id}
    assert sealer.key("acme", "bob", "").id != bob.id


def test_long_names_are_not_held(sealer: Sealer) -> None:
    key = sealer.key("acme", "ann", "u" * 1_000_000)
    assert sealer.key("acme", "ann", "u" * 1_000_000) is key
    assert sealer.key("acme", "ann", "u" * 999_999) is not key
    assert [len(place) for place in sealer._keys] == [32, 32]  # their tags


def test_a_new_day_begins_another_file_once_there_is_a_row_to_leave(begin: Begin, tmp_path: Path) -> None:
    with mock.patch.object(time, "time", return_value=10.0 * DAY_S) as now:
        sealer = begin()
        first = sealer.key("acme", "ann", "")
        sealer.poll()
        assert sealer.key("acme", "ann", "") is first
        now.return_value = 11.0 * DAY_S
        assert sealer.key("acme", "ann", "") is first
        sealer.poll()
        assert sealer.key("acme", "ann", "").id == "w0-2.1"
        sealer.poll()
        now.return_value = 12.0 * DAY_S
        sealer.poll()
        now.return_value = 13.0 * DAY_S
        sealer.poll()  # nobody came on the twelfth
    assert key_files(tmp_path) == [("w0", 1), ("w0", 2), ("w0", 3)]


# --- a full disk ----------------------------------------------------------------------------------------------------


def test_without_a_row_nothing_is_sealed_and_that_is_counted(
    tmp_path: Path, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    with disk_full(), caplog.at_level(logging.WARNING):
        for _ in range(3):
            key = sealer.key("acme", "ann", "")
            hasher = key.hasher()
            hasher.update(b"a body")
            assert [key.id, key.seal(ANN, "x1"), key.digest(b"a body"), hasher.hexdigest()] == [""] * 4
    assert sealer.dropped == 3
    assert len(caplog.records) == 1
    assert "so records go without their personal part: No space left on device" in caplog.text
    record = sealed(sealer.key("acme", "ann", ""))
    assert Opener(tmp_path).open(record) == ANN
    assert sealer.dropped == 3


def test_a_full_disk_does_not_keep_a_process_from_starting(begin: Begin) -> None:
    begin().close()
    with disk_full():
        sealer = begin()
        assert sealer.key("acme", "ann", "").id == ""
        sealer.poll()
        sealer.sync()
        assert sealer.dropped == 1
    assert sealer.key("acme", "ann", "").id == ""
    sealer.poll()
    assert sealer.key("acme", "ann", "").id == "w0-2.1"


def test_a_new_day_on_a_full_disk_goes_on_in_the_old_file(begin: Begin) -> None:
    with mock.patch.object(time, "time", return_value=10.0 * DAY_S) as now:
        sealer = begin()
        first = sealer.key("acme", "ann", "")
        now.return_value = 11.0 * DAY_S
        with disk_full():
            sealer.poll()
        assert sealer.key("acme", "ann", "") is first
        assert sealer.dropped == 0
        sealer.poll()
        assert sealer.key("acme", "ann", "").id == "w0-2.1"


# --- erasures -------------------------------------------------------------------------------------------------------


def test_after_an_erasure_and_a_poll_the_same_people_get_another_key(tmp_path: Path, sealer: Sealer) -> None:
    before = sealer.key("acme", "ann", "")
    erase(tmp_path, org="acme")
    between = sealed(sealer.key("acme", "ann", ""))
    assert between.sealed_by == before.id
    sealer.poll()
    after = sealed(sealer.key("acme", "ann", ""))
    assert after.sealed_by != before.id
    opener = Opener(tmp_path)
    assert (opener.open(between), opener.open(after)) == (None, ANN)
    sealer.poll()
    assert sealer.key("acme", "ann", "").id == after.sealed_by


def test_an_erasure_before_the_start_is_no_news(begin: Begin, tmp_path: Path, sealer: Sealer) -> None:
    sealer.close()
    erase(tmp_path, org="acme")
    again = begin()
    key = again.key("acme", "ann", "")
    again.poll()
    assert again.key("acme", "ann", "") is key


def test_who_cannot_see_whether_keys_were_erased_holds_none_for_long(
    sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    key = sealer.key("acme", "ann", "")
    with mock.patch.object(seal, "erasures", side_effect=PermissionError(errno.EACCES, "Permission denied")):
        sealer.poll()
        second = sealer.key("acme", "ann", "")
        sealer.poll()
        third = sealer.key("acme", "ann", "")
    assert len({key.id, second.id, third.id}) == 3
    assert "cannot be read, so none is held for long: Permission denied" in caplog.text
    sealer.poll()
    assert sealer.key("acme", "ann", "") is third


# --- syncing --------------------------------------------------------------------------------------------------------


class Disk:
    """Which files were synced, by their paths."""

    def __init__(self) -> None:
        self.synced: list[str] = []

    def fdatasync(self, fd: int) -> None:
        self.synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


def test_a_sync_is_for_new_rows_alone(sealer: Sealer, disk: Disk) -> None:
    for names in ("ann", "ann", "bob"):
        sealer.key("acme", names, "")
        sealer.sync()
    assert disk.synced == ["w0-1.keys", "w0-1.keys"]


@pytest.mark.usefixtures("disk")
def test_it_says_whether_a_sync_has_anything_to_do(begin: Begin) -> None:
    said = list[bool]()

    def ask_and_sync(sealer: Sealer) -> None:
        said.append(sealer.unsynced)
        sealer.sync()
        said.append(sealer.unsynced)

    with mock.patch.object(time, "time", return_value=10.0 * DAY_S) as now:
        sealer = begin()
        ask_and_sync(sealer)  # a file
        sealer.key("acme", "ann", "")
        ask_and_sync(sealer)  # a row
        now.return_value = 11.0 * DAY_S
        sealer.poll()
        ask_and_sync(sealer)  # a file that was left, and a new one
        assert said == [True, False] * 3
        sealer.key("acme", "bob", "")
        with mock.patch.object(os, "fdatasync", side_effect=OSError(errno.EIO, "no")), pytest.raises(OSError):
            sealer.sync()
        assert sealer.unsynced, "it would fail"


def test_a_file_that_was_left_is_synced_and_closed(begin: Begin, tmp_path: Path, disk: Disk) -> None:
    with mock.patch.object(time, "time", return_value=10.0 * DAY_S) as now:
        sealer = begin()
        sealer.key("acme", "ann", "")
        now.return_value = 11.0 * DAY_S
        sealer.poll()
        sealer.key("acme", "ann", "")
    sealer.sync()
    assert disk.synced == ["w0-1.keys", "w0-2.keys"]
    opened = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert tmp_path / "w0-1.keys" not in opened
    assert tmp_path / "w0-2.keys" in opened


def test_a_file_left_in_the_middle_of_a_sync_is_synced_too(begin: Begin, disk: Disk) -> None:
    with mock.patch.object(time, "time", return_value=10.0 * DAY_S) as now:
        sealer = begin()
        sealer.key("acme", "ann", "")
        now.return_value = 11.0 * DAY_S
        sync = KeyTable.sync

        def overtaken(table: KeyTable) -> None:
            sealer.poll()
            sync(table)

        with mock.patch.object(KeyTable, "sync", overtaken):
            sealer.sync()
        sealer.sync()
    assert sorted(set(disk.synced)) == ["w0-1.keys", "w0-2.keys"]


def test_after_a_failed_sync_none_succeeds_until_there_is_another_file(tmp_path: Path, sealer: Sealer) -> None:
    sealer.key("acme", "ann", "")
    with mock.patch.object(os, "fdatasync", side_effect=OSError(errno.EIO, "no")), pytest.raises(OSError, match="no"):
        sealer.sync()
    with pytest.raises(OSError, match="earlier sync"):
        sealer.sync()
    with disk_full():
        sealer.poll()
    assert sealer.key("acme", "ann", "").id == ""
    sealer.sync()
    sealer.poll()
    record = sealed(sealer.key("acme", "ann", ""))
    assert record.sealed_by == "w0-2.1"
    sealer.sync()
    assert Opener(tmp_path).open(record) == ANN


@pytest.fixture
def _restless() -> Iterator[None]:
    """Threads take turns often: in more places, and sooner."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("_restless")
def test_rows_and_syncs_from_two_threads(begin: Begin, tmp_path: Path) -> None:
    """Every row that was there before a sync began is on the disk after it, whatever the loop does meanwhile."""
    sealer = begin()
    on_disk: dict[str, int] = {}
    last, missing, done = ["w0-1.0"], list[str](), threading.Event()

    def fdatasync(fd: int) -> None:
        on_disk[Path(f"/proc/self/fd/{fd}").readlink().stem] = os.fstat(fd).st_size // keytable.ROW_BYTES - 1

    def syncing() -> None:
        while not done.is_set():
            file, _, row = last[0].partition(".")
            sealer.sync()
            if on_disk[file] < int(row):
                missing.append(last[0])

    with (
        mock.patch.object(os, "fdatasync", fdatasync),
        mock.patch.object(keytable, "sync_directory"),
        mock.patch.object(time, "time", return_value=0.0) as now,
    ):
        thread = threading.Thread(target=syncing)
        thread.start()
        for number in range(1000):
            last[0] = sealer.key("acme", str(number), "").id
            if number % 10 == 0:
                now.return_value += DAY_S
                sealer.poll()
        done.set()
        thread.join()
    assert missing == []
    assert len(key_files(tmp_path)) == 101


def test_close_brings_everything_to_the_disk(begin: Begin, disk: Disk) -> None:
    sealer = begin()
    sealer.key("acme", "ann", "")
    sealer.close()
    assert disk.synced == ["w0-1.keys"]
    assert sealer.key("acme", "bob", "").id == ""
