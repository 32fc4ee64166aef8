"""Who works where: seats that ought to be staffed, the processes that staff them, and the sockets they share out.

Models a table of seats, one a worker. A seat has a child, and for a while a successor that takes over when it is ready.
A vacant seat is staffed at once; one that keeps failing waits longer each time, while a neighbour accepts for it.
Invariants: every listening socket is assigned to at least one ready child as long as there is one; a slot belongs to
at most one living process. Forking itself is a function handed in.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.nodestate import NodeState, Order, SlotPhase, SlotState
from gateway.units import NS_PER_S

_RETRY_S: Final = (0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # by failures in a row: the first death is answered at once
_STABLE_NS: Final = 2 * NS_PER_S  # a child that lived this long starts a new row
_NO_ROOM_NS: Final = NS_PER_S  # until the next try when there was no process or no slot to be had


@dataclass(slots=True)
class Child:
    """A process the supervisor forked: a worker, or control (a crew of one)."""

    pid: int
    seat: int
    slot: int
    state: NodeState
    born_ns: int
    kill_at_ns: int = 0  # when patience ends; 0: never
    words: SlotState = field(init=False)

    def __post_init__(self) -> None:
        self.words = self.state.slot(self.slot)

    @property
    def is_worker(self) -> bool:
        """A worker, not control."""
        return self.slot in self.state.worker_slots

    @property
    def ready(self) -> bool:
        """Serving."""
        return self.words.phase == SlotPhase.READY

    def order(self, order: Order, deadline_ns: int = 0) -> None:
        """Tell the process what to do; it obeys on its next tick."""
        self.words.deadline_ns = deadline_ns
        self.words.order = order


@dataclass(slots=True)
class Seat:
    """A place that one worker should fill."""

    index: int
    child: Child | None = None
    successor: Child | None = None
    slot: int = -1  # the last child's: its successor in death goes on with the same counters
    failures: int = 0
    retry_at_ns: int = 0


def _anyone(_child: Child) -> bool:
    return True


Hire = Callable[[int, int], Child | None]  # seat, preferred slot (-1: any free one) -> the forked child, if it could be


class Crew:
    """The workers of one build of the gateway on this node."""

    def __init__(self, hire: Hire, workers: int) -> None:
        self._hire = hire
        self.seats = [Seat(index) for index in range(workers)]

    @classmethod
    def adopted(cls, hire: Hire, children: Iterable[Child]) -> "Crew":
        """A crew of processes that are running already."""
        crew = cls(hire, 0)
        for child in sorted(children, key=lambda child: child.seat):
            crew.seats.append(Seat(child.seat, child=child, slot=child.slot))
        return crew

    def children(self) -> list[Child]:
        """Every living process of this crew."""
        return [child for seat in self.seats for child in (seat.child, seat.successor) if child]

    def ready(self) -> list[Child]:
        """The seated processes that serve."""
        return [seat.child for seat in self.seats if seat.child and seat.child.ready]

    def complete(self) -> bool:
        """True when every seat is served."""
        return len(self.ready()) == len(self.seats)

    def worst_row(self) -> int:
        """The most failures in a row that any seat has behind it."""
        return max((seat.failures for seat in self.seats), default=0)

    def staff(self, now_ns: int) -> None:
        """Fork for the vacant seats whose wait is over."""
        for seat in self.seats:
            if seat.child is None and seat.successor is None and now_ns >= seat.retry_at_ns:
                seat.child = self._hire(seat.index, seat.slot)
                if seat.child:
                    seat.slot = seat.child.slot
                else:
                    seat.retry_at_ns = now_ns + _NO_ROOM_NS

    def succeed(self, child: Child, now_ns: int) -> None:
        """Start a successor for a child that is to leave, once; it takes the seat when it is ready."""
        for seat in self.seats:
            if seat.child is child and seat.successor is None and now_ns >= seat.retry_at_ns:
                seat.successor = self._hire(seat.index, -1)
                seat.retry_at_ns = now_ns if seat.successor else now_ns + _NO_ROOM_NS

    def promote(self) -> list[Child]:
        """Seat the successors that are ready; returns those whose place they took."""
        relieved = []
        for seat in self.seats:
            if seat.successor and (seat.successor.ready or seat.child is None):
                if seat.child:
                    relieved.append(seat.child)
                seat.child, seat.successor = seat.successor, None
                seat.slot = seat.child.slot
        return relieved

    def lost(self, child: Child, now_ns: int) -> bool:
        """Take a dead process off its seat, and say when to try again; False when it had none here."""
        for seat in self.seats:
            if child is not seat.child and child is not seat.successor:
                continue
            if child is seat.child:
                seat.child = None
            else:
                seat.successor = None
            seat.failures = 1 if now_ns - child.born_ns > _STABLE_NS else seat.failures + 1
            seat.retry_at_ns = now_ns + int(retry_delay_s(seat.failures) * NS_PER_S)
            return True
        return False

    def resize(self, workers: int) -> list[Child]:
        """Add seats, or take the last ones away; returns the processes that lost theirs."""
        removed = self.seats[workers:]
        del self.seats[workers:]
        self.seats += [Seat(index) for index in range(len(self.seats), workers)]
        return [child for seat in removed for child in (seat.child, seat.successor) if child]

    def assign(self, sockets: int, responsive: Callable[[Child], bool] = _anyone) -> None:
        """Share the listening sockets out to those that serve and respond; with none, leave things as they are.

        One that does not respond keeps what it has, as it could not give it up; a neighbour accepts beside it.
        """
        able = [child for child in self.ready() if responsive(child)]
        shares = share_out(sockets, [(child.seat, child.slot) for child in able])
        for child in able:
            if child.words.sockets != shares[child.slot]:
                child.words.sockets = shares[child.slot]

    def accepting(self) -> bool:
        """True when every process that serves accepts from what it was assigned."""
        return all(child.words.sockets and child.words.accepting == child.words.sockets for child in self.ready())


def share_out(sockets: int, workers: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Bit set of sockets for each slot of `workers`, given as (seat, slot).

    A seat's own socket is the one of its number (modulo their count, so that surplus workers share); a socket nobody
    owns goes to a neighbour. Every socket has an acceptor, and every worker a socket.
    """
    shares = dict.fromkeys((slot for _, slot in workers), 0)
    owned = set()
    for seat, slot in workers:
        shares[slot] |= 1 << (seat % sockets)
        owned.add(seat % sockets)
    for socket in range(sockets):
        if workers and socket not in owned:
            _, slot = workers[socket % len(workers)]
            shares[slot] |= 1 << socket
    return shares


def retry_delay_s(failures: int) -> float:
    """How long a seat stays vacant after so many failures in a row."""
    return _RETRY_S[min(failures, len(_RETRY_S) - 1)]
