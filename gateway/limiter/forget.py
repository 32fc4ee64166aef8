"""Forgetting buckets of the shared table: their limit was taken out of the config, so what was used counts no more.

Rows are found by their names, since nobody has a list of the buckets there are. The table may have millions, and
requests wait for its mutex: so names are read without it, and rows are emptied a few at a time under it, after looking
whether they are still the ones that were meant. An empty row is a full bucket, and is reclaimed like one.

What is SLOTS is left as it is: it counts requests that are on their way, and is empty when they end. A hold that was
reserved before, and is settled after, charges at most what it has used beyond its reservation.

Invariants: a row that is emptied has the very name that was asked for. Left out: which limits are gone, and a store.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from gateway.limiter.layout import AT_ROW_TOP, NAME_BYTES
from gateway.limiter.spec import Kind
from gateway.limiter.table import Table
from gateway.segment import WORD

_KINDS: Final = (Kind.RATE, Kind.WINDOW)


class Named(NamedTuple):
    """A row that counts something, as it was when it was looked at. `cut`: its name is longer than is kept of it."""

    number: int
    kind: Kind
    name: str
    cut: bool


def named(table: Table) -> Iterator[Named]:
    """Every bucket that has a row, slots apart; without the mutex, so what changes meanwhile may be left out."""
    rows, words = table.rows, table.words
    for number in range(words[AT_ROW_TOP]):
        at = rows.at(number)
        tag, kind, name = words[at // WORD], rows.kind(at), rows.name(at)
        if tag and kind in _KINDS and words[at // WORD] == tag:  # it is the same one that the name was read of
            yield Named(number, Kind(kind), name, len(name.encode()) >= NAME_BYTES)


def forget(table: Table, gone: Iterable[Named]) -> int:
    """Empty these rows, a few, where they still are what they were; how many. Raises MutexBusy, MutexLost."""
    rows, emptied = table.rows, 0
    with table.locked():
        for row in gone:
            at = rows.at(row.number)
            if table.words[at // WORD] and (rows.kind(at), rows.name(at)) == (row.kind, row.name):
                rows.empty(at)
                emptied += 1
    return emptied
