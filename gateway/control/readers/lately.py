"""What was read of the journal last, for the next reader: most of a reader's time goes into decoding lines.

Readers follow the same signed places at the same pace, so they want the same lines within a moment. Of each chain the
last batch stays; who comes while it is being read waits for it. A reader that is elsewhere reads for itself.

Invariants: what is given out is a batch from the place that was asked for, all of it before the end that was asked for;
entries are never changed by who has them. Memory: one batch a chain, and none above `MAX_KEPT_BYTES`.
"""

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.journal.read import Entry, Place

MAX_KEPT_BYTES: Final = 4 * 2**20  # of lines as they stand in the journal; decoded they take some four times as much


class _Batch(NamedTuple):
    start: Place
    entries: list[Entry]


class Lately:
    """The batches that were read last. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._batches: dict[str, _Batch] = {}
        self._locks: dict[str, threading.Lock] = {}
        self.hits = 0

    def read(self, chain: str, start: Place, end: Place, decode: Callable[[], list[Entry]]) -> list[Entry]:
        """A batch of lines from `start` on, before `end`; `decode` reads it where it was not read just now."""
        with self._locks.setdefault(chain, threading.Lock()):
            kept = self._batches.get(chain)
            if kept is not None and kept.start == start:
                found = [entry for entry in kept.entries if entry.after <= end]
                if found:
                    self.hits += 1
                    return found
            found = decode()
            if sum(len(entry.raw) for entry in found) <= MAX_KEPT_BYTES:
                self._batches[chain] = _Batch(start, found)
            return found
