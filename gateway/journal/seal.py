"""The sealed part of a record: who the person was, readable for as long as a key lives that belongs to that person.

Models a sealer, which writes (one a process, made after the fork), and an opener, which reads. Every combination of
organisation, user and end user gets a random key of its own, in one row of a key file (keytable.py), anew in each
process and on each day. Under it stand the personal part (AES-256-GCM, bound to its exchange) and, by a second key
derived from it, the digests of prompt and answer. Destroying the row (erase.py) ends all of it; the chain covers
nothing but what stays.

Invariants: nothing is sealed under a key before its row is in the file, and no row is in the journal's synced part
before it is synced itself, if whoever syncs the journal calls `sync` first. A nonce is a count: a key is sealed with
in one process alone and never taken from a file for it, so no nonce comes twice, and no number of records is too many
for a key (with random nonces it would be 2³²). A key whose row cannot be written seals nothing: `sealed` stays empty,
which is counted in `dropped`; a personal part is never kept in another way.

After an erasure a writer goes on with the keys it holds until its next `poll`, an exchange with the one it began
with until it ends. What is sealed by them in that time is unreadable from the first moment on, as the row is gone.
Left out: when records are made and what is in them; bounds on names elsewhere than where they would be held or sealed.
"""

import binascii
import hmac
import itertools
import logging
import math
import os
import time
from collections import OrderedDict, deque
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.journal.keytable import KEY_BYTES, KeyTable, Tags, ensure_salt, erasures, key_files, read_key
from gateway.record import Personal, Record

if TYPE_CHECKING:
    from _hashlib import HASH
    from collections.abc import Callable

_log: Final = logging.getLogger("gateway.journal")
_CAPACITY: Final = 8192  # keys a process holds, 3.5 KB each
_LONG_NAMES: Final = 512  # characters; above, a key is held by its tags: a caller chooses how long an end user is
_WHOLE_BYTES: Final = 4096  # a personal part up to here is sealed as it is; of a larger one, each text is cut
_MAX_CHARS: Final = 512
_NONCE_BYTES: Final = 12
_NO_ROW: Final = "sealing keys cannot be written, so records go without their personal part"
_TELL_EVERY_S: Final = 60  # of one trouble
_DAY_S: Final = 86_400
_BLOCK_BYTES: Final = 64  # of SHA-256
_IPAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OPAD: Final = bytes(byte ^ 0x5C for byte in range(256))
_DIGEST: Final = b"gateway digest 1"

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Personal).decode


class Hasher:
    """The keyed digest of a body that comes in pieces: HMAC-SHA256, at the price of a bare hash and one block more."""

    __slots__ = ("_inner", "_outer", "update")

    def __init__(self, inner: "HASH", outer: "HASH") -> None:
        self._inner = inner.copy()
        self._outer = outer
        self.update: Callable[[bytes], None] = self._inner.update

    def hexdigest(self) -> str:
        """The digest of what came so far."""
        outer = self._outer.copy()
        outer.update(self._inner.digest())
        return outer.hexdigest()


