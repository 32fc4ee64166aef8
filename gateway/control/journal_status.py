"""How the journal is, as one document: what `GET /v1/journal` answers and `gateway journal status` shows.

    {"node","used_bytes","manifest_bytes","oldest_us","chains":[…],"manifest":{…},"holds":[…],"readers":[…],
     "poison":{…},"retention":{…},"problems":[…]}

Made from the files, so that it is the same whether the node runs or not; what only a running control knows (why a
reader waits, what retention may not drop) is laid over it. What cannot be read is a line in `problems`, and no reason
to say nothing of the rest.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.control import inventory
from gateway.control.expiry import RetentionSettings
from gateway.control.holds import HoldsUnreadable
from gateway.control.holds import read as read_holds
from gateway.control.inventory import Segment
from gateway.control.readers import aside
from gateway.journal import layout
from gateway.journal.layout import NoJournal
from gateway.journal.manifest import BadManifest, Manifest, last_manifest


def document(state_dir: Path, settings: RetentionSettings) -> dict[str, Any]:
    """The journal as it lies there. Raises NoJournal, OSError."""
    journal = layout.journal_of(state_dir)
    problems = list[str]()
    manifest = _manifest(journal, problems)
    if not journal.is_dir():
        raise NoJournal(f"there is no journal in {state_dir}: the gateway makes it when it first runs")
    stock = inventory.take(journal)
    chains = [_chain(journal, name, segments, manifest) for name, segments in stock.chains.items()]
    return {
        "node": layout.node_id(journal),
        "used_bytes": stock.bytes,
        "manifest_bytes": stock.manifest_bytes,
        "oldest_us": min((chain["oldest_us"] for chain in chains if chain["oldest_us"]), default=0),
        "chains": chains,
        "manifest": None if manifest is None else {"n": manifest.n, "at_us": manifest.at_us, "key": manifest.key},
        "holds": _holds(journal, problems),
        "readers": [],
        "poison": _poison(state_dir),
        "retention": settings._asdict(),
        "problems": problems,
    }


def lag(told: Mapping[str, Any], seqs: Mapping[str, int]) -> int:
    """Signed lines behind which a reader has not come; `seqs`: the last line behind it, of each chain it has begun."""
    return sum(
        max(0, chain["signed"]["seq"] - seqs.get(chain["chain"], -1)) for chain in told["chains"] if chain["signed"]
    )


def _chain(journal: Path, name: str, segments: Iterable[Segment], manifest: Manifest | None) -> dict[str, Any]:
    held = [segment for segment in segments if segment.bytes]
    first = inventory.first_line(journal, name, held[0].number) if held else None
    end = None if manifest is None else manifest.end_of(name)
    return {
        "chain": name,
        "segments": len(held),
        "oldest_segment": held[0].number if held else 0,
        "newest_segment": held[-1].number if held else 0,
        "bytes": sum(segment.all_bytes for segment in held),
        "first_seq": -1 if first is None else first.seq,
        "oldest_us": 0 if first is None else first.record.at_us,
        "signed": None if end is None else {"segment": end.segment, "offset": end.offset, "seq": end.seq},
        "unsigned_bytes": sum(segment.bytes for segment in held)
        if end is None
        else _beyond(held, end.segment, end.offset),
    }


def _beyond(segments: Iterable[Segment], number: int, offset: int) -> int:
    """Bytes behind a place."""
    return sum(
        max(0, segment.bytes - offset) if segment.number == number else segment.bytes
        for segment in segments
        if segment.number >= number
    )


def _manifest(journal: Path, problems: list[str]) -> Manifest | None:
    try:
        return last_manifest(journal)
    except BadManifest as error:
        problems.append(f"the newest manifest is damaged: {error}; see `gateway audit verify`")
        return None


def _holds(journal: Path, problems: list[str]) -> list[Any]:
    try:
        return [msgspec.to_builtins(hold) for hold in read_holds(journal)]
    except HoldsUnreadable as error:
        problems.append(str(error))
        return []


def _poison(state_dir: Path) -> dict[str, int]:
    """By reader, the bytes of what it could not take."""
    directory = state_dir / aside.DIRECTORY
    found = sorted(directory.glob("*.jsonl")) if directory.is_dir() else []
    return {path.stem: path.stat().st_size for path in found}
