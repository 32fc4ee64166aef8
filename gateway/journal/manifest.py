r"""A manifest: what control signs each second, so that a cut or rewritten chain shows. Its bytes and its rules.

    {"v":1,"node":…,"n":N,"at_us":…,"prev":…,"chains":[…],…,"key":…,"sig":…}\n

One line of JSON in one spelling: fields in the order of `Manifest`, absent where they are empty and have a default. It
states the end of every chain (place, number and head of the last line that was synced), and the Merkle root over the
lines that are new since the manifest before. `prev` is SHA-256 of that one's line without its newline; `sig` is
Ed25519 over this line's bytes before `,"sig":`. Where keys change, `next` names the new key and `sig_next` is its
signature over the same bytes; it signs alone from the next manifest on.

Invariants: a line that parses has no second spelling, so any changed byte fails to parse, breaks a signature or breaks
the link of the next; places never go back; `n` orders manifests and `at_us` only tells what the clock said. Left out:
writing files (`manifestlog.py`), and whether a key deserves trust (`verify.py`).
"""

from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, structs

from gateway.journal.layout import CONTROL, is_chain, manifest_files
from gateway.journal.signing import Signer, key_id_of, verify_signature

MANIFEST_VERSION: Final = 1
FIRST_PREV: Final = "0" * 64
_SIG: Final = b',"sig":'

Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Signature = Annotated[str, Meta(pattern=r"\A[0-9a-f]{128}\Z")]
KeyId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
NodeId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
ChainName = Annotated[str, Meta(pattern=r"\A(w[0-9]{1,6}|control)\Z")]
Number = Annotated[int, Meta(ge=0)]


class BadManifest(ValueError):
    """These bytes are no manifest, or it contradicts itself; the message says how."""


class NewerManifest(BadManifest):
    """A manifest of a version that this build does not read."""


class ChainEnd(Struct, frozen=True, gc=False):
    """The end of a chain: its last line is number `seq`, ends at `offset` of `segment`, and leaves `head` behind."""

    chain: ChainName
    segment: Number
    offset: Number
    seq: Number
    head: Hash


class Floor(Struct, frozen=True, gc=False):
    """Where a chain begins after its oldest segments were dropped: first line kept, and the head before it."""

    chain: ChainName
    segment: Number
    seq: Number
    head: Hash


class ManifestFloor(Struct, frozen=True, gc=False):
    """Where the manifests begin after the oldest were dropped: number and `prev` of the first one kept."""

    n: Number
    prev: Hash


class NextKey(Struct, frozen=True, gc=False):
    """The key that signs from the next manifest on."""

    key: KeyId
    public: Hash  # 32 bytes in hex, as a hash is


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One manifest; the fields in the order they are written. docs/journal.md tells each."""

    v: int
    node: NodeId
    n: Number
    at_us: Number
    prev: Hash
    chains: tuple[ChainEnd, ...]  # workers by slot, then control; a chain without a line is not there yet
    floors: tuple[Floor, ...] = ()
    manifest_floor: ManifestFloor | None = None
    first: dict[str, int]  # number of the first new line, of each chain that has one, in the order of `chains`
    leaves: Number
    root: Hash
    next: NextKey | None = None
    key: KeyId
    sig: str  # checked by `parse`; "" while it is being made
    sig_next: str = ""

    def end_of(self, chain: str) -> ChainEnd | None:
        """The end of a chain, None when it had no line yet."""
        return next((end for end in self.chains if end.chain == chain), None)

    def signer_after(self) -> str:
        """The key that must sign the next manifest."""
        return self.key if self.next is None else self.next.key


class _Versioned(Struct):
    """As much as can be said of a manifest of any version."""

    v: int


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Manifest).decode
_version: Final = msgspec.json.Decoder(_Versioned).decode
_signature: Final = msgspec.json.Decoder(Signature).decode


def encode(manifest: Manifest) -> bytes:
    """The line of a manifest, without its newline."""
    return _encode(manifest)


def sign(draft: Manifest, signer: Signer, following: Signer | None = None) -> bytes:
    """The line of a manifest, signed; `following` is the key that takes over after it, and signs as well."""
    draft = structs.replace(draft, key=signer.key_id, next=_next_key(following), sig="", sig_next="")
    signed = signed_part(encode(draft))
    return encode(
        structs.replace(
            draft,
            sig=signer.sign(signed).hex(),
            sig_next="" if following is None else following.sign(signed).hex(),
        )
    )


def signed_part(line: bytes) -> bytes:
    """The bytes that the signatures of a line are over. Every string in a manifest is hex or a chain's name."""
    return line.partition(_SIG)[0]


