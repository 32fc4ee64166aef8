"""The export reader: every record to a sink, at least once, each under an id to tell repeats by.

    {"id":"node/chain/segment/seq","node":…,"region":…,"chain":…,"record":{…},"leaf":"<64 hex>"}

`record` is the record as it stands in the journal, byte for byte where its personal part stays `sealed`: then `leaf`
is SHA-256 of it without its closing brace, and `gateway audit prove` ties that to a signed manifest. With `personal:
opened`, `personal` stands in place of `sealed`, and is null once its key was destroyed; with `omitted`, `sealed` and
the name of its key (which a person's records have in common) are left out. Node and region are told once a segment, on
its first line; a reader that begins in the middle of one looks them up there.

    <state_dir>/exports/<name>.json     how far this export has got, replaced after its sink confirmed

Invariants: the cursor moves after the sink has the lines, so a crash in between repeats them and loses none; a cursor
of another node's journal, or one that cannot be read, counts for nothing: everything is exported again. Waiting and
bad lines are the runner's business.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.config.files import private_directory, replacing
from gateway.config.schema import Export
from gateway.control.pace import Pace
from gateway.control.readers.base import Batch, Cursor, Poison, Trouble
from gateway.control.sinks.base import Sink, SinkError
from gateway.journal.line import Malformed, leaf_of, parse
from gateway.journal.read import Entry, Place, entries
from gateway.record import Kind, Personal, Record

DIRECTORY: Final = "exports"
_log: Final = logging.getLogger("gateway.readers")
_encode: Final = msgspec.json.Encoder().encode
_fields_of: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Open = Callable[[Record], Personal | None]
"""The personal part of a record; None when its key is gone."""
Rewrite = Callable[[Entry, bytes], bytes]
"""The exported JSON of a record, from its line's body."""


class _At(msgspec.Struct, frozen=True, kw_only=True):
    segment: int
    offset: int
    seq: int
    missing: int


class _Cursors(msgspec.Struct, frozen=True, kw_only=True):
    """The cursor file."""

    v: int
    node: str
    chains: dict[str, _At]


_cursors_of: Final = msgspec.json.Decoder(_Cursors).decode


class _Origin(NamedTuple):
    """What the first line of a segment says, ready to be put into a line."""

    segment: int
    node: str
    encoded: bytes  # node, region and chain, as they stand in an exported line


