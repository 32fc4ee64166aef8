"""Whole journals, made line by line with the real format: chains, segments, manifests, repairs, floors, rotations.

    made = AJournal(tmp_path)
    made.write("w0", 3)     # lines in a chain, a segment's header before the first
    made.roll("w0")         # the next segment
    made.sign()             # a manifest over all there is
    assert made.public in ...

Everything is on the disk at once, and time goes on by a millisecond a line, so two journals made alike are alike but
for their keys.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.journal import layout
from gateway.journal.line import body_of, content_of, genesis, leaf_of, line_of, link
from gateway.journal.manifest import FIRST_PREV, ChainEnd, Floor, Manifest, ManifestFloor, digest_of, sign
from gateway.journal.merkle import root_of
from gateway.journal.signing import Signer, load_signer, rotate, switch
from gateway.record import Kind, Record
from gateway.units import US_PER_S

NODE = "5a" * 16
START_US = 1_800_000_000_000_000


@dataclass
class AChain:
    """The end of a chain, and what of it is not signed yet."""

    name: str
    head: bytes
    segment: int = 0
    offset: int = 0
    seq: int = 0
    new: list[bytes] = field(default_factory=list)
    ends: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # segment -> number and head it begins with


class AJournal:
    """A journal under construction in `state_dir`; `journal` is its directory, `public` the hex of its newest key."""

    def __init__(self, state_dir: Path, node: str = NODE) -> None:
        self.state_dir = state_dir
        self.journal = layout.journal_of(state_dir)
        self.signing = layout.signing_of(state_dir)
        self.node = node
        self.now_us = START_US
        self.manifests: list[bytes] = []
        self.floors: dict[str, Floor] = {}
        self.manifest_floor: ManifestFloor | None = None
        self._chains: dict[str, AChain] = {}
        self._signed: dict[str, int] = {}
        self._file = 1
        self.journal.mkdir(parents=True)
        (self.journal / "node.json").write_text(json.dumps({"v": 1, "node": node}) + "\n")
        (self.journal / layout.MANIFESTS).mkdir()
        self.signer: Signer = load_signer(self.signing)

    @property
    def public(self) -> str:
        return self.signer.public.hex()

    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.now_us += seconds * US_PER_S

    # --- chains -----------------------------------------------------------------------------------------------------

    def write(self, chain: str, count: int = 1, **fields: object) -> list[str]:
        """Outcomes of that many exchanges, with these fields of a Record; the ids of their lines."""
        ids = []
        for _ in range(count):
            at = self.chain(chain)
            given = {"kind": Kind.OUTCOME, "exchange_id": f"x-{chain}-{at.seq}", "org": "acme"} | fields
            self.add(chain, msgspec.convert({"at_us": self._tick()} | given, Record))
            ids.append(f"{self.node}/{chain}/{at.segment}/{at.seq - 1}")
        return ids

    def add(self, chain: str, record: Record) -> None:
        """One record, as it is."""
        at = self.chain(chain)
        body = body_of(at.seq, content_of(record))
        at.head = link(at.head, leaf_of(body))
        line = line_of(body, at.head)
        with self.path(chain, at.segment).open("ab") as file:
            file.write(line)
        at.new.append(leaf_of(body))
        at.offset += len(line)
        at.seq += 1

    def roll(self, chain: str, opened_by: str = "start") -> None:
        """Begin the next segment of a chain; `size`: as the process does that wrote the one before."""
        at = self._chains.setdefault(chain, AChain(chain, genesis(self.node, chain)))
        at.segment, at.offset = at.segment + 1, 0
        at.ends[at.segment] = (at.seq, at.head)
        self.path(chain, at.segment).parent.mkdir(exist_ok=True)
        header = Record(
            Kind.CHECKPOINT,
            "",
            self._tick(),
            node=self.node,
            chain=chain,
            action="segment",
            segment=at.segment,
            prev=at.head.hex(),
            detail=json.dumps({"format": 1, "opened_by": opened_by, "pid": 1, "version": "1"}),
        )
        self.add(chain, header)

    def repair(self, chain: str, torn: bytes, signer: Signer | None = None) -> None:
        """What is left of a torn write: the bytes set aside, and the record that says so."""
        at = self.chain(chain)
        (self.journal / chain / f"torn-{at.segment}-{at.offset}").write_bytes(torn)
        digest, prev = hashlib.sha256(torn).hexdigest(), at.head.hex()
        detail = json.dumps(
            {"cut_bytes": len(torn), "cut_sha256": digest, "after_seq": at.seq - 1, "offset": at.offset}
        )
        signed = f"gateway repair 1\n{self.node}\n{chain}\n{prev}\n{detail}".encode()
        by = signer or self.signer
        self.add(
            chain,
            Record(
                Kind.CHECKPOINT,
                "",
                self._tick(),
                action="repaired",
                subject=f"{chain}/{at.segment}",
                detail=detail,
                prev=prev,
                signature=by.sign(signed).hex(),
                signed_by=by.key_id,
            ),
        )

    def chain(self, chain: str) -> AChain:
        """The end of a chain, which is begun if need be."""
        if chain not in self._chains:
            self.roll(chain)
        return self._chains[chain]

    def path(self, chain: str, segment: int) -> Path:
        return layout.segment_path(self.journal, chain, segment)

    # --- manifests --------------------------------------------------------------------------------------------------

    def sign(self, *, rotating: bool = False) -> Manifest:
        """A manifest over everything there is; `rotating`: it hands over to a new key."""
        following = rotate(self.signing) if rotating else None
        chains = [self._chains[name] for name in layout.chains(self.journal) if name in self._chains]
        leaves = [leaf for at in chains for leaf in at.new]
        draft = Manifest(
            v=1,
            node=self.node,
            n=len(self.manifests),
            at_us=self._tick(),
            prev=digest_of(self.manifests[-1]) if self.manifests else FIRST_PREV,
            chains=tuple(ChainEnd(at.name, at.segment, at.offset, at.seq - 1, at.head.hex()) for at in chains),
            floors=tuple(self.floors[at.name] for at in chains if at.name in self.floors),
            manifest_floor=self.manifest_floor,
            first={at.name: at.seq - len(at.new) for at in chains if at.new},
            leaves=len(leaves),
            root=root_of(leaves).hex(),
            key="",
            sig="",
        )
        line = sign(draft, self.signer, following)
        self.manifests.append(line)
        with self.manifest_path().open("ab") as file:
            file.write(line + b"\n")
        for at in chains:
            at.new.clear()
        if following is not None:
            self.signer = switch(self.signing, following.key_id)
        return msgspec.json.decode(line, type=Manifest)

    def roll_manifests(self) -> None:
        """Begin the next file of manifests."""
        self._file += 1

    def manifest_path(self, number: int = 0) -> Path:
        return self.journal / layout.MANIFESTS / f"{number or self._file:010d}.jsonl"

    # --- retention --------------------------------------------------------------------------------------------------

    def drop(self, chain: str, below: int) -> None:
        """Sign that a chain begins with segment `below`, and remove what is before."""
        self.raise_floor(chain, below)
        for segment in layout.segments(self.journal, chain):
            if segment < below:
                self.path(chain, segment).unlink()

    def raise_floor(self, chain: str, segment: int) -> None:
        """Only sign it."""
        seq, head = self._chains[chain].ends[segment]
        self.floors[chain] = Floor(chain, segment, seq, head.hex())
        self.sign()

    def drop_manifests(self, below: int) -> None:
        """Sign that the manifests begin with the file `below`, and remove those before."""
        first = msgspec.json.decode(self.manifest_path(below).read_bytes().split(b"\n")[0], type=Manifest)
        self.manifest_floor = ManifestFloor(first.n, first.prev)
        self.sign()
        for number in range(1, below):
            self.manifest_path(number).unlink()

    def _tick(self) -> int:
        self.now_us += 1000
        return self.now_us


def a_whole_journal(state_dir: Path, node: str = NODE) -> AJournal:
    """Two chains of workers and control's, several segments, a repair, a change of keys, and everything signed."""
    made = AJournal(state_dir, node)
    made.write("w0", 3)
    made.write("control", 1, kind=Kind.ADMIN, exchange_id="", action="config.reload", actor="ann")
    made.sign()
    made.write("w1", 2)
    made.write("w0", 2)
    made.sign()
    made.roll("w0")
    made.write("w0", 3)
    made.sign(rotating=True)
    made.roll_manifests()
    made.wait(60)
    made.repair("w1", b'{"seq":3,"kind":"outc')
    made.write("w1", 2)
    made.roll("w1")
    made.write("w1", 2)
    made.sign()
    made.sign()
    made.roll("w0")
    made.write("w0", 2)
    made.sign()
    return made
