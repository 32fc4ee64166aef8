"""A checkpoint and what has changed since, so that a second in which little changed costs little to keep.

    <state_dir>/limits/checkpoint.json    the whole, as `checkpoint.py` says
    <state_dir>/limits/changes            lines: JSON, and before it the SHA-256 of the digest before and this, in hex

The first line's digest before is the checkpoint's own. So lines of an older checkpoint fit no newer one, and nothing
need happen to both files at once. Once the lines come to as much as the checkpoint (and LEAST_BYTES), it is replaced,
which begins the lines anew; so it is when something changed in more than a few rows at once, after a failure, by the
first save of a process and by its last one, so that an earlier build, which knows the checkpoint alone, misses nothing.

A line that was cut ends what is believed: what stands is the checkpoint of the moment before, and journal lines behind
its places are folded again, as after any crash. That is all a crash can do, since a line is on the disk before the
next one is written; lines behind one that does not fit are damage, and are told (`unread`).

Invariants: at every byte where a write may end, the two files come to a checkpoint that was, and to the last one that
`write` has returned for. What a line does not name has not changed, or says nothing any more: rows that were pruned are
pruned again by who loads them. Left out: when to save (`limits_keeper.py`).
"""

import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.config.files import FILE_MODE, sync_directory
from gateway.limiter import checkpoint as whole
from gateway.limiter.checkpoint import AccountRow, At, Checkpoint, Damaged, HeldRow, Told
from gateway.limiter.crowd import Crowd
from gateway.limiter.replay import Changes

FILE: Final = "changes"
LEAST_BYTES: Final = 1_048_576  # of changes before the checkpoint is replaced, however small it is
_DIGEST: Final = 64  # of a line, in hex


class Loaded(NamedTuple):
    """What was kept. `unread`: lines of changes that do not fit, though they are whole: damage."""

    checkpoint: Checkpoint
    unread: int = 0


class Written(NamedTuple):
    """What is to be written: the whole, or a line more."""

    raw: bytes
    digest: bytes
    is_whole: bool


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    at_us: int
    epoch: str
    epoch_us: int
    seen_us: int
    places: Mapping[str, At]
    told: Mapping[str, Told]  # what is new of it
    accounts: list[AccountRow]
    holds: list[HeldRow]
    ended: list[str]


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Change).decode


class CheckpointFiles:
    """The two files of one node. One thread at a time calls `encoded`, and then `write` with what it gave."""

    def __init__(self, path: Path, node: str) -> None:
        self.path: Final = path
        self.changes: Final = path.with_name(FILE)
        self._node = node
        self._digest = b""  # of what stands last; none: the whole comes next
        self._bytes = 0  # of changes
        self._most_bytes = 0

    @property
    def is_whole(self) -> bool:
        """Whether the checkpoint alone says it all."""
        return bool(self._digest) and not self._bytes

    def load(self) -> Loaded | None:
        """What was kept; None when nothing was. Raises OSError, Damaged."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        found = whole.decoded(raw, self._node)
        try:
            lines = self.changes.read_bytes()
        except FileNotFoundError:
            lines = b""
        try:
            return _with_changes(found, whole.digest_of(raw), lines)
        except ValueError as error:
            raise Damaged(f"{FILE}: {error}") from error

    def encoded(self, checkpoint: Checkpoint, told: Mapping[str, Told], *, anew: bool = False) -> Written:
        """What is to be written for this one; `told` is what is new of its thresholds, `anew` asks for the whole."""
        before, self._digest = self._digest, b""  # what is taken now is kept by nobody until `write` returns
        changes = checkpoint.ledger.take_changes()
        if anew or changes.everything or not before or self._bytes >= self._most_bytes:
            raw = whole.encoded(checkpoint)
            return Written(raw, whole.digest_of(raw), is_whole=True)
        content = _encode(_change(checkpoint, changes, told))
        digest = _chained(before, content)
        return Written(b"%b %b\n" % (digest, content), digest, is_whole=False)

    def write(self, written: Written) -> None:
        """Have it on the disk. Raises OSError; then what stood before does, and the whole comes next."""
        if written.is_whole:
            whole.write(self.path, written.raw)
            self._bytes, self._most_bytes = 0, max(len(written.raw), LEAST_BYTES)
        else:
            self._append(written.raw)
        self._digest = written.digest

    def _append(self, line: bytes) -> None:
        """Behind the good lines. The first one takes the place of what was cut, or is of an older checkpoint."""
        begins = 0 if self._bytes else os.O_CREAT | os.O_TRUNC
        descriptor = os.open(self.changes, os.O_WRONLY | os.O_CLOEXEC | begins, FILE_MODE)
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(descriptor, line[done:], self._bytes + done)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if begins:
            sync_directory(self.changes.parent)
        self._bytes += len(line)


def _change(checkpoint: Checkpoint, changes: Changes, told: Mapping[str, Told]) -> _Change:
    accounts = checkpoint.ledger.accounts
    return _Change(
        at_us=checkpoint.at_us,
        epoch=checkpoint.epoch,
        epoch_us=checkpoint.epoch_us,
        seen_us=checkpoint.seen_us,
        places=checkpoint.places,
        told=told,
        accounts=[whole.account_row(key, accounts[key]) for key in changes.accounts],
        holds=[whole.held_row(hold, held, accounts) for hold, held in changes.holds.items()],
        ended=changes.ended,
    )


def _with_changes(found: Checkpoint, digest: bytes, lines: bytes) -> Loaded:
    change, read = None, 0
    told = dict(found.told)
    for change in _fitting(digest, lines):
        read += 1
        told |= change.told
        whole.restore(found.ledger, change.accounts, change.holds)
        for hold in change.ended:
            found.ledger.holds.pop(hold, None)
    if change is None:
        return Loaded(found)
    found.ledger.bound(Crowd())
    latest = msgspec.structs.replace(
        found,
        at_us=change.at_us,
        epoch=change.epoch,
        epoch_us=change.epoch_us,
        seen_us=change.seen_us,
        places=dict(change.places),
        told=told,
    )
    return Loaded(latest, lines.count(b"\n") - read)


def _fitting(digest: bytes, lines: bytes) -> Iterator[_Change]:
    """The changes, up to the first line that does not fit."""
    for line in lines.split(b"\n")[:-1]:
        content = line[_DIGEST + 1 :]
        digest = _chained(digest, content)
        if line[: _DIGEST + 1] != digest + b" ":
            return
        yield _decode(content)


def _chained(digest: bytes, content: bytes) -> bytes:
    return sha256(digest + content).hexdigest().encode()
