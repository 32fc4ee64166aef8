"""What lies in a journal: how many bytes in which segments, and of what time they are. For retention and for people.

Reads directories and the ends of files, never a whole segment, but for `span`: a legal hold wants the exact times, and
lines are not quite in the order of their times. Nothing is checked here. What cannot be told is told in the way that
keeps more: a segment with a bad line spans all time.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.control.holds import FOREVER_US
from gateway.journal import layout
from gateway.journal.line import MAX_LINE_BYTES, Malformed, parse
from gateway.journal.read import Entry, Place, entries
from gateway.units import NS_PER_US

_TORN: Final = re.compile(r"torn-([0-9]+)-[0-9]+(?:\.[0-9]+)?")
_SHORT_BYTES: Final = 64 * 1024  # most last lines are within it


class _Timed(msgspec.Struct):
    at_us: int


_timed: Final = msgspec.json.Decoder(_Timed).decode


class Segment(NamedTuple):
    """One segment and what was cut from it, as they lie on the disk."""

    chain: str
    number: int
    path: Path
    bytes: int  # of its lines
    torn: tuple[Path, ...] = ()
    torn_bytes: int = 0

    @property
    def name(self) -> str:
        """As records name it: w0/3."""
        return f"{self.chain}/{self.number}"

    @property
    def all_bytes(self) -> int:
        """What its going would free."""
        return self.bytes + self.torn_bytes


class Stock(NamedTuple):
    """All of a journal. Every chain is named, its segments in order."""

    chains: dict[str, list[Segment]]
    manifest_bytes: int

    @property
    def bytes(self) -> int:
        """What the journal takes."""
        return self.manifest_bytes + sum(segment.all_bytes for segments in self.chains.values() for segment in segments)


def take(journal: Path) -> Stock:
    """Look at a journal. What is dropped meanwhile is left out. Raises OSError."""
    return Stock({chain: list(_segments(journal, chain)) for chain in layout.chains(journal)}, _manifests(journal))


def _segments(journal: Path, chain: str) -> Iterator[Segment]:
    torn = torn_files(journal, chain)
    for number in layout.segments(journal, chain):
        path = layout.segment_path(journal, chain, number)
        cut = tuple(torn.get(number, ()))
        yield Segment(chain, number, path, _size(path), cut, sum(map(_size, cut)))


def torn_files(journal: Path, chain: str) -> dict[int, list[Path]]:
    """What repairs have cut off, by segment; not what a repair still has in hand. Raises OSError."""
    found = dict[int, list[Path]]()
    for entry in os.scandir(journal / chain):
        if name := _TORN.fullmatch(entry.name):
            found.setdefault(int(name[1]), []).append(Path(entry.path))
    return found


def _manifests(journal: Path) -> int:
    directory = journal / layout.MANIFESTS
    return sum(map(_size, directory.iterdir())) if directory.is_dir() else 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# --- times ----------------------------------------------------------------------------------------------------------


def first_line(journal: Path, chain: str, number: int) -> Entry | None:
    """The line a segment begins with, where it is what a segment begins with. Raises OSError."""
    try:
        entry = next(entries(journal, chain, Place(number, 0), Place(number + 1, 0)), None)
    except FileNotFoundError:  # dropped a moment ago
        return None
    return entry if entry is not None and not entry.error and entry.record.action == "segment" else None


def last_us(path: Path) -> int:
    """When a segment's last record was made, or the file was written where that cannot be told. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for length in (_SHORT_BYTES, MAX_LINE_BYTES):
            file.seek(max(0, size - length))
            lines = file.read().splitlines(keepends=True)
            at_us = _at_us(lines[-1]) if lines else None
            if at_us is not None:
                return at_us
        return os.fstat(file.fileno()).st_mtime_ns // NS_PER_US


def span(path: Path) -> tuple[int, int]:
    """The earliest and the latest time of a segment's records; all time where one cannot be read. Raises OSError.

    Reads all of it: about 0.3 s for 64 MiB.
    """
    earliest, latest = FOREVER_US, 0
    with path.open("rb") as file:
        for raw in file:
            at_us = _at_us(raw)
            if at_us is None:
                return 0, FOREVER_US
            earliest, latest = min(earliest, at_us), max(latest, at_us)
    return earliest, latest


def _at_us(raw: bytes) -> int | None:
    try:
        return _timed(parse(raw).body + b"}").at_us
    except (Malformed, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
