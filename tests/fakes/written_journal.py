"""A journal as its writers leave it, made line by line: real hashes, real first lines, any sizes and times."""

import json
from pathlib import Path

from gateway.journal import layout
from gateway.journal.line import body_of, content_of, genesis, leaf_of, line_of, link
from gateway.journal.read import Place
from gateway.record import Kind, Record

NODE = "a" * 32
REGION = "eu"


class WrittenChain:
    """One chain; `segment` begins a new file, `add` appends to the newest."""

    def __init__(self, journal: Path, node: str, region: str, name: str) -> None:
        self.name = name
        self.node = node
        self.region = region
        self.number = 0
        self.seq = -1
        self.head = genesis(node, name)
        self.lines: list[bytes] = []
        self._journal = journal

    @property
    def path(self) -> Path:
        return layout.segment_path(self._journal, self.name, self.number)

    @property
    def end(self) -> Place:
        return Place(self.number, self.path.stat().st_size)

    def segment(self, at_us: int, *records: Record) -> Path:
        """A new segment that begins with its first line, and these records."""
        self.number += 1
        self.path.parent.mkdir(exist_ok=True)
        first = Record(
            Kind.CHECKPOINT,
            "",
            at_us,
            action="segment",
            node=self.node,
            region=self.region,
            chain=self.name,
            segment=self.number,
            prev=self.head.hex(),
            detail=json.dumps({"format": 1, "opened_by": "start"}),
        )
        self.path.touch(0o600)
        self.add(first, *records)
        return self.path

    def add(self, *records: Record) -> None:
        """Lines at the end."""
        with self.path.open("ab") as file:
            for record in records:
                file.write(self._line(content_of(record)))

    def _line(self, content: bytes) -> bytes:
        self.seq += 1
        body = body_of(self.seq, content)
        self.head = link(self.head, leaf_of(body))
        self.lines.append(line_of(body, self.head))
        return self.lines[-1]


class WrittenJournal:
    """The journal of a state directory."""

    def __init__(self, state_dir: Path, node: str = NODE, region: str = REGION) -> None:
        self.state_dir = state_dir
        self.path = layout.journal_of(state_dir)
        self.node = node
        self.region = region
        self.chains: dict[str, WrittenChain] = {}
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "node.json").write_text(json.dumps({"v": 1, "node": node}) + "\n")

    def chain(self, name: str) -> WrittenChain:
        """One chain, made at its first mention."""
        return self.chains.setdefault(name, WrittenChain(self.path, self.node, self.region, name))

    def signed(self) -> dict[str, Place]:
        """As if everything were signed."""
        return {name: chain.end for name, chain in self.chains.items()}

    def heads(self) -> dict[str, int]:
        """The number of the last line of each chain."""
        return {name: chain.seq for name, chain in self.chains.items()}