class ExportReader:
    """One export of one node's journal, at its runner's pace. `opened` gives personal parts, where they are wanted."""

    def __init__(
        self,
        export: Export,
        sink: Sink,
        journal: Path,
        node: str,
        state_dir: Path,
        opened: Open,
        pace: Pace | None = None,
    ) -> None:
        self.name: Final = f"export-{export.name}"
        self.path: Final = state_dir / DIRECTORY / f"{export.name}.json"
        self._sink = sink
        self._journal = journal
        self._node = node
        self._record: Rewrite = {"sealed": as_it_is, "opened": with_personal(opened), "omitted": without_personal}[
            export.personal
        ]
        self._pace = pace or Pace()
        self._cursors: dict[str, Cursor] = {}
        self._origins: dict[str, _Origin] = {}  # of the segment each chain was last read in

    def cursors(self, chains: Sequence[str]) -> dict[str, Cursor]:
        """How far this export has got. Raises Trouble."""
        self._cursors = self._saved()
        return {chain: self._cursors.get(chain, Cursor()) for chain in chains}

    def apply(self, batch: Batch) -> None:
        """Hand a batch on, then remember that it was. Raises Trouble, and then all of it comes again; Poison."""
        lines = [self._line(entry) for some in self._pace.over(batch.entries) for entry in some]
        try:
            if lines:
                self._sink.send(lines)
            self._save(self._cursors | {batch.chain: batch.after})
        except SinkError as error:
            raise Trouble(str(error)) from error
        except OSError as error:
            raise Trouble(f"{self.path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the sink."""
        self._sink.close()

    # --- lines ------------------------------------------------------------------------------------------------------

    def _line(self, entry: Entry) -> bytes:
        try:
            body = parse(entry.raw).body
        except Malformed as error:
            raise Poison(str(error), entry) from error
        origin = self._origin(entry)
        record, leaf = self._record(entry, body), leaf_of(body).hex().encode()
        return b'{"id":%b,%b,"record":%b,"leaf":"%b"}' % (
            _encode(entry.id(origin.node)), origin.encoded, record, leaf,
        )  # fmt: skip

    def _origin(self, entry: Entry) -> _Origin:
        known = self._origins.get(entry.chain)
        if known is None or known.segment != entry.segment:
            first = entry if _begins(entry) else self._first_of(entry)
            known = self._origins[entry.chain] = self._told(entry, first.record)
        return known

    def _first_of(self, entry: Entry) -> Entry:
        """The line that says where this one's segment comes from. Raises OSError."""
        return next(entries(self._journal, entry.chain, Place(entry.segment, 0), entry.after), entry)

    def _told(self, entry: Entry, first: Record) -> _Origin:
        """A first line that cannot be read leaves the node, which the journal has once more, and no region."""
        node = first.node or self._node
        said = {"node": node, "region": first.region, "chain": entry.chain}
        return _Origin(entry.segment, node, _encode(said)[1:-1])

    # --- how far it has got -----------------------------------------------------------------------------------------

    def _saved(self) -> dict[str, Cursor]:
        try:
            saved = _cursors_of(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Trouble(f"{self.path} cannot be read: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("%s starts with the oldest record again: %s cannot be read: %s", self.name, self.path, error)
            return {}
        if saved.node != self._node:
            _log.warning("%s starts with the oldest record: it had come from node %s", self.name, saved.node)
            return {}
        return {chain: Cursor(Place(at.segment, at.offset), at.seq, at.missing) for chain, at in saved.chains.items()}

    def _save(self, cursors: Mapping[str, Cursor]) -> None:
        private_directory(self.path.parent)
        chains = {
            chain: _At(segment=at.place.segment, offset=at.place.offset, seq=at.seq, missing=at.missing)
            for chain, at in cursors.items()
        }
        with replacing(self.path) as file:
            file.write(_encode(_Cursors(v=1, node=self._node, chains=chains)) + b"\n")
        self._cursors = dict(cursors)


# --- personal parts -------------------------------------------------------------------------------------------------


def as_it_is(_entry: Entry, body: bytes) -> bytes:
    """The record's bytes in the journal."""
    return body + b"}"


def without_personal(entry: Entry, body: bytes) -> bytes:
    """The record without its sealed part and without the name of its key."""
    if not entry.record.sealed and not entry.record.sealed_by:
        return as_it_is(entry, body)
    return _encode({name: value for name, value in _fields(body).items() if name not in {"sealed", "sealed_by"}})


def with_personal(opened: Open) -> Rewrite:
    """Records with their personal part readable, where its key is still there."""

    def rewrite(entry: Entry, body: bytes) -> bytes:
        if not entry.record.sealed:
            return as_it_is(entry, body)
        fields: dict[str, object] = dict(_fields(body))
        del fields["sealed"]
        return _encode(fields | {"personal": opened(entry.record)})

    return rewrite


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a record, also those that a newer version has added."""
    return _fields_of(body + b"}")


def saved_seqs(state_dir: Path, name: str, node: str) -> dict[str, int]:
    """How far an export has got: the last line behind it of each chain, {} where nothing counts. For who only looks."""
    try:
        saved = _cursors_of((state_dir / DIRECTORY / f"{name}.json").read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {chain: at.seq for chain, at in saved.chains.items()} if saved.node == node else {}


def _begins(entry: Entry) -> bool:
    return entry.record.kind is Kind.CHECKPOINT and entry.record.action == "segment"