class SealKey:
    """One row's key, ready for use. `id` names the row: what a record says as `sealed_by`."""

    __slots__ = ("_encrypt", "_inner", "_nonces", "_outer", "id")

    def __init__(self, key_id: str, key: bytes) -> None:
        self.id = key_id
        self._encrypt = AESGCM(key).encrypt
        self._nonces = itertools.count()
        self._inner, self._outer = _digest_states(key)

    def seal(self, personal: Personal, exchange_id: str) -> str:
        """A personal part as `sealed`: base64 of nonce ‖ ciphertext ‖ tag, good for this exchange alone. 1 µs."""
        nonce = next(self._nonces).to_bytes(_NONCE_BYTES, "big")
        blob = nonce + self._encrypt(nonce, _json_of(personal), exchange_id.encode())
        return binascii.b2a_base64(blob, newline=False).decode()

    def digest(self, body: bytes) -> str:
        """The keyed digest of a body, 64 hex digits: HMAC-SHA256 with a key that dies with the row. 1 µs a KiB."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.hexdigest()

    def hasher(self) -> Hasher:
        """The same for a body in pieces."""
        return Hasher(self._inner, self._outer)


class _NoHasher(Hasher):
    """Listens and says nothing."""

    __slots__ = ()

    def hexdigest(self) -> str:
        return ""


class _NoKey(SealKey):
    """Stands in for a key that could not be kept: nobody could ever open what it seals, so it seals nothing."""

    __slots__ = ()

    def seal(self, personal: Personal, exchange_id: str) -> str:  # noqa: ARG002 - the key's own signature
        return ""

    def digest(self, body: bytes) -> str:  # noqa: ARG002 - as above
        return ""

    def hasher(self) -> Hasher:
        return _NoHasher(self._inner, self._outer)


class Sealer:
    """The writer's side, one for a process and its chain; `sync` belongs to the thread that syncs the journal.

    Everything else belongs to the loop's thread. `dropped` counts the keys that could not be kept, each of which left
    one record without its personal part and digests.
    """

    def __init__(self, sealing_dir: Path, chain: str, capacity: int = _CAPACITY) -> None:
        """Make the directory and its salt if need be, and a key file; waits for the disk.

        Raises NoSalt, OSError; not for a full disk when only the key file is missing: then `poll` makes it later.
        """
        self.dropped = 0
        self._tags = Tags(ensure_salt(sealing_dir))
        self._directory = sealing_dir
        self._chain = chain
        self._capacity = capacity
        self._keys: OrderedDict[tuple[str, str, str] | bytes, SealKey] = OrderedDict()
        self._erasures = erasures(sealing_dir)
        self._table: KeyTable | None = None
        self._retired: deque[KeyTable] = deque()
        self._number = max((number for name, number in key_files(sealing_dir) if name == chain), default=0)
        self._day = 0
        self._told_s = -math.inf
        self._roll()

    def key(self, org: str, user: str, end_user: str) -> SealKey:
        """The key of these people today; its `id` is "" where no row could be written. Raises nothing.

        0.1 µs where it is held; else a row is written, 15 µs. A held key that 8,192 later ones have pushed out
        costs its people another row, nothing else.
        """
        names = (org, user, end_user)
        return self._keys.get(names) or self._missing(names)

    def poll(self) -> None:
        """A few times a second: forget all keys after an erasure; once a day, or after a failed sync, a new key file.

        Reads a file of a few bytes. A new key file is one open and one small write on the loop's thread, once a day.
        """
        if self._erased_since():
            self._keys.clear()
        table = self._table
        if table is None or table.failed or (table.rows and _today() != self._day):
            self._roll()

    @property
    def unsynced(self) -> bool:
        """Whether a `sync` has anything to do, or would fail; not to be asked while one goes on."""
        return bool(self._retired) or (self._table is not None and self._table.unsynced)

    def sync(self) -> None:
        """Bring every row written before this call to the disk. Raises OSError.

        For the thread that syncs the journal: note how far the lines go, call this, then sync the lines; no row is
        lost then that one of them names. After an error it goes on failing until `poll` has left the file for a new
        one, as nobody knows what the disk has of it: a power cut may cost lines under it their sealed part.
        """
        table = self._table  # looked up first: if it retires meanwhile, it is synced all the same
        while self._retired:
            _finish(self._retired[0])
            self._retired.popleft()
        if table is not None:
            table.sync()

    def close(self) -> None:
        """Sync and close; `sync` must not be running. Raises OSError."""
        self._retire()
        self.sync()

    def _erased_since(self) -> bool:
        """Whether there was an erasure since the last poll, or may have been as far as anybody can tell."""
        try:
            said = erasures(self._directory)
        except OSError as error:
            self._trouble("whether keys were erased cannot be read, so none is held for long", error)
            return True
        changed, self._erasures = said != self._erasures, said
        return changed

    def _missing(self, names: tuple[str, str, str]) -> SealKey:
        tags = self._tags.row(*names)
        if sum(map(len, names)) <= _LONG_NAMES:
            return self._made(names, tags)
        return self._keys.get(tags) or self._made(tags, tags)

    def _made(self, place: tuple[str, str, str] | bytes, tags: bytes) -> SealKey:
        key = os.urandom(KEY_BYTES)
        try:
            key_id = self._table.append(key + tags) if self._table is not None else ""
        except OSError as error:
            self._trouble(_NO_ROW, error)
            key_id = ""
        if not key_id:
            self.dropped += 1
            return _NO_KEY
        if len(self._keys) >= self._capacity:
            self._keys.popitem(last=False)
        made = self._keys[place] = SealKey(key_id, key)
        return made

    def _roll(self) -> None:
        """Go on with a new key file; where none can be made, with the old one if its syncs work."""
        if self._table is not None and self._table.failed:
            self._retire()
        try:
            table = KeyTable.create(self._directory, self._chain, self._number)
        except OSError as error:
            self._trouble(_NO_ROW, error)
            return
        self._retire()
        self._table, self._number, self._day = table, table.number, _today()

    def _retire(self) -> None:
        if self._table is not None:
            self._retired.append(self._table)
            self._table = None
        self._keys.clear()

    def _trouble(self, what: str, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            _log.warning("%s: %s: %s", self._directory, what, error.strerror)


class Opener:
    """The reader's side: opens what is sealed for as long as its row is there, in whichever process sealed it."""

    def __init__(self, sealing_dir: Path) -> None:
        self._directory = sealing_dir

    def open(self, record: Record) -> Personal | None:
        """Who it was; None where the key was erased or is unknown, or nothing is sealed.

        A part that was damaged, or put into another exchange's record, does not open either. Raises OSError where the
        key's file is there and cannot be read: that is not erased, and may pass.
        """
        key = read_key(self._directory, record.sealed_by)
        if key is None:
            return None
        try:
            blob = binascii.a2b_base64(record.sealed, strict_mode=True)
            nonce, sealed = blob[:_NONCE_BYTES], blob[_NONCE_BYTES:]
            return _decode(AESGCM(key).decrypt(nonce, sealed, record.exchange_id.encode()))
        except (ValueError, InvalidTag):
            return None

    def digest(self, key_id: str, body: bytes) -> str | None:
        """What a record under this key says as digest of this body; None without the key. Raises OSError as `open`."""
        key = read_key(self._directory, key_id)
        return None if key is None else SealKey(key_id, key).digest(body)


