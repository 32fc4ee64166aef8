r"""Sealing keys on disk: files of rows of one size, each a random key and, in words nobody can read, whose it is.

    <state_dir>/sealing/salt                    32 random bytes, made once; without it nobody is found in the rows
    <state_dir>/sealing/erasures                how many erasures there were; a change tells writers to forget
    <state_dir>/sealing/<chain>-<number>.keys   one writer's life, or one day of it; numbers are never used twice

A key file is rows of 64 bytes; its header stands where row 0 would, and a row is named `<chain>-<number>.<row>`:

    header      "gwkeys" ‖ version (u16) ‖ made, µs since the epoch (u64) ‖ zeros       integers little-endian
    row         key (32) ‖ org tag (16) ‖ user tag (8) ‖ end-user tag (8)
    org tag     HMAC-SHA256(salt, "org\0" ‖ org), cut to 16 bytes
    user tag    HMAC-SHA256(salt, "user\0" ‖ org ‖ "\0" ‖ user), cut to 8 bytes; zeros where there is no user

Erasing one user of an organisation with a billion of them hits another with a chance of 2⁻³⁴, and nobody without the
salt can make two meet. 64 divides a disk's sector: a power cut while a row is destroyed leaves it whole, and found
again, or gone; never a key that no tag leads to.

Invariants: a file has one writer, who appends; whoever erases writes zeros over whole rows and nothing else. A row is
in the file before anything is sealed under it. What a full disk left of a row was never used: the next row is written
over it, and a reader takes less than 64 bytes for nothing. Left out: who needs a key when (seal.py), and whose keys
are destroyed (erase.py).
"""

import errno
import fcntl
import hmac
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.config.files import FILE_MODE, private_directory, replacing, sync_directory
from gateway.journal.layout import is_chain
from gateway.units import NS_PER_US, US_PER_S

KEY_BYTES: Final = 32
ROW_BYTES: Final = 64
ORG_TAG_BYTES: Final = 16
USER_TAG_BYTES: Final = 8
_ORG_AT: Final = KEY_BYTES
_USER_AT: Final = _ORG_AT + ORG_TAG_BYTES
_END_USER_AT: Final = _USER_AT + USER_TAG_BYTES
_HEADER: Final = struct.Struct("<6sHQ48x")
_MAGIC: Final = b"gwkeys"
_VERSION: Final = 1
_SALT_BYTES: Final = 32
_COUNTER_MODE: Final = 0o644  # root may erase what another user's gateway writes, and that one must see it
_NOTHING: Final = bytes(ROW_BYTES)
_NOBODY: Final = bytes(USER_TAG_BYTES)
_CHUNK_BYTES: Final = 1024 * 1024  # of rows searched at once
_COUNT: Final = re.compile(rb"[0-9]{1,18}\n")
_FILE: Final = re.compile(r"([a-z0-9]+)-([1-9][0-9]{0,9})\.keys")
_KEY_ID: Final = re.compile(r"([a-z0-9]+)-([1-9][0-9]{0,9})\.([1-9][0-9]{0,9})")

# An exchange keeps the key it began with, and `total_s` lets it last seven days; the eighth is for clocks and queues.
_LAST_USE_US: Final = 8 * 86_400 * US_PER_S


class NoSalt(Exception):
    """The salt is not there, or is damaged: nobody could be found in the key files. The message says what to do."""


class UnknownKeyFile(Exception):
    """The file is not a key file of a version this build reads."""


# --- the directory --------------------------------------------------------------------------------------------------


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory against others who make a salt or erase; writers and readers of rows never wait for it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def ensure_salt(directory: Path) -> bytes:
    """The salt, made when this directory is new; the directory too. Raises NoSalt, OSError.

    Any number of processes may call this at once and all get the same. Beside key files a salt is never made anew:
    the people in them could not be found any more.
    """
    private_directory(directory)
    path = directory / "salt"
    if not path.exists():
        with locked(directory):
            if not path.exists() and not key_files(directory):
                with replacing(path) as file:
                    file.write(os.urandom(_SALT_BYTES))
                sync_directory(directory.parent)
    return read_salt(directory)


