"""What was read of the journal last, for the next reader: most of a reader's time goes into decoding lines.

Readers follow the same signed places at the same pace, so they want the same lines within a moment. The last pieces
that were read stay; who comes while a chain is being read waits for it. A reader that is elsewhere reads for itself.

Invariants: what is given out are lines from the place that was asked for on, all of them before the end that was asked
for; entries are never changed by who has them. Memory: the pieces of all chains together are no more than
`MAX_KEPT_BYTES`, or one; those of one chain are no more than `MAX_PIECES`, all of which a reader that is elsewhere
looks at while others wait.
"""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, NamedTuple

from gateway.journal.read import Entry, Place

MAX_KEPT_BYTES: Final = 2 * 2**20  # of lines as they stand in the journal; decoded they take some four times as much
MAX_PIECES: Final = 64  # of a chain: where little is written a piece is a line or two, and 2 MiB were 2,600 of them


class _Piece(NamedTuple):
    number: int  # the first that was kept has the lowest
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
        self._pieces: dict[str, deque[_Piece]] = {}  # of each chain that has any, the newest last
        self._numbers = count()
        self._kept_bytes = 0
        self._keeping = threading.Lock()
        self._reading: dict[str, threading.Lock] = {}

    def read(self, chain: str, start: Place, end: Place, decode: Callable[[], list[Entry]]) -> list[Entry]:
        """Some lines from `start` on, before `end`; `decode` reads them where they were not read just now."""
        with self._reading.setdefault(chain, threading.Lock()):
            found = self._found(chain, start, end)
            if found:
                return found
            found = decode()
            if found:
                self._keep(chain, start, found)
            return found

    def _found(self, chain: str, start: Place, end: Place) -> list[Entry]:
        with self._keeping:
            for piece in reversed(self._pieces.get(chain, ())):
                if piece.start <= start < piece.entries[-1].after:
                    return piece.lines(start, end)
        return []

    def _keep(self, chain: str, start: Place, found: list[Entry]) -> None:
        size_bytes = sum(len(entry.raw) for entry in found)
        with self._keeping:
            pieces = self._pieces.setdefault(chain, deque())
            pieces.append(_Piece(next(self._numbers), start, found, size_bytes))
            self._kept_bytes += size_bytes
            if len(pieces) > MAX_PIECES:
                self._drop_oldest(chain)
            while self._kept_bytes > MAX_KEPT_BYTES and self._kept_bytes > size_bytes:
                self._drop_oldest(min(self._pieces, key=self._oldest))

    def _oldest(self, chain: str) -> int:
        return self._pieces[chain][0].number

    def _drop_oldest(self, chain: str) -> None:
        pieces = self._pieces[chain]
        self._kept_bytes -= pieces.popleft().size_bytes
        if not pieces:
            del self._pieces[chain]


def _after(entry: Entry) -> Place:
    return entry.after
