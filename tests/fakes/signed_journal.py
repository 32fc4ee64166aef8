"""A journal as readers find it: real segments of real lines, and how far they are signed, without who wrote them."""

import secrets
from pathlib import Path

from gateway.control.readers.runner import Source
from gateway.journal import layout
from gateway.journal.line import body_of, content_of, genesis, leaf_of, line_of, link
from gateway.journal.read import Place
from gateway.record import Kind, Record


class Chain:
    """One chain under way."""

    def __init__(self, journal: Path, name: str, node: str) -> None:
        self.journal = journal
        self.name = name
        self.segment = 1
        self.seq = -1
        self.head = genesis(node, name)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        return layout.segment_path(self.journal, self.name, self.segment)

    @property
    def end(self) -> Place:
        return Place(self.segment, self.path.stat().st_size if self.path.exists() else 0)

    def write(self, *things: Record | bytes) -> None:
        """Records as lines of the chain, and bytes as they are: each a line that counts, and is none."""
        with self.path.open("ab") as file:
            for thing in things:
                self.seq += 1
                file.write(self._line(thing) if isinstance(thing, Record) else thing + b"\n")

    def _line(self, record: Record) -> bytes:
        body = body_of(self.seq, content_of(record))
        self.head = link(self.head, leaf_of(body))
        return line_of(body, self.head)

    def roll(self) -> None:
        """Go on in the next segment."""
        self.segment += 1
        self.path.touch()


class SignedJournal:
    """Chains by name; `sign` makes what is written readable."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.journal = layout.journal_of(state_dir)
        self.node = layout.ensure_node(self.journal)
        self.chains: dict[str, Chain] = {}
        self.signed = dict[str, Place]()
        self.heads = dict[str, int]()

    def chain(self, name: str = "w0") -> Chain:
        if name not in self.chains:
            self.chains[name] = Chain(self.journal, name, self.node)
        return self.chains[name]

    def write(self, *things: Record | bytes, chain: str = "w0") -> None:
        """Write to a chain, and sign."""
        self.chain(chain).write(*things)
        self.sign()

    def sign(self) -> None:
        self.signed = {name: chain.end for name, chain in self.chains.items()}
        self.heads = {name: chain.seq for name, chain in self.chains.items()}

    def source(self) -> Source:
        return Source(self.journal, self.node, lambda: self.signed, lambda: self.heads)


def outcome(exchange_id: str = "", at_us: int = 1, **fields: object) -> Record:
    """An outcome record."""
    values: dict[str, object] = {"ending": "complete", **fields}
    return Record(Kind.OUTCOME, exchange_id or secrets.token_hex(8), at_us, **values)  # type: ignore[arg-type]