def read_salt(directory: Path) -> bytes:
    """The salt there is. Raises NoSalt, OSError."""
    path = directory / "salt"
    try:
        salt = path.read_bytes()
    except FileNotFoundError:
        salt = b""
    if len(salt) != _SALT_BYTES:
        raise NoSalt(
            f"{path} is {'damaged' if salt else 'missing'}: bring it back from a backup of this directory; "
            "without it nobody can be found in the key files beside it, only all of them deleted"
        )
    return salt


def erasures(directory: Path) -> bytes:
    """What changes with every erasure; b"" before the first. Raises OSError."""
    try:
        return (directory / "erasures").read_bytes()
    except FileNotFoundError:
        return b""


def count_erasure(directory: Path) -> None:
    """Tell the writers that there was an erasure; for a caller who holds the directory. Raises OSError."""
    said = erasures(directory)
    with replacing(directory / "erasures") as file:
        os.fchmod(file.fileno(), _COUNTER_MODE)
        file.write(b"%d\n" % (int(said) + 1 if _COUNT.fullmatch(said) else 1))


def key_files(directory: Path) -> list[tuple[str, int]]:
    """Chain and number of each key file, in order. Raises OSError."""
    found = (_FILE.fullmatch(entry.name) for entry in os.scandir(directory))
    return sorted((name[1], int(name[2])) for name in found if name and is_chain(name[1]))


def key_path(directory: Path, chain: str, number: int) -> Path:
    """The path of a key file."""
    return directory / f"{chain}-{number}.keys"


def spent(directory: Path, chain: str, oldest_us: int) -> list[Path]:
    """Key files that nothing the chain recorded at `oldest_us` or later is sealed under. Raises OSError.

    The newest file is never among them: its number must not be given out again.
    """
    found = list[Path]()
    left_us = -1  # when the writer left the file for its successor
    for number in sorted((n for name, n in key_files(directory) if name == chain), reverse=True):
        path = key_path(directory, chain, number)
        if 0 <= left_us < oldest_us - _LAST_USE_US:
            found.append(path)
        with path.open("rb") as file:
            left_us = _made_us(file.read(ROW_BYTES), left_us)
    return found[::-1]


def _made_us(header: bytes, unknown: int) -> int:
    """When a file was made; `unknown` for one whose maker was killed before it could say."""
    return _HEADER.unpack(header)[2] if _is_ours(header) else unknown


def _is_ours(header: bytes) -> bool:
    return len(header) == ROW_BYTES and _HEADER.unpack(header)[:2] == (_MAGIC, _VERSION)


# --- rows -----------------------------------------------------------------------------------------------------------


