"""Seats, successors and shares of sockets, with forks that only write on the board."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodestate import NODE, NodeState, Order, SlotPhase
from gateway.process.crew import Child, Crew, retry_delay_s, share_out
from gateway.segment import Segment
from gateway.units import NS_PER_S


class Forge:
    """Stands in for the fork: hands out pids and slots, and makes children ready when told."""

    def __init__(self) -> None:
        self.state = NodeState(Segment.create([NODE], 12))
        self.pids = itertools.count(100)
        self.living: list[Child] = []
        self.now_ns = 0
        self.exhausted = False

    def hire(self, seat: int, slot: int) -> Child | None:
        if self.exhausted:
            return None
        taken = {child.slot for child in self.living}
        slot = slot if slot >= 0 and slot not in taken else min(set(self.state.worker_slots) - taken)
        self.state.slot(slot).begin(Order.SERVE, self.now_ns)
        child = Child(next(self.pids), seat, slot, self.state, self.now_ns)
        self.living.append(child)
        return child

    def ready(self, *children: Child) -> None:
        for child in children or self.living:
            child.words.phase = SlotPhase.READY

    def bury(self, child: Child) -> None:
        self.living.remove(child)
        child.words.end()


@pytest.fixture
def forge() -> Forge:
    return Forge()


def staffed(forge: Forge, workers: int) -> Crew:
    crew = Crew(forge.hire, workers)
    crew.staff(0)
    forge.ready()
    return crew


def test_every_seat_is_staffed_once(forge: Forge) -> None:
    crew = Crew(forge.hire, 3)
    assert not crew.complete()
    crew.staff(0)
    crew.staff(1)
    assert [child.slot for child in crew.children()] == [0, 1, 2]
    assert not crew.complete()
    forge.ready()
    assert crew.complete()


def test_the_first_death_is_answered_at_once_in_the_same_slot_and_a_row_of_them_slower(forge: Forge) -> None:
    crew = staffed(forge, 2)
    waits = []
    now_ns = 0
    for _ in range(8):
        child = next(child for child in crew.children() if child.seat == 1)
        assert child.slot == 1
        forge.bury(child)
        assert crew.lost(child, now_ns)
        waits.append((crew.seats[1].retry_at_ns - now_ns) / NS_PER_S)
        crew.staff(crew.seats[1].retry_at_ns - 1)
        assert crew.seats[1].child is None
        now_ns = forge.now_ns = crew.seats[1].retry_at_ns
        crew.staff(now_ns)
    assert waits == [0, 0.25, 0.5, 1, 2, 4, 4, 4]
    assert crew.worst_row() == 8


def test_a_child_that_lived_for_a_while_starts_a_new_row(forge: Forge) -> None:
    crew = staffed(forge, 1)
    crew.seats[0].failures = 5
    child = crew.children()[0]
    assert crew.lost(child, 3 * NS_PER_S)
    assert crew.worst_row() == 1
    assert crew.seats[0].retry_at_ns == 3 * NS_PER_S


def test_a_stranger_has_no_seat_to_lose(forge: Forge) -> None:
    crew = staffed(forge, 1)
    stranger = forge.hire(0, -1)
    assert stranger
    assert not crew.lost(stranger, 0)
    assert crew.complete()


def test_a_successor_takes_the_seat_when_it_is_ready(forge: Forge) -> None:
    crew = staffed(forge, 2)
    old = crew.seats[0].child
    assert old
    crew.succeed(old, 0)
    crew.succeed(old, 0)
    successor = crew.seats[0].successor
    assert successor
    assert len(forge.living) == 3
    assert crew.promote() == []
    forge.ready(successor)
    assert crew.promote() == [old]
    assert crew.seats[0].child is successor
    assert crew.seats[0].slot == successor.slot == 2


def test_a_successor_steps_in_early_when_the_seat_falls_vacant(forge: Forge) -> None:
    crew = staffed(forge, 1)
    old = crew.children()[0]
    crew.succeed(old, 0)
    successor = crew.seats[0].successor
    crew.lost(old, 0)
    crew.staff(NS_PER_S * 10)
    assert crew.promote() == []
    assert crew.children() == [successor]


def test_a_successor_that_dies_is_tried_again_later(forge: Forge) -> None:
    crew = staffed(forge, 1)
    old = crew.children()[0]
    crew.seats[0].failures = 2
    crew.succeed(old, 0)
    successor = crew.seats[0].successor
    assert successor
    forge.bury(successor)
    assert crew.lost(successor, 1)
    crew.succeed(old, 2)
    assert crew.seats[0].successor is None
    crew.succeed(old, NS_PER_S)
    assert crew.seats[0].successor


def test_when_no_process_is_to_be_had_it_is_tried_once_a_second(forge: Forge) -> None:
    forge.exhausted = True
    crew = Crew(forge.hire, 1)
    crew.staff(0)
    forge.exhausted = False
    crew.staff(NS_PER_S - 1)
    assert crew.children() == []
    crew.staff(NS_PER_S)
    assert len(crew.children()) == 1


def test_resizing_adds_empty_seats_and_names_those_who_lost_theirs(forge: Forge) -> None:
    crew = staffed(forge, 2)
    assert crew.resize(4) == []
    assert len(crew.seats) == 4
    crew.staff(0)
    removed = crew.resize(1)
    assert [child.seat for child in removed] == [1, 2, 3]
    assert len(crew.children()) == 1


def test_adopted_children_keep_seat_and_slot(forge: Forge) -> None:
    children = [Child(7, 1, 4, forge.state, 0), Child(8, 0, 5, forge.state, 0)]
    crew = Crew.adopted(forge.hire, children)
    assert [(seat.index, seat.slot) for seat in crew.seats] == [(0, 5), (1, 4)]


def test_sockets_go_to_those_who_serve_and_respond(forge: Forge) -> None:
    crew = staffed(forge, 2)
    first, second = crew.children()
    crew.assign(2)
    assert (first.words.sockets, second.words.sockets) == (0b01, 0b10)
    assert not crew.accepting()
    first.words.accepting, second.words.accepting = 0b01, 0b10
    assert crew.accepting()
    crew.assign(2, lambda child: child is not first)
    assert (first.words.sockets, second.words.sockets) == (0b01, 0b11)
    crew.assign(2, lambda _: False)
    assert (first.words.sockets, second.words.sockets) == (0b01, 0b11)
    crew.assign(2)
    assert (first.words.sockets, second.words.sockets) == (0b01, 0b10)


@given(sockets=st.integers(1, 40), seats=st.sets(st.integers(0, 60), max_size=20))
def test_every_socket_has_an_acceptor_and_every_worker_a_socket(sockets: int, seats: set[int]) -> None:
    shares = share_out(sockets, [(seat, 100 + seat) for seat in sorted(seats)])
    assert set(shares) == {100 + seat for seat in seats}
    if seats:
        assert all(shares.values())
        union = 0
        for share in shares.values():
            union |= share
        assert union == (1 << sockets) - 1
    if seats == set(range(sockets)):
        assert shares == {100 + seat: 1 << seat for seat in seats}


def test_the_wait_is_bounded() -> None:
    assert retry_delay_s(0) == retry_delay_s(1) == 0
    assert retry_delay_s(1000) == 4


def test_an_order_carries_its_deadline(forge: Forge) -> None:
    child = forge.hire(0, -1)
    assert child
    child.order(Order.LEAVE, 77)
    assert (child.words.order, child.words.deadline_ns) == (Order.LEAVE, 77)
    assert child.is_worker
    assert not Child(9, 0, forge.state.control_slot, forge.state, 0).is_worker
