"""Chains on the disk, written the plain way: what tests of their readers start from."""

from pathlib import Path

from gateway.journal import layout
from gateway.journal.line import body_of, content_of, genesis, leaf_of, line_of, link
from gateway.record import Kind, Record

NODE = "0123456789abcdef" * 2


class ChainFiles:
    """One chain; `lines` and `leaves` are all it ever held, `head` is its head. Nothing is synced."""

    def __init__(self, journal: Path, chain: str = "w0", node: str = NODE) -> None:
        self._journal = journal
        self.chain = chain
        self.node = node
        self.segment = 1
        self.lines: list[bytes] = []
        self.leaves: list[bytes] = []
        self.head = genesis(node, chain)
        (journal / chain).mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        """The segment that is being written."""
        return layout.segment_path(self._journal, self.chain, self.segment)

    def append(self, count: int = 1, detail: str = "") -> list[bytes]:
        """Write so many lines; the lines."""
        made = [self._make(detail) for _ in range(count)]
        with self.path.open("ab") as file:
            file.write(b"".join(made))
        return made

    def roll(self, *, prepared: bool = False) -> None:
        """Go on in the next segment; `prepared`: it is there, and empty."""
        self.segment += 1
        if prepared:
            self.path.touch()

    def misnumber(self) -> None:
        """Write a line that chains and has another number than it should: what a defect of a writer would do."""
        with self.path.open("ab") as file:
            file.write(self._make("", seq=len(self.lines) + 1))

    def _make(self, detail: str, seq: int = -1) -> bytes:
        seq = len(self.lines) if seq < 0 else seq
        body = body_of(seq, content_of(Record(Kind.OUTCOME, f"{self.chain}-{seq}", seq, detail=detail)))
        leaf = leaf_of(body)
        self.head = link(self.head, leaf)
        self.leaves.append(leaf)
        self.lines.append(line_of(body, self.head))
        return self.lines[-1]
