"""Snapshots: what a node runs by, numbered, on disk, and swapped as a whole.

A snapshot is a checked config (references unresolved), the name of a key file, the edits over it, and the published
prices in force, as bytes that are not looked into here (`ledger/book.py` makes and reads them). Publishing writes the
next number aside, syncs, renames, and moves the `current` mark; whoever is told the number maps it by name. The one
before stays, so that a damaged file, or a process that was slow to follow, has something whole.

Invariants: one writer at a time (a lock in the directory); a published file never changes; a file that does not
match its checksum is never used. A field that is added comes last and has a default, so that the builds on both sides
of an upgrade read each other's files; `_VERSION` goes up only for what an older build would misread, and then that
build cannot go back. Left out: telling anyone the number, which is the control segment's word.

`state_dir/snapshots/`: `<generation>.snapshot`, `keys-<generation>.index`, `current`, `lock`.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Names
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.config.files import FILE_MODE, private_directory, replacing
from gateway.config.keyfile import CorruptKeyFile, KeyFile, build
from gateway.config.keyindex import FOLD_AT, KeyIndex, Overlay
from gateway.config.keys import KeyRecord
from gateway.config.load import Document, realise
from gateway.config.revocations import Revocations
from gateway.config.schema import Config

KEPT: Final = 2  # the current generation and the one before
_MAGIC: Final = b"SLUICESN"
_VERSION: Final = 1
_DIGEST_BYTES: Final = 32
_NAME: Final = re.compile(r"(\d{1,18})\.snapshot\Z")
_KEY_FILES: Final = "keys-*.index"
_CURRENT: Final = "current"
_LOCK: Final = "lock"


class SnapshotUnusable(Exception):
    """The generation is not there any more, or its file is damaged; the message says which."""


class Snapshot(NamedTuple):
    """One generation as a process uses it: its own Config, the keys in place, and prices, b"" where none are known."""

    generation: int
    config: Config
    keys: KeyIndex
    prices: bytes


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """The content of a snapshot file. `key_crc` ties it to the content of its key file."""

    version: int
    generation: int
    document: Document
    overlay: Overlay
    key_file: str
    key_crc: int
    prices: bytes = b""


_DECODER: Final = msgspec.msgpack.Decoder(Stored)


class SnapshotStore:
    """The snapshots under a state directory. `revocations` is shared by every KeyIndex loaded through it."""

    def __init__(self, state_dir: str | os.PathLike[str]) -> None:
        self.directory: Final = Path(state_dir) / "snapshots"
        self.revocations: Final = Revocations(state_dir)
        self._verified = set[int]()  # checksums of key files this process has read whole: 134 MB take 0.1 s

    def publish(
        self,
        document: Document,
        keys: Iterable[KeyRecord] | None,
        overlay: Overlay | None = None,
        prices: bytes | None = None,
    ) -> int:
        """Write the next generation and make it current; returns its number.

        `keys` None keeps the key file of the current generation, `overlay` None its edits, `prices` None its prices.
        Many edits are folded into a new key file. Raises OSError, DuplicateKey, or SnapshotUnusable when there are no
        keys to keep.
        """
        with self._writing():
            before = self._newest()
            generation = max([*self._generations(), 0]) + 1
            if overlay is None:
                overlay = before.overlay if before is not None else Overlay()
            if keys is None:
                if before is None:
                    raise SnapshotUnusable("no snapshot has been published yet, so there are no keys to keep")
                key_file, key_crc, overlay = self._kept(before, overlay, generation)
            else:
                key_file, key_crc = self._built(keys, before, generation)
            if prices is None:
                prices = before.prices if before is not None else b""
            self._write(Stored(_VERSION, generation, document, overlay, key_file, key_crc, prices))
            self._prune()
        return generation

    def edit(self, overlay: Overlay) -> int:
        """Publish the current config again with these edits over its keys; returns the generation."""
        stored = self._newest()
        if stored is None:
            raise SnapshotUnusable("no snapshot has been published yet")
        return self.publish(stored.document, None, overlay)

    def reprice(self, generation: int, prices: bytes) -> int:
        """Publish that generation again with other prices; returns the new one.

        Raises SnapshotUnusable when it is not the current one: nobody asked for the config of another.
        """
        stored = self._newest()
        if stored is None or stored.generation != generation:
            raise SnapshotUnusable(f"snapshot {generation} is not the newest one that is whole")
        return self.publish(stored.document, None, None, prices)

    def load(self, generation: int, env: Names[str, str] | None = None) -> Snapshot:
        """The snapshot of that number. Raises SnapshotUnusable, or ConfigProblems when one of its secrets has gone."""
        stored = self._read(generation)
        return Snapshot(generation, realise(stored.document, env), self._index(stored), stored.prices)

    def keys(self, generation: int) -> KeyIndex:
        """The keys alone, which need no secret to be there. Raises SnapshotUnusable."""
        return self._index(self._read(generation))

    def prices(self) -> bytes:
        """The prices of the current generation, b"" when it has none or there is none."""
        stored = self._newest()
        return b"" if stored is None else stored.prices

    def current(self) -> int | None:
        """The newest generation whose files are whole, every byte of them read; None when there is none."""
        stored = self._newest()
        return None if stored is None else stored.generation

    def _index(self, stored: Stored) -> KeyIndex:
        self.revocations.poll()
        return KeyIndex(self._key_file(stored), stored.overlay, self.revocations.ids)

    def _key_file(self, stored: Stored, *, verify: bool = False) -> KeyFile:
        try:
            found = KeyFile(self.directory / stored.key_file, verify=verify)
        except (OSError, CorruptKeyFile) as error:
            raise SnapshotUnusable(f"snapshot {stored.generation}: {error}") from error
        if found.header.crc != stored.key_crc:
            raise SnapshotUnusable(f"snapshot {stored.generation}: {stored.key_file} is not the file it was made with")
        return found

    def _newest(self) -> Stored | None:
        marked = self._marked()
        for generation in sorted(self._generations(), key=lambda number: (number == marked, number), reverse=True):
            with suppress(SnapshotUnusable):
                stored = self._read(generation)
                self._key_file(stored, verify=stored.key_crc not in self._verified).close()
                self._verified.add(stored.key_crc)
                return stored
        return None

    def _marked(self) -> int:
        try:
            return int((self.directory / _CURRENT).read_text())
        except (OSError, ValueError):
            return 0

    def _generations(self) -> list[int]:
        try:
            return sorted(int(found[1]) for path in self.directory.iterdir() if (found := _NAME.match(path.name)))
        except FileNotFoundError:
            return []

    def _read(self, generation: int) -> Stored:
        try:
            raw = self._file(generation).read_bytes()
        except OSError as error:
            raise SnapshotUnusable(f"snapshot {generation} cannot be read: {error.strerror}") from error
        digest, payload = raw[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES], raw[len(_MAGIC) + _DIGEST_BYTES :]
        if not raw.startswith(_MAGIC) or hashlib.sha256(payload).digest() != digest:
            raise SnapshotUnusable(f"snapshot {generation} is damaged: it does not match its checksum")
        try:
            stored = _DECODER.decode(payload)
        except msgspec.DecodeError as error:
            raise SnapshotUnusable(f"snapshot {generation} was written by another version: {error}") from error
        if stored.version != _VERSION or stored.generation != generation:
            raise SnapshotUnusable(f"snapshot {generation} has version {stored.version}, number {stored.generation}")
        return stored

    def _write(self, stored: Stored) -> None:
        payload = msgspec.msgpack.encode(stored)
        with replacing(self._file(stored.generation)) as file:
            file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
        with replacing(self.directory / _CURRENT) as file:
            file.write(b"%d\n" % stored.generation)

    def _kept(self, before: Stored, overlay: Overlay, generation: int) -> tuple[str, int, Overlay]:
        if len(overlay) <= FOLD_AT:
            return before.key_file, before.key_crc, overlay
        name = _key_file_name(generation)
        header = build(self.directory / name, KeyIndex(self._key_file(before), overlay))
        return name, header.crc, Overlay()

    def _built(self, keys: Iterable[KeyRecord], before: Stored | None, generation: int) -> tuple[str, int]:
        """A key file of these keys; the one in use where the content is the same, so that its pages stay warm."""
        name = _key_file_name(generation)
        header = build(self.directory / name, keys)
        if before is not None and self._key_file(before).header == header:
            (self.directory / name).unlink()
            return before.key_file, before.key_crc
        return name, header.crc

    def _prune(self) -> None:
        """Drop all but the newest generations; who still maps a dropped file keeps reading it."""
        generations = self._generations()
        keep = generations[-KEPT:]
        for generation in generations[:-KEPT]:
            self._file(generation).unlink()
        used = set[str]()
        for generation in keep:
            with suppress(SnapshotUnusable):
                used.add(self._read(generation).key_file)
        for path in self.directory.glob(_KEY_FILES):
            if path.name not in used:
                path.unlink()

    def _file(self, generation: int) -> Path:
        return self.directory / f"{generation}.snapshot"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        private_directory(self.directory)
        descriptor = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _key_file_name(generation: int) -> str:
    return f"keys-{generation}.index"
