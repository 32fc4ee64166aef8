"""A proof that one line stood in the journal when a manifest was signed, to be checked with a public key alone.

A proof is one JSON object: the record's id, its line, where its leaf stands among the leaves of a manifest (index,
size, the siblings on the way to the root), and the manifest's line. Whoever checks it computes the leaf from the line,
the root from the leaf and the path, and compares root and size with the manifest, which a key that they trust signed.

What it proves: this body stood at this number of this chain of this node, and was signed by the time in the manifest.
It is made from all lines of that manifest, so once retention has dropped one of them there are no more of its proofs.
Not proved are the segment in the id (a manifest covers lines, not files) and the `hash` in the line, which belongs to
the lines before it. Left out: whether the manifest itself is still part of a journal, which `verify.py` tells.
"""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.journal import layout
from gateway.journal.line import MAX_SEQ_DIGITS, TAIL_BYTES, leaf_of, parse, record_of, seq_of
from gateway.journal.manifest import BadManifest, Manifest, is_handed_over, is_signed
from gateway.journal.manifest import parse as parse_manifest
from gateway.journal.manifestscan import ManifestScan, Signed
from gateway.journal.merkle import inclusion_proof, is_included, root_of
from gateway.journal.read import START, Entry, Place
from gateway.journal.search import Query, search
from gateway.journal.signing import key_id_of
from gateway.journal.starts import header_of
from gateway.journal.trust import Keys
from gateway.record import Record

PROOF_VERSION: Final = 1
_ID_PARTS: Final = 3
_NUMBER: Final = re.compile(rf"[0-9]{{1,{MAX_SEQ_DIGITS}}}")


class NotProvable(Exception):
    """There is no such record, or nothing signed covers it; the message says which, and what to do."""


class BadProof(Exception):
    """This proves nothing; the message says why."""


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document; fields in the order they are written."""

    v: int = PROOF_VERSION
    id: str  # node/chain/segment/seq
    line: str  # without its newline
    leaf: str  # hex; SHA-256 of the line's bytes before `,"hash"`
    index: int  # of the leaf among the manifest's
    size: int  # how many leaves the manifest has
    path: tuple[str, ...]  # hex; siblings from the leaf up
    manifest: str  # its line, without the newline
    key: str  # id of the key that signed it
    public: str  # hex of that key, "" where it was not at hand


class Proved(NamedTuple):
    """What a proof has shown. `trusted`: by a key that was given, not only by the one the proof brings."""

    id: str
    record: Record
    manifest: Manifest
    trusted: bool


# --- making one -----------------------------------------------------------------------------------------------------


def find(journal: Path, wanted: str) -> Iterator[Entry]:
    """The records that are meant: one by its id (node/chain/segment/seq, or without the node), or all of an exchange.

    Raises NoJournal, NotProvable, OSError.
    """
    here = layout.node_id(journal)
    *node, chain, segment, seq = wanted.split("/") if wanted.count("/") >= _ID_PARTS - 1 else ("", "", "")
    if layout.is_chain(chain) and _NUMBER.fullmatch(segment) and _NUMBER.fullmatch(seq):
        if node and node != [here]:
            raise NotProvable(f"{wanted} is of node {'/'.join(node)}, this is the journal of {here}")
        return _of_id(journal, chain, int(segment), int(seq))
    return _of_exchange(journal, wanted)


def prove(journal: Path, entry: Entry, keys: Keys) -> Proof:
    """The proof of one line, from the manifest that covers it. Raises NoJournal, NotProvable, OSError.

    `keys`: where the public key that signed is looked for. Holds the leaves of one manifest in memory.
    """
    node = layout.node_id(journal)
    previous, signed = _covering(journal, entry)
    manifest = signed.manifest
    leaves = [leaf for end in manifest.chains for leaf in _leaves(journal, end.chain, manifest, previous)]
    index = _index(manifest, entry.chain, entry.seq)
    body = parse(entry.raw).body
    if len(leaves) < manifest.leaves:
        raise NotProvable(
            f"{manifest.leaves - len(leaves):,} of the {manifest.leaves:,} lines that manifest {manifest.n} covers are "
            "not here any more, and a proof takes all of them: they were dropped, or `gateway audit verify` says more"
        )
    if leaves[index] != leaf_of(body) or root_of(leaves).hex() != manifest.root:
        raise NotProvable(
            f"the lines that manifest {manifest.n} covers are not those it signed: see `gateway audit verify`"
        )
    return Proof(
        id=entry.id(node),
        line=entry.raw.decode().removesuffix("\n"),
        leaf=leaves[index].hex(),
        index=index,
        size=len(leaves),
        path=tuple(sibling.hex() for sibling in inclusion_proof(leaves, index)),
        manifest=signed.line.decode(),
        key=manifest.key,
        public=keys.get(manifest.key, b"").hex(),
    )


def encode(proof: Proof) -> bytes:
    """A proof as it is printed: one line of JSON."""
    return msgspec.json.encode(proof)


def _of_id(journal: Path, chain: str, segment: int, seq: int) -> Iterator[Entry]:
    for entry in search(journal, chain, Query(), Place(segment, 0), Place(segment + 1, 0)):
        if entry.seq == seq:
            yield entry
            return
    raise NotProvable(f"there is no line {seq} in segment {segment} of chain {chain}: it was dropped, or never was")


def _of_exchange(journal: Path, exchange: str) -> Iterator[Entry]:
    found = False
    for chain in layout.chains(journal):
        for entry in search(journal, chain, Query(exchange=exchange)):
            found = True
            yield entry
    if not found:
        raise NotProvable(f"no record of exchange {exchange} is here; an id is node/chain/segment/seq")


def _covering(journal: Path, entry: Entry) -> tuple[Manifest | None, Signed]:
    """The manifest that covers a line as new, and the one before it if that is still there."""
    scan = ManifestScan(journal)
    previous: Manifest | None = None
    for raw in scan.lines(_somewhere_before(scan, entry)):
        line = raw.removesuffix(b"\n")
        try:
            manifest = parse_manifest(line)
        except BadManifest as error:
            raise NotProvable(f"a manifest cannot be read: {error}; see `gateway audit verify`") from None
        end, first = manifest.end_of(entry.chain), manifest.first.get(entry.chain)
        if end is not None and first is not None and first <= entry.seq <= end.seq:
            return previous, Signed(manifest, line)
        previous = manifest
    raise NotProvable(
        "no manifest covers this line: it is not signed yet (control signs each second), or its manifest was dropped"
    )


def _somewhere_before(scan: ManifestScan, entry: Entry) -> int:
    """The number of a manifest that does not reach the line yet, the last of those that begin a file."""
    n = 0
    for line in scan.firsts():
        try:
            manifest = parse_manifest(line)
        except BadManifest:
            continue
        end = manifest.end_of(entry.chain)
        if end is None or end.seq < entry.seq:
            n = manifest.n
    return n


def _leaves(journal: Path, chain: str, manifest: Manifest, previous: Manifest | None) -> Iterator[bytes]:
    """The leaves of a chain that a manifest covers as new."""
    first, end = manifest.first.get(chain), manifest.end_of(chain)
    if first is None or end is None:
        return
    before = previous.end_of(chain) if previous is not None else None
    start = Place(before.segment, before.offset) if before is not None else _start_of(journal, chain, first)
    for entry in search(journal, chain, Query(), start, Place(end.segment, end.offset)):
        if entry.seq >= first:
            yield sha256(entry.raw[:-TAIL_BYTES]).digest()


def _start_of(journal: Path, chain: str, seq: int) -> Place:
    """The beginning of the segment that holds a line."""
    for segment in reversed(layout.segments(journal, chain)):
        header = header_of(journal, chain, segment)
        if header is not None and header[0] <= seq:
            return Place(segment, 0)
    return START


def _index(manifest: Manifest, chain: str, seq: int) -> int:
    """Where the leaf of a line stands among the manifest's: chains in its order, lines in theirs."""
    index = 0
    for end in manifest.chains:
        first = manifest.first.get(end.chain, end.seq + 1)
        if end.chain == chain:
            return index + seq - first
        index += end.seq - first + 1
    return -1


