"""What was read of the journal last, for the next reader: most of a reader's time goes into decoding lines.

Readers follow the same signed places at the same pace, so they want the same lines within a moment. The last pieces
that were read stay; who comes while a chain is being read waits for it. A reader that is elsewhere reads for itself.

Invariants: what is given out are lines from the place that was asked for on, all of them before the end that was asked
for; entries are never changed by who has them. Memory: the pieces of all chains together are no more than
`MAX_KEPT_BYTES`, or one.
"""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.journal.read import Entry, Place

MAX_KEPT_BYTES: Final = 2 * 2**20  # of lines as they stand in the journal; decoded they take some four times as much


class _Piece(NamedTuple):
    chain: str
    start: Place
    entries: list[Entry]
    size_bytes: int

    def lines(self, start: Place, end: Place) -> list[Entry]:
        """Its lines from `start` on, before `end`; none where `start` is not in it."""
        first, last = 0, len(self.entries)
        if start != self.start:
            first = bisect_right(self.entries, start, key=_after)
            if not first or self.entries[first - 1].after != start:
                return []
        if self.entries[-1].after > end:
            last = bisect_right(self.entries, end, key=_after)
        return self.entries[first:last]


class Lately:
    """The pieces that were read last. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._pieces = deque[_Piece]()
        self._kept_bytes = 0
        self._keeping = threading.Lock()
        self._reading: dict[str, threading.Lock] = {}
        self.hits = 0

    def read(self, chain: str, start: Place, end: Place, decode: Callable[[], list[Entry]]) -> list[Entry]:
        """Some lines from `start` on, before `end`; `decode` reads them where they were not read just now."""
        with self._reading.setdefault(chain, threading.Lock()):
            found = self._found(chain, start, end)
            if found:
                self.hits += 1
                return found
            found = decode()
            if found:
                self._keep(_Piece(chain, start, found, sum(len(entry.raw) for entry in found)))
            return found

    def _found(self, chain: str, start: Place, end: Place) -> list[Entry]:
        with self._keeping:
            for piece in self._pieces:
                if piece.chain == chain and piece.start <= start < piece.entries[-1].after:
                    return piece.lines(start, end)
        return []

    def _keep(self, piece: _Piece) -> None:
        with self._keeping:
            self._pieces.append(piece)
            self._kept_bytes += piece.size_bytes
            while self._kept_bytes > MAX_KEPT_BYTES and len(self._pieces) > 1:
                self._kept_bytes -= self._pieces.popleft().size_bytes


def _after(entry: Entry) -> Place:
    return entry.after
