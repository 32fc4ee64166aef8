"""The keys of one snapshot: a big file that never changes, the few edits made since, and what has been revoked.

An edit must act at once and a file of a million keys takes a second to write, so edits lie over the file until there
are many, and are then folded into a new one. Keys come from two sides: the config, which is their authority and is
read again at every reload, and edits made while running, marked `edited`, which a reload must carry over.

Revocations stand apart, by key id and for good: they survive any reload, whatever a config says.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from gateway.config.keyfile import KeyFile
from gateway.config.keys import KeyRecord

FOLD_AT: Final = 10_000


class Overlay(msgspec.Struct, frozen=True, array_like=True):
    """Edits over a key file: keys added or changed, and digests that are no longer valid."""

    added: tuple[KeyRecord, ...] = ()
    removed: tuple[bytes, ...] = ()

    def put(self, record: KeyRecord, replaces: bytes | None = None) -> "Overlay":
        """With this key, under its digest; `replaces` is the digest it was known by, if its secret changed."""
        gone = {record.digest, replaces}
        marked = msgspec.structs.replace(record, edited=True)
        added = (*(old for old in self.added if old.digest not in gone), marked)
        removed = dict.fromkeys(digest for digest in self.removed if digest != record.digest)
        if replaces is not None and replaces != record.digest:
            removed[replaces] = None
        return Overlay(added, tuple(removed))

    def remove(self, digest: bytes) -> "Overlay":
        """Without the key of this digest."""
        added = tuple(old for old in self.added if old.digest != digest)
        return Overlay(added, tuple(dict.fromkeys((*self.removed, digest))))

    def __len__(self) -> int:
        return len(self.added) + len(self.removed)


class KeyIndex:
    """Digest to key, over a key file and its overlay. `revoked` is live: ids may join it at any moment."""

    def __init__(self, base: KeyFile, overlay: Overlay, revoked: AbstractSet[str] = frozenset()) -> None:
        self.base = base
        self.overlay = overlay
        self.revoked = revoked
        self._added = {record.digest: record for record in overlay.added}
        self._removed = frozenset(overlay.removed)

    def find(self, digest: bytes) -> KeyRecord | None:
        """The key known by these 32 bytes, whether or not it may be used now; None when nobody has it."""
        if self._added or self._removed:
            found = self._added.get(digest)
            if found is not None or digest in self._removed:
                return found
        return self.base.find(digest)

    def __iter__(self) -> Iterator[KeyRecord]:
        hidden = self._removed | self._added.keys()
        yield from (record for record in self.base if record.digest not in hidden)
        yield from self._added.values()


def merged(config_keys: Iterable[KeyRecord], others: Iterable[KeyRecord]) -> Iterator[KeyRecord]:
    """A config's keys and the edited ones among others; where both know a secret or an id, the config's holds."""
    digests, ids = set[bytes](), set[str]()
    for record in config_keys:
        digests.add(record.digest)
        ids.add(record.id)
        yield record
    yield from (key for key in others if key.edited and key.digest not in digests and key.id not in ids)
