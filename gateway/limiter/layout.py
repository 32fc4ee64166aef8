"""Where the limit table's words lie: one section of the control segment, sized once, from the config.

    words           what                    writer
    mutex           the robust mutex        pthread
    header          counts and list heads   who holds the mutex
    undo            see `undo.py`           who holds the mutex
    row index       see `index.py`          who holds the mutex
    hold index      see `index.py`          who holds the mutex
    rows            one per bucket          who holds the mutex
    holds           one per hold            who holds the mutex

A row is identified by a 126-bit keyed digest of its bucket's name and kind; nobody outside can make two names meet, nor
crowd one place of the index. The name stands beside it, for people. A hold carries its id as it is, up to 32 bytes.

Invariants: the layout follows from the two sizes alone, which the header repeats, so a process of another build or
config sees at once whether it reads the same table. All reads and writes go through `GET` and `PUT`, or through single
words: that is where the tests cut processes short. Left out: what the words mean to a limit (`rows.py`, `holds.py`).
"""

from collections.abc import Callable
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import Final

import msgspec

from gateway.limiter.engine import MAX_CHARGES
from gateway.limiter.mutex import MUTEX_WORDS
from gateway.segment import WORD, Section

LAYOUT_VERSION: Final = 1

# --- header: word offsets from the start of the section --------------------------------------------------------------
AT_ROWS: Final = MUTEX_WORDS  # the two sizes, written once
AT_HOLDS: Final = AT_ROWS + 1
AT_KEY: Final = AT_ROWS + 2  # two words, random: the key of the digests
AT_ARMED: Final = AT_ROWS + 4  # what there is to undo, see `undo.py`; 0 between operations
AT_NEXT_LAPSE: Final = AT_ROWS + 5  # no lease of an OPEN hold ends before; monotonic ms
NO_LEASE: Final = 2**62  # there, when there is none
AT_ROW_TOP: Final = AT_ROWS + 8  # rows ever used; those above were never touched. Three words that change together:
AT_ROW_FREE: Final = AT_ROWS + 9  # first row of the free list, plus one
AT_ROW_COUNT: Final = AT_ROWS + 10  # rows in use
AT_USER_COUNT: Final = AT_ROWS + 11  # rows of end users among them
AT_HAND: Final = AT_ROWS + 12  # where the search for rows to reclaim goes on; a hint
AT_HOLD_TOP: Final = AT_ROWS + 16  # holds ever used. Three words that change together:
AT_OLDEST: Final = AT_ROWS + 17  # first of the queue of settled holds, oldest first, plus one
AT_NEWEST: Final = AT_ROWS + 18  # last of that queue, plus one; anything when the queue is empty
AT_COUNTERS: Final = AT_ROWS + 24  # see Counter
_HEADER_WORDS: Final = 48

UNDO_CELLS: Final = 256
CELL_WORDS: Final = 4  # byte offset, three old words
_UNDO_AT: Final = MUTEX_WORDS + _HEADER_WORDS

# --- a row, a hold: word offsets from their start --------------------------------------------------------------------
ROW_WORDS: Final = 32
ROW_TAG: Final = 0  # first half of the digest; 0 in a row that is free
ROW_USED: Final = 1  # bucket.Row: used, rest, mark_ms
ROW_TWIN: Final = 4  # second half of the digest
ROW_INFO: Final = 5  # kind, and how many bytes the name has
ROW_AMOUNT: Final = 6  # of the latest spec, so that a sweep knows when a RATE is full again
ROW_PERIOD: Final = 7
ROW_PARENT: Final = 8  # of an end user's row: the row its kind shares, plus one
ROW_CHILDREN: Final = 9  # of such a shared row: how many point to it
ROW_NEXT: Final = 10  # in the free list, plus one
ROW_NAME: Final = 12
NAME_BYTES: Final = (ROW_WORDS - ROW_NAME) * WORD

HOLD_WORDS: Final = 9 + 3 * MAX_CHARGES
HOLD_ID: Final = 0  # four words
HOLD_OWNER: Final = 4
HOLD_META: Final = 5  # state, number of charges, attempt, which charges went to a shared row. Change together with
HOLD_LEASE: Final = 6  # when the lease ends, monotonic ms, and
HOLD_NEXT: Final = 7  # in the queue of settled holds, plus one
HOLD_CODE: Final = 8  # crc32 of the id: where the index has it
HOLD_CHARGES: Final = 9  # three words each: the row's tag, what was reserved, the window (IN_FLIGHT for a slot)
ID_BYTES: Final = 4 * WORD


class Counter(IntEnum):
    """What the table counts, one word each from AT_COUNTERS on; a process killed on the way may leave one short."""

    LAPSED = 0  # holds whose lease ended before they were settled
    SWEPT = 1  # of those, by the death of their process
    RECLAIMED = 2  # rows given up because they said nothing any more
    SHARED = 3  # charges counted in a shared row
    UNCOUNTED = 4  # charges counted nowhere: the table is too small
    NO_ROOM = 5  # requests refused for that
    FORGOTTEN = 6  # expired holds given up before their settlement
    RECOVERED = 7  # deaths within an operation, undone
    ROLLED_BACK = 8  # of those, with a change to take back


