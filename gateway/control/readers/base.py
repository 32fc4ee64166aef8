"""What a reader of the journal is, and the three ways in which it may fail.

A reader takes *batches*: lines of one chain, in order, with the cursor before and the cursor after them. It keeps its
cursors itself, because that alone makes an effect exactly-once: a reader of our database writes effect and cursor in
one transaction. A reader whose effect is elsewhere moves its cursor after the effect, so a crash repeats a batch, and
whoever takes it tells repeats by the record's id.

Invariants: `apply` takes a batch wholly or not at all; a cursor stands after a whole line that is signed. Left out:
reading, waiting and setting aside, which are the same for all readers (`runner.py`).
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gateway.journal.read import START, Entry, Place


class Cursor(NamedTuple):
    """How far a reader has got in one chain."""

    place: Place = START
    seq: int = -1  # of the last line behind it
    missing: int = 0  # lines it never saw, because they had been dropped before it came to them


class Batch(NamedTuple):
    """Lines of one chain. `entries` may be empty, where all of them were set aside: the cursor moves nevertheless."""

    chain: str
    entries: Sequence[Entry]
    before: Cursor
    after: Cursor


class Trouble(Exception):
    """What the reader writes to is down, full or broken: nothing was taken, the same again later.

    The message says what happened and what would help.
    """


class Poison(Exception):
    """A record of the batch cannot be taken, now or ever; `entry` is the one at fault where that is known."""

    def __init__(self, reason: str, entry: Entry | None = None) -> None:
        super().__init__(reason)
        self.entry = entry


class Moved(Exception):
    """Somebody else moved a cursor since it was read, or forgot a user: ask for the cursors again, and go on."""


class Reader(Protocol):
    """One reader. Its methods block, and are called in one thread at a time, never on an event loop's."""

    @property
    def name(self) -> str:
        """In logs and metrics, and the name of its file of poison records."""

    def cursors(self, chains: Sequence[str]) -> dict[str, Cursor]:
        """How far it has got in each of these chains. Raises Trouble."""

    def apply(self, batch: Batch) -> None:
        """Take a batch: effect and cursor, or neither. Raises Trouble, Poison, Moved."""
