"""What the processes of one node tell each other: the segment's `node` section, word by word.

Models a notice board. The supervisor writes orders (what each process should do, which sockets it accepts from), every
process writes its own state (heartbeat, snapshot adopted, sockets accepted from), control writes what it published.
Nobody waits for anybody: each side reads the board on its own tick, so a process that dies or is replaced at any
moment leaves nothing behind that another one would wait for.

Invariants: each word has one writer, named beside it; a slot's words are reset by the supervisor before the process
that will use them is forked, and counted up in `birth`, so that owner = (slot, birth) never means two processes.
Times are CLOCK_MONOTONIC nanoseconds. Left out: what is done about any of it (`process/`).
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, Self, overload

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.segment import Section, Segment
from gateway.units import KIB

SOCKET_WORDS: Final = 4
SOCKETS_PER_WORD: Final = 60  # words are signed; 60 leaves the sign alone and is easy to check by hand
MAX_SOCKETS: Final = SOCKET_WORDS * SOCKETS_PER_WORD

REFUSE_AFTER: Final = 2  # deaths a body may cause before it is refused
REFUSE_FOR_NS: Final = 600 * 1_000_000_000
_REFUSED_ROWS: Final = 32
_LONG_BYTES: Final = 8 * KIB
_MARK_BYTES: Final = 8
# The same nonce each time is safe only because no tag, which would give the key away, ever leaves this node's memory.
_NONCE: Final = bytes(12)
_authenticate: Final = AESGCM(AESGCM.generate_key(128)).encrypt
_REFUSED_AT: Final = 16  # three columns of that many rows: mark, deaths, until_ns
_SLOT_WORDS: Final = 24

NODE: Final = Section("node", version=1, words_shared=_REFUSED_AT + 3 * _REFUSED_ROWS, words_per_slot=_SLOT_WORDS)


class SlotPhase(IntEnum):
    """How far the process of a slot has come."""

    EMPTY = 0  # never used
    STARTING = 1
    READY = 2
    DRAINING = 3
    GONE = 4


class Order(IntEnum):
    """What the supervisor wants of the process in a slot; a later one outranks an earlier one."""

    SERVE = 0
    HOLD = 1  # serve, but adopt no new snapshot: a newer build may have written it
    ANNOUNCE = 2  # serve, and tell callers to go elsewhere
    LEAVE = 3  # stop accepting (the sockets live on in others), finish what is open, exit
    CLOSE = 4  # as LEAVE, but the sockets end here: take what is queued on them first
    EXIT = 5  # at once


class Word:
    """One named word of a board, as an attribute of type int."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    @overload
    def __get__(self, board: None, kind: type | None = None) -> Self: ...
    @overload
    def __get__(self, board: "SlotState | NodeState", kind: type | None = None) -> int: ...
    def __get__(self, board: "SlotState | NodeState | None", kind: type | None = None) -> "Self | int":
        return self if board is None else board.words[self.index]

    def __set__(self, board: "SlotState | NodeState", value: int) -> None:
        board.words[self.index] = value


class SlotState:
    """The words of one slot. Writer: the supervisor (S), or the slot's own process (P)."""

    __slots__ = ("words",)

    pid = Word(0)  # S; 0 when the process is gone
    birth = Word(1)  # S; counts the processes this slot has had
    phase = Word(2)  # S: STARTING, GONE; P: READY, DRAINING
    order = Word(3)  # S; an Order
    deadline_ns = Word(4)  # S; for LEAVE and CLOSE: when to give up on what is still open
    beat_ns = Word(5)  # P, from the loop that serves (S writes the first one)
    generation = Word(6)  # P; the snapshot in use
    swap_failed = Word(7)  # P; the last snapshot it would not adopt
    reading = Word(8)  # P; mark of the body being read without yielding to the loop, else 0
    asked_to_leave = Word(9)  # P; someone sent this process SIGTERM: it would like a successor
    _SOCKETS: Final = 10  # S; bit set of the sockets to accept from
    _ACCEPTING: Final = _SOCKETS + SOCKET_WORDS  # P; bit set of those it accepts from

    def __init__(self, words: memoryview) -> None:
        self.words = words

    @property
    def sockets(self) -> int:
        """Bit set of the sockets this process should accept from."""
        return self._bits(self._SOCKETS)

    @sockets.setter
    def sockets(self, bits: int) -> None:
        self._set_bits(self._SOCKETS, bits)

    @property
    def accepting(self) -> int:
        """Bit set of the sockets this process does accept from."""
        return self._bits(self._ACCEPTING)

    @accepting.setter
    def accepting(self, bits: int) -> None:
        self._set_bits(self._ACCEPTING, bits)

    def begin(self, order: Order, now_ns: int) -> None:
        """Make the slot ready for a new process; the supervisor calls it before the fork."""
        birth = self.birth
        for index in range(_SLOT_WORDS):
            self.words[index] = 0
        self.birth = birth + 1
        self.order = order
        self.beat_ns = now_ns
        self.phase = SlotPhase.STARTING

    def end(self) -> None:
        """Mark the slot's process as gone; the supervisor calls it after reaping. Counters elsewhere stay."""
        self.phase = SlotPhase.GONE
        self.pid = 0
        self.accepting = 0
        self.reading = 0

    def _bits(self, at: int) -> int:
        bits = 0
        for index in range(SOCKET_WORDS):
            bits |= self.words[at + index] << (index * SOCKETS_PER_WORD)
        return bits

    def _set_bits(self, at: int, bits: int) -> None:
        for index in range(SOCKET_WORDS):
            self.words[at + index] = (bits >> (index * SOCKETS_PER_WORD)) & ((1 << SOCKETS_PER_WORD) - 1)


