"""The board: every word is where all processes look for it, and a body that killed two workers is told apart."""

import inspect
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodestate import (
    MAX_SOCKETS,
    NODE,
    REFUSE_FOR_NS,
    NodeState,
    Order,
    SlotPhase,
    SlotState,
    Word,
    body_mark,
)
from gateway.segment import Segment

BODIES = (b"", b"a", b"a" * 8191, b"a" * 8192, b"a" * 100_000)


@pytest.fixture
def state() -> NodeState:
    return NodeState(Segment.create([NODE], 6))


def words_of(board: type[SlotState | NodeState]) -> dict[str, int]:
    return {name: word.index for name, word in vars(board).items() if isinstance(word, Word)}


@pytest.mark.parametrize("board", [SlotState, NodeState])
def test_no_two_names_share_a_word_and_each_says_who_writes_it(board: type[SlotState | NodeState]) -> None:
    words = words_of(board)
    assert sorted(words.values()) == list(range(len(words)))
    source = inspect.getsource(board)
    for name in words:
        assert re.search(rf"{name} = Word\(\d+\)  # [SCP]\b", source), name


def test_the_layout_is_frozen_with_its_version() -> None:
    assert (NODE.version, NODE.words_shared, NODE.words_per_slot) == (1, 112, 24)
    assert words_of(SlotState) == {
        "pid": 0, "birth": 1, "phase": 2, "order": 3, "deadline_ns": 4, "beat_ns": 5, "generation": 6,
        "swap_failed": 7, "reading": 8, "asked_to_leave": 9,
    }  # fmt: skip
    assert words_of(NodeState) == {
        "generation": 0, "draining": 1, "reload_asked": 2, "reload_done": 3, "reload_generation": 4,
        "workers_wanted": 5, "workers_ready": 6, "boot_ns": 7, "boot_id": 8, "upgrades": 9, "refusing": 10,
        "recounting": 11,
    }  # fmt: skip


def test_supervisor_and_control_have_slots_no_worker_gets(state: NodeState) -> None:
    assert list(state.worker_slots) == [0, 1, 2, 3]
    assert (state.supervisor_slot, state.control_slot) == (4, 5)


@given(bits=st.integers(0, 2**MAX_SOCKETS - 1), other=st.integers(0, 2**MAX_SOCKETS - 1))
def test_any_set_of_sockets_can_be_named(bits: int, other: int) -> None:
    words = NodeState(Segment.create([NODE], 4)).slot(1)
    words.sockets, words.accepting = bits, other
    assert (words.sockets, words.accepting) == (bits, other)


def test_a_new_process_finds_a_clean_slot_and_another_birth(state: NodeState) -> None:
    words = state.slot(2)
    for index in range(NODE.words_per_slot):
        words.words[index] = 7
    words.begin(Order.ANNOUNCE, now_ns=99)
    assert words.birth == 8
    assert (words.phase, words.order, words.beat_ns) == (SlotPhase.STARTING, Order.ANNOUNCE, 99)
    assert (words.reading, words.sockets, words.accepting, words.generation, words.asked_to_leave) == (0, 0, 0, 0, 0)
    words.pid, words.reading = 1234, 5
    words.end()
    assert (words.phase, words.pid, words.reading, words.birth) == (SlotPhase.GONE, 0, 0, 8)


def test_live_workers_are_those_that_serve_or_drain(state: NodeState) -> None:
    for slot, phase in enumerate((SlotPhase.READY, SlotPhase.STARTING, SlotPhase.DRAINING, SlotPhase.GONE)):
        state.slot(slot).phase = phase
    state.slot(state.control_slot).phase = SlotPhase.READY
    assert [slot for slot, _ in state.live_workers()] == [0, 2]


def test_a_body_is_refused_after_two_deaths_for_ten_minutes(state: NodeState) -> None:
    mark = body_mark(b"{}")
    assert not state.count_death(mark, 1)
    assert not state.is_refused(mark, 2)
    assert state.count_death(mark, 3)
    assert state.is_refused(mark, 4)
    assert not state.is_refused(body_mark(b"{ }"), 4)
    assert state.is_refused(mark, 3 + REFUSE_FOR_NS - 1)
    assert not state.is_refused(mark, 3 + REFUSE_FOR_NS)
    assert not state.count_death(mark, 4 + REFUSE_FOR_NS)  # a new count


def test_an_expired_table_costs_one_comparison_again(state: NodeState) -> None:
    state.count_death(5, 1)
    state.count_death(5, 1)
    state.expire_refused(2)
    assert state.refusing == 1
    state.expire_refused(1 + REFUSE_FOR_NS)
    assert state.refusing == 0


def test_a_full_table_gives_up_what_ends_soonest(state: NodeState) -> None:
    for mark in range(1, 40):
        state.count_death(mark, mark)
        state.count_death(mark, mark)
    refused = [mark for mark in range(1, 40) if state.is_refused(mark, 50)]
    assert refused == list(range(8, 40))


def test_after_an_upgrade_nothing_is_refused(state: NodeState) -> None:
    state.count_death(5, 1)
    state.count_death(5, 1)
    state.forget_refused()
    assert not state.is_refused(5, 2)
    assert not state.count_death(5, 3)


def test_a_mark_is_never_the_word_for_nothing_and_always_fits(state: NodeState) -> None:
    for body in BODIES:
        state.slot(0).reading = body_mark(body)
        assert state.slot(0).reading == body_mark(body) != 0


def test_bodies_that_differ_in_one_byte_have_marks_of_their_own() -> None:
    for body in BODIES[1:]:
        others = [body[:at] + b"b" + body[at + 1 :] for at in {0, len(body) // 2, len(body) - 1}]
        marks = {body_mark(each) for each in (body, *others, body[:-1], body + b"\0", body + b"a")}
        assert len(marks) == len(others) + 4


@pytest.mark.parametrize("body", BODIES, ids=len)
def test_a_fork_knows_a_body_by_the_same_mark(body: bytes) -> None:
    mark = body_mark(body)
    child = os.fork()
    if not child:
        os._exit(body_mark(bytes(bytearray(body))) != mark)
    assert os.waitpid(child, 0)[1] == 0


def test_while_no_body_is_refused_asking_looks_no_further(state: NodeState, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def no_row(_state: NodeState, mark: int) -> int:
        looked.append(mark)
        return -1

    monkeypatch.setattr(NodeState, "_row_of", no_row)
    assert not state.is_refused(77, 1)
    assert looked == []
    state.refusing = 1
    assert not state.is_refused(77, 1)
    assert looked == [77]
