"""What a check of a journal came to: findings, what was read, what was signed, and what was not looked at.

A *finding* says that the journal is not what its writer left, or cannot be shown to be. A *note* says what is odd and
harmless. Without a public key nothing is known of who made the journal, and the report says `integrity only`: whoever
can write to the directory could have made all of it anew.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

INTEGRITY_ONLY: Final = "integrity only"


class Fault(Enum):
    """What sort of thing is wrong; the value is what `--json` says."""

    NODE = "node"
    LINE = "line"
    NUMBER = "number"
    LINK = "link"
    HEADER = "header"
    SEGMENT = "segment"
    REPAIR = "repair"
    TORN = "torn"
    INCOMPLETE = "incomplete"
    MANIFEST = "manifest"
    SIGNATURE = "signature"
    KEY = "key"
    REWRITTEN = "rewritten"
    CUT = "cut"
    CHAIN = "chain"
    UNSIGNED = "unsigned"
    FLOOR = "floor"
    ANCHOR = "anchor"


MEANING: Final = {
    Fault.NODE: "the file that names the node was changed, or comes from another journal",
    Fault.LINE: "bytes were changed, added or removed here",
    Fault.NUMBER: "lines were removed, moved or put in here",
    Fault.LINK: "this line was changed, or one before it was changed and given a new hash",
    Fault.HEADER: "this segment was changed, moved here from elsewhere, or written by something else",
    Fault.SEGMENT: "a whole file of the chain was removed, renamed or put in",
    Fault.REPAIR: "nobody who holds the signing key wrote this repair: lines may have been cut in its name",
    Fault.TORN: "the bytes that a repair set aside were changed since",
    Fault.INCOMPLETE: "a write was cut short (the gateway repairs that when it starts), or bytes were added or removed",
    Fault.MANIFEST: "the record of what was signed was changed, cut, reordered or replaced by an older one",
    Fault.SIGNATURE: "this manifest was not made by the holder of the signing key, or was changed since",
    Fault.KEY: "no key that you trust vouches for this",
    Fault.REWRITTEN: "lines that were signed have since been changed, and the hashes after them made anew",
    Fault.CUT: "lines that were signed are no longer there",
    Fault.CHAIN: "what a worker wrote is missing, or a chain was put in that nobody signed",
    Fault.UNSIGNED: "nothing vouches for these lines: control was not running, or manifests were removed",
    Fault.FLOOR: "lines are missing that no signed floor says were dropped",
    Fault.ANCHOR: "this journal is older than the anchor, or was cut or written anew after it was anchored",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, and where: in a chain (segment, seq, offset), in a manifest, or in neither."""

    fault: Fault
    message: str
    chain: str = ""
    segment: int = 0
    seq: int = -1
    offset: int = -1
    manifest: int = -1

    @property
    def where(self) -> str:
        """The record's id without its node, the manifest's number, or the journal."""
        if self.chain:
            parts = [self.chain, str(self.segment) if self.segment else "", str(self.seq) if self.seq >= 0 else ""]
            return "/".join(part for part in parts if part)
        return f"manifest {self.manifest}" if self.manifest >= 0 else "journal"

    def __str__(self) -> str:
        """One line: where, what is wrong, what it means."""
        at = f" at byte {self.offset:,}" if self.offset >= 0 else ""
        return f"{self.where}{at}: {self.message}; {MEANING[self.fault]}"


@dataclass(slots=True, kw_only=True)
class ChainReport:
    """What was read of one chain. Numbers are of lines; -1: none."""

    chain: str
    segments: int = 0
    first: int = -1
    last: int = -1
    signed: int = -1  # the last line that the newest manifest vouches for
    lines: int = 0
    size_bytes: int = 0
    whole: bool = True  # read to its end without a finding

    @property
    def unsigned(self) -> int:
        """How many lines follow the last signed one."""
        return max(0, self.last - max(self.signed, self.first - 1))


@dataclass(slots=True, kw_only=True)
class ManifestReport:
    """What was read of the manifests. Numbers count manifests from the journal's first; -1: none."""

    first: int = -1
    last: int = -1
    last_at_us: int = 0
    count: int = 0
    signatures: int = 0  # checked against a key that is trusted
    vouched: int = 0  # signed by a key nobody gave, and linked to by a manifest whose signature was checked
    keys: list[str] = field(default_factory=list)  # ids, in the order they signed


@dataclass(slots=True, kw_only=True)
class Report:
    """What a check found. `since`: the number of the manifest it started from, -1 for all there is."""

    node: str = ""
    since: int = -1
    integrity_only: bool = True
    chains: list[ChainReport] = field(default_factory=list)
    manifests: ManifestReport = field(default_factory=ManifestReport)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with what was looked at."""
        return not self.findings

    @property
    def lines(self) -> int:
        """How many lines were read."""
        return sum(chain.lines for chain in self.chains)

    @property
    def size_bytes(self) -> int:
        """How many bytes of lines were read."""
        return sum(chain.size_bytes for chain in self.chains)

    @property
    def unsigned(self) -> int:
        """How many lines no manifest vouches for."""
        return sum(chain.unsigned for chain in self.chains)

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if self.findings:
            return f"{len(self.findings)} finding{'s' if len(self.findings) > 1 else ''}"
        return INTEGRITY_ONLY if self.integrity_only else "verified"
