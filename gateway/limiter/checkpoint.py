"""What was used, kept in a file: the rows a journal comes to, and up to where it has been read for them.

    <state_dir>/limits/checkpoint.json      one line of JSON, then a line with its SHA-256 in hex

Rows and places are of one moment and replaced together, so after a crash the lines behind the places are folded again
onto rows that do not contain them: nothing is counted twice, nothing is left out. Two things more are kept, because
they are true only together with the rows: which memory the rows were last given to (`epoch`, since when, and when it
was last there), and which thresholds of which windows have been told.

Invariants: a file is whole or it is the one before; one that was damaged is never half believed. Left out: what the
rows mean (`replay.py`), what has changed since (`changes.py`), and what to do without a checkpoint: the journal holds
everything that is in it.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.files import private_directory, replacing
from gateway.limiter.crowd import Crowd
from gateway.limiter.recorded import Key, name_of, parsed
from gateway.limiter.replay import Account, Held, Ledger

VERSION: Final = 1
DIRECTORY: Final = "limits"
FILE: Final = "checkpoint.json"


class Damaged(ValueError):
    """The file is no checkpoint, or not one of this node; the message says why."""


class At(msgspec.Struct, frozen=True, array_like=True):
    """A place in one chain, and what a reader knows of it."""

    segment: int = 0
    offset: int = 0
    seq: int = -1
    missing: int = 0


class Told(msgspec.Struct, frozen=True, array_like=True):
    """The highest threshold of a bucket that was told, and in which window."""

    start_ms: int
    percent: int


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept. `ledger` belongs to whoever reads it."""

    node: str
    at_us: int = 0
    epoch: str = ""
    epoch_us: int = 0
    seen_us: int = 0
    places: Mapping[str, At] = {}
    told: Mapping[str, Told] = {}
    ledger: Ledger


class AccountRow(msgspec.Struct, frozen=True, array_like=True):
    """An account as it stands in a file."""

    name: str  # as in a record
    used: int
    rest: int
    mark_ms: int


class HeldRow(msgspec.Struct, frozen=True, array_like=True):
    """A hold as it stands in a file, its charges by the names of their accounts."""

    hold: str
    chain: str
    at_ms: int
    dead: bool
    charges: dict[str, int]
    due: bool = False


class _File(msgspec.Struct, frozen=True, kw_only=True):
    v: int
    node: str
    at_us: int
    epoch: str
    seen_us: int
    places: Mapping[str, At]
    told: Mapping[str, Told]
    accounts: list[AccountRow]
    holds: list[HeldRow]
    epoch_us: int = 0  # this and what follows a file of an earlier build does not have
    forgotten: Mapping[str, int] = {}


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_File).decode


def path_of(state_dir: Path) -> Path:
    """Where a node keeps its checkpoint."""
    return state_dir / DIRECTORY / FILE


def encoded(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as it stands in its file."""
    ledger = checkpoint.ledger
    content = _encode(
        _File(
            v=VERSION,
            node=checkpoint.node,
            at_us=checkpoint.at_us,
            epoch=checkpoint.epoch,
            epoch_us=checkpoint.epoch_us,
            forgotten=ledger.forgotten,
            seen_us=checkpoint.seen_us,
            places=checkpoint.places,
            told=checkpoint.told,
            accounts=[account_row(key, account) for key, account in ledger.accounts.items()],
            holds=[held_row(hold, held, ledger.accounts) for hold, held in ledger.holds.items()],
        )
    )
    return b"%b\n%b\n" % (content, sha256(content).hexdigest().encode())


def account_row(key: Key, account: Account) -> AccountRow:
    """An account, to be kept."""
    return AccountRow(name_of(key.bucket, account.spec), *account.row)


def held_row(hold: str, held: Held, accounts: Mapping[Key, Account]) -> HeldRow:
    """A hold, to be kept; a charge whose account is gone has nothing left to give back."""
    charges = {
        name_of(key.bucket, accounts[key].spec): amount for key, amount in held.charges.items() if key in accounts
    }
    return HeldRow(hold, held.chain, held.at_ms, held.dead, charges, held.due)


def restore(ledger: Ledger, accounts: Iterable[AccountRow], holds: Iterable[HeldRow]) -> None:
    """Have these as they were kept. Raises ValueError."""
    for account in accounts:
        key, spec = parsed(account.name)
        ledger.accounts[key] = Account((account.used, account.rest, account.mark_ms), spec)
    for held in holds:
        charges = {parsed(name).key: amount for name, amount in held.charges.items()}
        ledger.holds[held.hold] = Held(held.chain, held.at_ms, charges, held.dead, held.due)


def digest_of(raw: bytes) -> bytes:
    """The digest with which a file ends, in hex."""
    return raw[:-1].rpartition(b"\n")[2]


def decoded(raw: bytes, node: str) -> Checkpoint:
    """The checkpoint of this node. Raises Damaged."""
    content, _, rest = raw.partition(b"\n")
    if rest != sha256(content).hexdigest().encode() + b"\n":
        raise Damaged("its SHA-256 does not fit")
    try:
        file = _decode(content)
        ledger = _ledger(file)
    except (ValueError, UnicodeDecodeError) as error:
        raise Damaged(str(error)) from error
    if (file.v, file.node) != (VERSION, node):
        raise Damaged(f"it is of version {file.v} and node {file.node}, wanted are {VERSION} and {node}")
    return Checkpoint(
        node=node,
        at_us=file.at_us,
        epoch=file.epoch,
        epoch_us=file.epoch_us,
        seen_us=file.seen_us,
        places=dict(file.places),
        told=dict(file.told),
        ledger=ledger,
    )


def write(path: Path, raw: bytes) -> None:
    """Replace the file with what `encoded` made. Raises OSError, and then the one before is there."""
    private_directory(path.parent)
    with replacing(path) as file:
        file.write(raw)


def _ledger(file: _File) -> Ledger:
    ledger = Ledger()
    ledger.forgotten = file.forgotten
    restore(ledger, file.accounts, file.holds)
    ledger.bound(Crowd())
    return ledger
