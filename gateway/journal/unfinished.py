"""Decisions without an outcome: requests of which nobody will ever say how they ended.

Whoever takes a chain over says so first (`record.begins_a_writer`), so what was decided in it before and has no outcome
gets none: the worker was killed, or could not write. What is behind the last such line may still be under way, and is
not told. Holds in memory what was open at once.

A line that cannot be read may be such a decision, or the outcome of one that is told for want of it, so it is told too,
where nothing is asked for that it would have to say.
"""

import heapq
from collections.abc import Iterator
from pathlib import Path

from gateway.journal import layout
from gateway.journal.read import Entry
from gateway.journal.search import Query, search, start_for
from gateway.record import Kind, begins_a_writer


def unfinished(journal: Path, query: Query) -> Iterator[Entry]:
    """Such decisions, of those that are asked for, of all chains in the order of time. Raises OSError."""
    streams = [_of_chain(journal, chain, query) for chain in layout.chains(journal)]
    return heapq.merge(*streams, key=lambda entry: entry.record.at_us)


def _of_chain(journal: Path, chain: str, query: Query) -> Iterator[Entry]:
    decided: dict[str, Entry] = {}
    for entry in search(journal, chain, Query(), start_for(journal, chain, query.since_us)):
        record = entry.record
        if entry.error:
            yield from filter(query.wants, (entry,))
        elif record.kind is Kind.DECISION:
            decided[record.exchange_id] = entry
        elif record.kind is Kind.OUTCOME:
            decided.pop(record.exchange_id, None)
        elif begins_a_writer(record):
            yield from filter(query.wants, decided.values())
            decided.clear()