# --- checking one ---------------------------------------------------------------------------------------------------


def check(document: bytes, keys: Keys) -> Proved:
    """What a proof shows, by keys that are trusted; without any, by the one that it brings. Raises BadProof."""
    try:
        proof = msgspec.json.decode(document, type=Proof)
        manifest_line = proof.manifest.encode()
        manifest = parse_manifest(manifest_line)
        body = parse(proof.line.encode() + b"\n").body
        seq, record = seq_of(body), record_of(body)
        path = [bytes.fromhex(sibling) for sibling in proof.path]
    except (msgspec.DecodeError, ValueError) as error:
        raise BadProof(f"it is no proof: {error}") from None
    _check_signature(manifest, manifest_line, keys or _own_key(proof))
    node, chain, segment = _named(proof.id, seq)
    if (node, proof.size, proof.key) != (manifest.node, manifest.leaves, manifest.key):
        raise BadProof("its node, size and key are not those of its manifest")
    end = manifest.end_of(chain)
    if end is None or segment > end.segment or proof.index != _index(manifest, chain, seq):
        raise BadProof(f"its manifest does not cover line {seq} of chain {chain} at this place")
    leaf = leaf_of(body)
    if leaf.hex() != proof.leaf:
        raise BadProof("its leaf is not that of its line: the line was changed")
    if not is_included(leaf, proof.index, proof.size, path, bytes.fromhex(manifest.root)):
        raise BadProof("its path does not lead from the line to the root that was signed")
    return Proved(proof.id, record, manifest, trusted=bool(keys))


def _named(record_id: str, seq: int) -> tuple[str, str, int]:
    """Node, chain and segment of an id, which must end with the number that the line has."""
    node, chain, segment, number = record_id.split("/") if record_id.count("/") == _ID_PARTS else ("", "", "", "")
    if number != str(seq) or not _NUMBER.fullmatch(segment):
        raise BadProof(f"its id is {record_id}, and its line has number {seq}")
    return node, chain, int(segment)


def _own_key(proof: Proof) -> Keys:
    try:
        public = bytes.fromhex(proof.public)
    except ValueError:
        public = b""
    if not public:
        raise BadProof(f"it brings no public key, and none was given: give that of key {proof.key} with --public-key")
    return {key_id_of(public): public}


def _check_signature(manifest: Manifest, line: bytes, keys: Keys) -> None:
    """Whether one of these keys signed, as the key in use or as the one that took over with this manifest."""
    public, following = keys.get(manifest.key), manifest.next
    if public is not None:
        if is_signed(manifest, line, public):
            return
    elif following is not None and keys.get(following.key, b"").hex() == following.public:
        if is_handed_over(manifest, line):
            return
    else:
        raise BadProof(f"it is signed by key {manifest.key}, which is none of those you trust: {', '.join(keys)}")
    raise BadProof(f"the signature of its manifest is not one of key {manifest.key}")