class Tags:
    """The tags by which the people of a row are found, and by which nobody else learns who they are."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt

    def org(self, org: str) -> bytes:
        """The tag of an organisation; of "" as well, which is the organisation of keys that name none."""
        return self._tag(b"org\0" + _bytes_of(org))[:ORG_TAG_BYTES]

    def user(self, org: str, user: str) -> bytes:
        """The tag of a user, or end user, of an organisation; zeros for none."""
        return self._tag(b"user\0%b\0%b" % (_bytes_of(org), _bytes_of(user)))[:USER_TAG_BYTES] if user else _NOBODY

    def row(self, org: str, user: str, end_user: str) -> bytes:
        """What stands behind the key in a row."""
        return self.org(org) + self.user(org, user) + self.user(org, end_user)

    def _tag(self, text: bytes) -> bytes:
        return hmac.digest(self._salt, text, "sha256")


class KeyTable:
    """A key file being written. All but `sync` and `close` belongs to one thread; those may belong to another."""

    def __init__(self, path: Path, number: int, fd: int) -> None:
        """Take over a file that holds a header alone; `create` makes it."""
        self.path = path
        self.number = number
        self.rows = 0
        self.failed = False  # a sync went wrong: nobody knows what of the file is on the disk
        self._fd = fd
        self._dirty = True
        self._named = False  # the directory's entry is on the disk

    @classmethod
    def create(cls, directory: Path, chain: str, after: int = 0) -> "KeyTable":
        """A new file with the first free number above `after`; nothing of it is synced yet. Raises OSError."""
        number = after + 1
        while (fd := _new_file(key_path(directory, chain, number))) < 0:
            number += 1
        table = cls(key_path(directory, chain, number), number, fd)
        try:
            _write_row(fd, _HEADER.pack(_MAGIC, _VERSION, time.time_ns() // NS_PER_US), 0)
        except OSError:
            table.close()
            table.path.unlink()
            raise
        return table

    def append(self, row: bytes) -> str:
        """Add a row; its name. Raises OSError, and then the next row takes the same place.

        One write into the page cache: from here on a kill of this process does not lose the row, and after the next
        `sync` neither does a power cut.
        """
        _write_row(self._fd, row, (self.rows + 1) * ROW_BYTES)
        self.rows += 1
        self._dirty = True
        return f"{self.path.stem}.{self.rows}"

    @property
    def unsynced(self) -> bool:
        """Whether a `sync` has anything to do, or would fail."""
        return self._dirty or self.failed

    def sync(self) -> None:
        """Bring every row appended before this call to the disk; next to nothing when they are there.

        Raises OSError, and again on every later call: after a failed sync the kernel may call pages clean that never
        reached the disk, so the file is to be left for another.
        """
        if self.failed:
            raise OSError(errno.EIO, "an earlier sync of this file failed", str(self.path))
        if not self._dirty:
            return
        self._dirty = False  # before the sync: a row that is appended meanwhile asks for another one
        try:
            os.fdatasync(self._fd)
            if not self._named:
                sync_directory(self.path.parent)
                self._named = True
        except OSError:
            self.failed = True
            raise

    def close(self) -> None:
        """Close the file; only `sync` of a clean table may still be called."""
        os.close(self._fd)


def read_key(directory: Path, key_id: str) -> bytes | None:
    """The key of a row as it is now; None for a row that was erased, is not there, or has a malformed name.

    Nothing is remembered between calls (6 µs each), so an erasure counts for every reader at once. Raises OSError, but
    not for a file that is missing.
    """
    name = _KEY_ID.fullmatch(key_id)
    if name is None or not is_chain(name[1]):
        return None
    try:
        fd = os.open(key_path(directory, name[1], int(name[2])), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        row = os.pread(fd, ROW_BYTES, int(name[3]) * ROW_BYTES)
        known = len(row) == ROW_BYTES and any(row[:KEY_BYTES]) and _is_ours(os.pread(fd, ROW_BYTES, 0))
    finally:
        os.close(fd)
    return row[:KEY_BYTES] if known else None


def destroy_rows(path: Path, org_tag: bytes, user_tag: bytes = b"") -> int:
    """Write zeros over the rows of an organisation, or of one user in it, and wait for the disk; how many there were.

    A file that is gone has none. Raises UnknownKeyFile, OSError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        found = 0
        for offset in _matching(fd, path, org_tag, user_tag):
            _write_row(fd, _NOTHING, offset)
            found += 1
        os.fdatasync(fd)  # also when none is found now: a run that was killed may have left zeros unsynced
    finally:
        os.close(fd)
    return found


def _matching(fd: int, path: Path, org_tag: bytes, user_tag: bytes) -> Iterator[int]:
    """Offsets of matching rows. `find` looks for the tag at C speed; where it stands in the row is checked after."""
    header = os.pread(fd, ROW_BYTES, 0)
    if len(header) == ROW_BYTES and not _is_ours(header):
        raise UnknownKeyFile(f"{path} is damaged, or of a version this build does not read")
    offset = ROW_BYTES
    while len(rows := os.pread(fd, _CHUNK_BYTES, offset)) >= ROW_BYTES:
        whole = len(rows) - len(rows) % ROW_BYTES
        at = 0
        while (hit := rows.find(user_tag or org_tag, at, whole)) >= 0:
            start = hit - hit % ROW_BYTES
            if _is_of(rows[start : start + ROW_BYTES], org_tag, user_tag):
                yield offset + start
            at = start + ROW_BYTES
        offset += whole


def _is_of(row: bytes, org_tag: bytes, user_tag: bytes) -> bool:
    users = (row[_USER_AT:_END_USER_AT], row[_END_USER_AT:])
    return row[_ORG_AT:_USER_AT] == org_tag and (not user_tag or user_tag in users)


def _new_file(path: Path) -> int:
    """A descriptor of a file that was not there, -1 when it was. Raises OSError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return -1


def _write_row(fd: int, row: bytes, offset: int) -> None:
    """All of a row, or an error; half of one is what a disk does that has just become full. Raises OSError."""
    if os.pwrite(fd, row, offset) != ROW_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _bytes_of(name: str) -> bytes:
    """UTF-8 of any str: a name from a request may hold half a character, and must not end the request."""
    return name.encode("utf-8", "surrogatepass")