class NodeState:
    """The words that belong to no slot, and the way to those that do. Writer: supervisor (S) or control (C)."""

    generation = Word(0)  # C (at boot S); the current snapshot
    draining = Word(1)  # S; 1 once the node is on its way down: readyz fails
    reload_asked = Word(2)  # S; counts reload requests
    reload_done = Word(3)  # C; the last request it has dealt with
    reload_generation = Word(4)  # C; the snapshot that request led to, 0 when the old one was kept
    workers_wanted = Word(5)  # C (at boot S); worker processes that should serve
    workers_ready = Word(6)  # S; worker processes that do
    boot_ns = Word(7)  # S; when this node first started, upgrades apart
    boot_id = Word(8)  # S; random, never 0: tells two starts apart
    upgrades = Word(9)  # S; upgrades in place since boot
    refusing = Word(10)  # S; rows of the refused table that refuse, so that none costs one comparison
    recounting = Word(11)  # C (at boot S); 1 until limits count what was used before the node began

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.words = segment.view(NODE)
        columns = [self.words[_REFUSED_AT + n * _REFUSED_ROWS :][:_REFUSED_ROWS] for n in range(3)]
        self._marks, self._deaths, self._until_ns = columns

    @property
    def worker_slots(self) -> range:
        """Slots a worker may have; the last two belong to the supervisor and control."""
        return range(self.segment.slots - 2)

    @property
    def control_slot(self) -> int:
        """The slot of control."""
        return self.segment.slots - 1

    @property
    def supervisor_slot(self) -> int:
        """The slot of the supervisor."""
        return self.segment.slots - 2

    def slot(self, slot: int) -> SlotState:
        """The words of one slot."""
        return SlotState(self.segment.slot(NODE, slot))

    def live_workers(self) -> Iterator[tuple[int, SlotState]]:
        """Slots whose worker is serving or draining, with their words."""
        for slot in self.worker_slots:
            state = self.slot(slot)
            if state.phase in {SlotPhase.READY, SlotPhase.DRAINING}:
                yield slot, state

    # --- bodies that killed workers ---------------------------------------------------------------------------------

    def is_refused(self, mark: int, now_ns: int) -> bool:
        """True while the body with this mark (see `body_mark`) is refused; one comparison when none is."""
        if not self.refusing:
            return False
        row = self._row_of(mark)
        return row >= 0 and self._refuses(row, now_ns)

    def count_death(self, mark: int, now_ns: int) -> bool:
        """Note that a process died while reading this body; True when the body is refused from now on.

        Called by the supervisor alone. A full table gives up the row that ends soonest.
        """
        row = self._row_of(mark)
        if row < 0 or now_ns >= self._until_ns[row]:
            row = row if row >= 0 else min(range(_REFUSED_ROWS), key=self._until_ns.__getitem__)
            self._marks[row] = 0  # readers skip the row while it is rewritten
            self._deaths[row] = 0
        self._deaths[row] += 1
        self._until_ns[row] = now_ns + REFUSE_FOR_NS
        self._marks[row] = mark
        self.expire_refused(now_ns)
        return self._refuses(row, now_ns)

    def expire_refused(self, now_ns: int) -> None:
        """Recount the rows that refuse; the supervisor calls it on its tick."""
        self.refusing = sum(self._refuses(row, now_ns) for row in range(_REFUSED_ROWS))

    def forget_refused(self) -> None:
        """Empty the table: after an upgrade marks are made with another hash seed and mean nothing."""
        self.refusing = 0
        for column in (self._marks, self._deaths, self._until_ns):
            for row in range(_REFUSED_ROWS):
                column[row] = 0

    def _refuses(self, row: int, now_ns: int) -> bool:
        return self._deaths[row] >= REFUSE_AFTER and now_ns < self._until_ns[row]

    def _row_of(self, mark: int) -> int:
        marks = self._marks.tolist()  # a list search is ten times a loop over the words
        return marks.index(mark) if mark in marks else -1


def body_mark(body: bytes) -> int:
    """A non-zero number for a body, equal in all processes forked from one supervisor.

    Nobody outside can make two bodies meet: short ones are hashed with Python's keyed SipHash (0.15 µs a KB), long ones
    with the polynomial hash of AES-GCM (0.035), under a key that is never used for anything else and never shown. A
    fork keeps both keys, an exec does not, which is why an upgrade empties the table of refused bodies.
    """
    if len(body) < _LONG_BYTES:
        return hash(body) or 1
    return int.from_bytes(_authenticate(_NONCE, b"", body)[:_MARK_BYTES], "little", signed=True) or 1