MAX_ROWS: Final = 2**22
MAX_HOLDS: Final = 2**20
LEAST: Final = 16  # of either
_TAG_MASK: Final = 2**63 - 1

Get = Callable[[memoryview, int], tuple[int, ...]]
Put = Callable[..., None]
_STRUCTS: Final = [Struct(f"{n}q") for n in range(CELL_WORDS * UNDO_CELLS + 1)]
GET: Final[list[Get]] = [struct.unpack_from for struct in _STRUCTS]  # GET[n](words, byte) → n words
PUT: Final[list[Put]] = [struct.pack_into for struct in _STRUCTS]  # PUT[n](words, byte, *n words)
GET_HEAD: Final = Struct(f"{ID_BYTES}s5q").unpack_from  # of a hold: id, owner, meta, lease, next, code
GET_HOLD: Final = [Struct(f"{ID_BYTES}s{5 + 3 * n}q").unpack_from for n in range(MAX_CHARGES + 1)]  # and n charges
PUT_HOLD: Final[list[Put]] = [Struct(f"{ID_BYTES}s{n}q").pack_into for n in range(5 + 3 * MAX_CHARGES + 1)]  # whole


class Layout(msgspec.Struct, frozen=True):
    """Word offsets of the parts of a table of that many rows and holds."""

    rows: int
    holds: int

    def __post_init__(self) -> None:
        for name, value, most in (("rows", self.rows, MAX_ROWS), ("holds", self.holds, MAX_HOLDS)):
            if not LEAST <= value <= most:
                raise ValueError(f"a limit table of {value} {name}: must be {LEAST} to {most}")

    @property
    def undo_at(self) -> int:
        """First word of the undo record."""
        return _UNDO_AT

    @property
    def row_index_words(self) -> int:
        """Places in the index of rows: a power of two, at most half of them taken."""
        return _power_of_two(2 * self.rows)

    @property
    def hold_index_words(self) -> int:
        """Places in the index of holds: a power of two, at most a quarter of them taken."""
        return _power_of_two(4 * self.holds)

    @property
    def row_index_at(self) -> int:
        """First word of the index of rows."""
        return _UNDO_AT + CELL_WORDS * UNDO_CELLS

    @property
    def hold_index_at(self) -> int:
        """First word of the index of holds."""
        return self.row_index_at + self.row_index_words

    @property
    def rows_at(self) -> int:
        """First word of row 0."""
        return self.hold_index_at + self.hold_index_words

    @property
    def holds_at(self) -> int:
        """First word of hold 0."""
        return self.rows_at + self.rows * ROW_WORDS

    @property
    def words(self) -> int:
        """Words of the whole section."""
        return self.holds_at + self.holds * HOLD_WORDS

    @property
    def section(self) -> Section:
        """The section to declare for the control segment."""
        return Section("limits", version=LAYOUT_VERSION, words_shared=self.words, elastic=True)


def row_digest(name: bytes, kind: int, key: bytes) -> tuple[int, int]:
    """What identifies a row: two words of 63 bits, the first never 0."""
    digest = blake2b(name, digest_size=16, key=key, salt=bytes((kind,))).digest()
    first, second = _STRUCTS[2].unpack(digest)
    return (first & _TAG_MASK) or 1, second & _TAG_MASK


def kept_name(name: str) -> bytes:
    """The name as a row keeps it: whole when it fits, else its beginning and a digest of all of it."""
    raw = name.encode()
    if len(raw) <= NAME_BYTES:
        return raw
    mark = b"~" + blake2b(raw, digest_size=16).hexdigest().encode()
    return raw[: NAME_BYTES - len(mark)] + mark


def hold_key(hold: str) -> bytes:
    """The id as a hold keeps it, ID_BYTES long: padded, or a digest if it is too long or padding would hide its end."""
    raw = hold.encode()
    if 0 < len(raw) <= ID_BYTES and raw[-1]:
        return raw.ljust(ID_BYTES, b"\0")
    return b"\xff" + blake2b(raw, digest_size=ID_BYTES - 1).digest()  # 0xff begins no UTF-8 text


def hold_name(key: bytes) -> str:
    """The id again, or a hexadecimal stand-in for one that was too long to keep."""
    return key.rstrip(b"\0").decode(errors="replace") if key[0] != 0xFF else "~" + key[1:].hex()  # noqa: PLR2004 - as in hold_key


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def ints(raw: bytes) -> tuple[int, ...]:
    """Bytes as words; their number is a multiple of eight."""
    return _STRUCTS[len(raw) // WORD].unpack(raw)
