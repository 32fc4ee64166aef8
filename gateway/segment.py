"""The control segment: shared memory of one node, in versioned sections that describe themselves.

Models a memfd mapped by the supervisor, every worker and control. A header lists the sections (name, version,
offset, size), so that a process of another build finds what it knows and leaves alone what it does not. A section
is an array of signed 64-bit words; each word names its single writer or its lock in the module that declares it.

Invariants: the layout never changes after creation; aligned 8-byte stores are atomic on the machines we run on
(x86-64, arm64), so a reader sees the old word or the new one, never half. Left out: what the words mean.

Layout, little-endian words: magic, LAYOUT_VERSION, slot count, section count, then per section eight words:
name (3 words, zero-padded UTF-8), version, byte offset, byte size, 2 reserved.
"""

import mmap
import os
from collections.abc import Iterable
from typing import Final

import msgspec

MAGIC: Final = 0x45434955_4C535347  # "GSSLUICE", read as one word
LAYOUT_VERSION: Final = 1
WORD: Final = 8
_HEAD_WORDS: Final = 4
_ENTRY_WORDS: Final = 8
_NAME_BYTES: Final = 3 * WORD
_PAGE: Final = 4096


class Section(msgspec.Struct, frozen=True):
    """One part of the segment: `words_per_slot` for every worker slot, plus `words_shared` in front.

    An `elastic` one is used at the size it was made with, whatever is declared: what it holds outlives the setting that
    sized it. It says its own layout, and has nothing per slot.
    """

    name: str
    version: int
    words_shared: int = 0
    words_per_slot: int = 0
    elastic: bool = False

    def words(self, slots: int) -> int:
        """Size in words for that many slots."""
        return self.words_shared + self.words_per_slot * slots


class SegmentMismatch(Exception):
    """The mapped memory is not a control segment of a layout this build reads."""


class Segment:
    """A mapped control segment; `view` gives a section's words, `slot` one slot's part of it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = memoryview(self._map).cast("q")
        if len(self._words) < _HEAD_WORDS or self._words[0] != MAGIC:
            message = "not a control segment"
            raise SegmentMismatch(message)
        if self._words[1] != LAYOUT_VERSION:
            message = f"control segment has layout {self._words[1]}, this build reads {LAYOUT_VERSION}"
            raise SegmentMismatch(message)
        self.slots = self._words[2]
        self._sections = dict(self._read_directory())

    @classmethod
    def create(cls, sections: Iterable[Section], slots: int) -> "Segment":
        """Make and map a new zeroed segment with room for `slots` worker slots in every section."""
        declared = tuple(sections)
        directory = (_HEAD_WORDS + _ENTRY_WORDS * len(declared)) * WORD
        offset = _round_up(directory)
        entries: list[tuple[Section, int, int]] = []
        for section in declared:
            size = section.words(slots) * WORD
            entries.append((section, offset, size))
            offset = _round_up(offset + size)
        fd = os.memfd_create("gateway-control")
        os.ftruncate(fd, offset)
        _write_directory(fd, entries, slots)
        return cls(fd)

    def view(self, section: Section) -> memoryview:
        """The whole section as signed 64-bit words.

        Raises SegmentMismatch when the segment has no such section or has it in another version or size.
        """
        version, offset, size = self._sections.get(section.name, (0, 0, 0))
        same_size = section.elastic or size == section.words(self.slots) * WORD
        if version != section.version or not same_size:
            message = f"section {section.name}: segment has version {version}, this build reads {section.version}"
            raise SegmentMismatch(message)
        return self._words[offset // WORD : (offset + size) // WORD]

    def shared(self, section: Section) -> memoryview:
        """The part of a section that belongs to no slot."""
        view = self.view(section)
        return view if section.elastic else view[: section.words_shared]

    def slot(self, section: Section, slot: int) -> memoryview:
        """The words of one slot in a section."""
        if not 0 <= slot < self.slots:
            message = f"slot {slot} of {self.slots}"
            raise IndexError(message)
        start = section.words_shared + slot * section.words_per_slot
        return self.view(section)[start : start + section.words_per_slot]

    def _read_directory(self) -> Iterable[tuple[str, tuple[int, int, int]]]:
        for index in range(self._words[3]):
            at = _HEAD_WORDS + index * _ENTRY_WORDS
            entry = self._words[at : at + _ENTRY_WORDS]
            name = entry[:3].tobytes().rstrip(b"\0").decode()
            yield name, (entry[3], entry[4], entry[5])


def _write_directory(fd: int, entries: list[tuple[Section, int, int]], slots: int) -> None:
    words = [MAGIC, LAYOUT_VERSION, slots, len(entries)]
    head = bytearray(b"".join(word.to_bytes(WORD, "little", signed=True) for word in words))
    for section, offset, size in entries:
        name = section.name.encode()
        if len(name) > _NAME_BYTES:
            message = f"section name {section.name!r} is longer than {_NAME_BYTES} bytes"
            raise ValueError(message)
        head += name.ljust(_NAME_BYTES, b"\0")
        for word in (section.version, offset, size, 0, 0):
            head += word.to_bytes(WORD, "little", signed=True)
    os.pwrite(fd, head, 0)


def _round_up(size: int) -> int:
    return (size + _PAGE - 1) // _PAGE * _PAGE