def digest_of(line: bytes) -> str:
    """What the next manifest says as `prev`; `line` without its newline."""
    return sha256(line).hexdigest()


def parse(line: bytes) -> Manifest:
    """Read a line, without its newline. Raises BadManifest unless it has the one right spelling and agrees with itself.

    No signature is checked: that takes a key (`is_signed`).
    """
    try:
        manifest = _decode(line)
        _signature(b'"%b"' % manifest.sig.encode())
        if manifest.next is not None:
            _signature(b'"%b"' % manifest.sig_next.encode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse_newer(line)
        raise BadManifest(f"it is no manifest: {error}") from None
    _refuse_newer(line)
    if encode(manifest) != line:
        raise BadManifest("it is not written the way manifests are")
    fault = _contradiction(manifest)
    if fault:
        raise BadManifest(fault)
    return manifest


def is_signed(manifest: Manifest, line: bytes, public: bytes) -> bool:
    """Whether `public` is the key this manifest names, and signed it; where keys change, the next one must have too."""
    signed = signed_part(line)
    if manifest.key != key_id_of(public) or not verify_signature(public, signed, bytes.fromhex(manifest.sig)):
        return False
    return manifest.next is None or is_handed_over(manifest, line)


def is_handed_over(manifest: Manifest, line: bytes) -> bool:
    """Whether the key that this manifest names as its next has signed it too: so its owner accepted the manifest."""
    if manifest.next is None:
        return False
    public = bytes.fromhex(manifest.next.public)
    signature = bytes.fromhex(manifest.sig_next)
    return manifest.next.key == key_id_of(public) and verify_signature(public, signed_part(line), signature)


def chain_order(chain: str) -> tuple[bool, int, str]:
    """What chains are sorted by in a manifest: workers by slot, then control."""
    return chain == CONTROL, len(chain), chain


def fault_after(previous: Manifest, previous_line: bytes, manifest: Manifest) -> str:
    """Why `manifest` cannot be the one after `previous`; "" when it can. Lines come without their newlines."""
    if manifest.node != previous.node:
        return f"it is of node {manifest.node}, the one before it of node {previous.node}"
    if manifest.n != previous.n + 1:
        return f"it is number {manifest.n} and follows number {previous.n}"
    if manifest.prev != digest_of(previous_line):
        return "its `prev` is not the hash of the manifest before it"
    if manifest.key != previous.signer_after():
        return f"it is signed by key {manifest.key}, and the one before it expects key {previous.signer_after()}"
    return _chains_fault(previous, manifest) or _floors_fault(previous, manifest)


# --- reading what was written ---------------------------------------------------------------------------------------


def lines(journal: Path) -> Iterator[bytes]:
    """Every manifest's line in order, without newlines; a last one that is not complete is left out. Raises OSError."""
    for path in manifest_files(journal):
        with path.open("rb") as file:
            yield from (line[:-1] for line in file if line.endswith(b"\n"))


def last_line(journal: Path) -> bytes | None:
    """The newest manifest's line, without its newline; None when nothing was ever signed. Raises OSError."""
    for path in reversed(manifest_files(journal)):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        if whole:
            return whole[whole.rfind(b"\n") + 1 :]
    return None


def last_manifest(journal: Path) -> Manifest | None:
    """The newest manifest; None when nothing was ever signed. Its signature is not checked.

    Raises OSError, and BadManifest when it is damaged.
    """
    line = last_line(journal)
    return None if line is None else parse(line)


# --- what a manifest may not say ------------------------------------------------------------------------------------


def _next_key(following: Signer | None) -> NextKey | None:
    return None if following is None else NextKey(following.key_id, following.public.hex())


def _refuse_newer(line: bytes) -> None:
    try:
        version = _version(line).v
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if version > MANIFEST_VERSION:
        raise NewerManifest(f"it has version {version}, this build reads {MANIFEST_VERSION}: use a newer build")


def _contradiction(manifest: Manifest) -> str:
    """What is wrong within one manifest, "" when nothing is."""
    return _head_fault(manifest) or _order_fault(manifest) or _count_fault(manifest)


def _head_fault(manifest: Manifest) -> str:
    if manifest.v != MANIFEST_VERSION:
        return f"it has version {manifest.v}, this build reads {MANIFEST_VERSION}"
    if (manifest.n == 0) != (manifest.prev == FIRST_PREV):
        return "only the first manifest has none before it"
    if (manifest.next is None) != (manifest.sig_next == ""):
        return "a second signature belongs to a change of keys, and to nothing else"
    return ""


def _order_fault(manifest: Manifest) -> str:
    names = [end.chain for end in manifest.chains]
    if not _in_order(names) or not _in_order([floor.chain for floor in manifest.floors]):
        return "its chains are not in order, or one is named twice"
    if any(chain not in names for chain in manifest.first):
        return "it counts lines of a chain whose end it does not state"
    if list(manifest.first) != [chain for chain in names if chain in manifest.first]:
        return "its new lines are not in the order of its chains"
    return ""


def _count_fault(manifest: Manifest) -> str:
    counts = [end.seq - manifest.first[end.chain] + 1 for end in manifest.chains if end.chain in manifest.first]
    if any(count <= 0 for count in counts) or any(first < 0 for first in manifest.first.values()):
        return "it says that lines are new which its chains do not reach"
    if sum(counts) != manifest.leaves:
        return f"it has {manifest.leaves} leaves and names {sum(counts)} new lines"
    ends = {end.chain: end for end in manifest.chains}
    if any(floor.chain not in ends or floor.seq > ends[floor.chain].seq + 1 for floor in manifest.floors):
        return "a chain is said to begin after its own end"
    return "" if manifest.manifest_floor is None or manifest.manifest_floor.n <= manifest.n else "its floor is above it"


def _in_order(names: list[str]) -> bool:
    """Whether these are names of chains, each once: the workers' by slot, then control's."""
    keys = [chain_order(name) for name in names]
    return all(is_chain(name) for name in names) and all(before < after for before, after in pairwise(keys))


def _chains_fault(previous: Manifest, manifest: Manifest) -> str:
    ends = {end.chain: end for end in manifest.chains}
    for before in previous.chains:
        after = ends.pop(before.chain, None)
        if after is None:
            return f"chain {before.chain} is gone"
        new = manifest.first.get(before.chain)
        if new is None and after != before:
            return f"chain {before.chain} ends elsewhere than before, and has no new lines"
        if new is not None and new != before.seq + 1:
            return f"chain {before.chain} goes on with line {new} after line {before.seq}"
        if new is not None and (after.segment, after.offset) <= (before.segment, before.offset):
            return f"chain {before.chain} has new lines, and its end goes back"
    strange = next((chain for chain in ends if manifest.first.get(chain) != 0), "")
    return f"chain {strange} begins in the middle" if strange else ""


def _floors_fault(previous: Manifest, manifest: Manifest) -> str:
    floors = {floor.chain: floor for floor in manifest.floors}
    for before in previous.floors:
        after = floors.get(before.chain)
        if after != before and (after is None or after.segment <= before.segment or after.seq < before.seq):
            return f"the beginning of chain {before.chain} goes back"
    before_n = 0 if previous.manifest_floor is None else previous.manifest_floor.n
    after_n = 0 if manifest.manifest_floor is None else manifest.manifest_floor.n
    return "" if after_n >= before_n else "the beginning of the manifests goes back"