def _finish(table: KeyTable) -> None:
    """Sync a file that is written no more, and close it; one whose sync failed before is closed alone."""
    if not table.failed:
        table.sync()
    table.close()


def _digest_states(key: bytes) -> tuple["HASH", "HASH"]:
    """HMAC-SHA256's inner and outer hash after their first block, to be copied for each body."""
    derived = hmac.digest(key, _DIGEST, "sha256").ljust(_BLOCK_BYTES, b"\0")
    return sha256(derived.translate(_IPAD)), sha256(derived.translate(_OPAD))


def _json_of(personal: Personal) -> bytes:
    """JSON of a personal part, of a size that no caller chooses.

    A line has a bound, and a journal that drops its oldest records when it is full must not be filled by long names.
    """
    try:
        told = _encode(personal)
    except UnicodeEncodeError:
        told = b""
    if 0 < len(told) <= _WHOLE_BYTES:
        return told
    return _encode(Personal(*map(_bounded, msgspec.structs.astuple(personal))))


def _bounded(text: str) -> str:
    """Its beginning; half a character, which a request may hold and UTF-8 may not, becomes its number."""
    cut = text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"
    return cut.encode("utf-8", "backslashreplace").decode()


def _today() -> int:
    return int(time.time() // _DAY_S)


_NO_KEY: Final = _NoKey("", bytes(KEY_BYTES))
