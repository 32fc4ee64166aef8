"""An open-addressed index in shared words: from a tag to the number of a row or a hold.

A place holds 0, or a tag and a number: `tag << 24 | number + 1`. A tag's home is `tag & mask`; a collision goes to the
next place. What is removed leaves no tombstone: the entries behind it move up, so searches stay as short as the index
is empty (it is never more than half full), however long it is in use.

Invariants: between an entry and its home no place is empty; a number is in the index once at most. Equal tags may
occur: the caller looks whether the number found is the one meant. Left out: storing, for which the changes are returned
(`undo.py`).
"""

from collections.abc import Iterator
from typing import Final

from gateway.limiter.undo import Change
from gateway.segment import WORD

NUMBER_BITS: Final = 24
NUMBER_MASK: Final = (1 << NUMBER_BITS) - 1
TAG_MASK: Final = (1 << (62 - NUMBER_BITS)) - 1


class Index:
    """One index: `size` places, a power of two, from word `at` on."""

    __slots__ = ("at", "mask", "words")

    def __init__(self, words: memoryview, at: int, size: int) -> None:
        self.words = words
        self.at = at
        self.mask = size - 1

    def candidates(self, tag: int) -> Iterator[int]:
        """The numbers that stand under this tag."""
        words, at, mask = self.words, self.at, self.mask
        place = tag & mask
        while entry := words[at + place]:
            if entry >> NUMBER_BITS == tag:
                yield (entry & NUMBER_MASK) - 1
            place = (place + 1) & mask

    def insertion(self, tag: int, number: int) -> Change:
        """The change that puts the number under this tag."""
        words, at, mask = self.words, self.at, self.mask
        place = tag & mask
        while words[at + place]:
            place = (place + 1) & mask
        return (at + place) * WORD, tag << NUMBER_BITS | number + 1

    def blank(self, tag: int, number: int) -> bool:
        """Remove the number from its home by one store, if it stands there and nothing behind it has to move up."""
        words, at, mask = self.words, self.at, self.mask
        home = place = tag & mask
        if words[at + home] != tag << NUMBER_BITS | number + 1:
            return False
        while True:
            place = (place + 1) & mask
            entry = words[at + place]
            if not entry:
                words[at + home] = 0
                return True
            if entry >> NUMBER_BITS & mask != place:
                return False

    def removal(self, tag: int, number: int) -> list[Change]:
        """The changes that take the number from under this tag; none when it is not there."""
        words, at, mask = self.words, self.at, self.mask
        wanted = tag << NUMBER_BITS | number + 1
        hole = tag & mask
        while (entry := words[at + hole]) != wanted:
            if not entry:
                return []
            hole = (hole + 1) & mask
        changes: list[Change] = []
        place = (hole + 1) & mask
        while entry := words[at + place]:
            home = (entry >> NUMBER_BITS) & mask
            if (place - home) & mask >= (place - hole) & mask:  # it may stand where the hole is
                changes.append(((at + hole) * WORD, entry))
                hole = place
            place = (place + 1) & mask
        changes.append(((at + hole) * WORD, 0))
        return changes
