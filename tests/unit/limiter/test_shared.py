"""The memory that processes share: made once, taken over as it is, visited, and given up when it is lost."""

import logging

import pytest

from gateway.config.limits import Limits
from gateway.limiter.deny import DENIALS
from gateway.limiter.engine import Amount
from gateway.limiter.learned import LEARNED
from gateway.limiter.mutex import MutexLost
from gateway.limiter.shared import Caretaker, open_table, sections
from gateway.limiter.spec import slots
from gateway.limiter.sweep import owner_of
from gateway.nodestate import NODE, NodeState, Order
from gateway.segment import Segment

SMALL = Limits(max_buckets=64, max_holds=32)
SLOT = slots(1)


def node_of(limits: Limits = SMALL) -> NodeState:
    return NodeState(Segment.create([NODE, *sections(limits)], 6))


def test_it_declares_all_that_limits_need() -> None:
    table, learned, denials = sections(SMALL)
    assert (table.name, learned, denials) == ("limits", LEARNED, DENIALS)
    assert table.words_shared > sections(Limits(max_buckets=16, max_holds=16))[0].words_shared


def test_a_table_is_made_once_and_then_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = node_of()
    assert Caretaker(SMALL).open(node)
    assert "room for 64 buckets and 32 requests in flight" in caplog.text
    table = open_table(node.segment, SMALL)
    table.reserve("h", [Amount("b", SLOT, 1)], owner=1, lease_ms=9_000)
    caplog.clear()
    assert not Caretaker(SMALL).open(node)
    assert caplog.text == ""
    assert [standing.level for standing in table.peek([Amount("b", SLOT, 0)])] == [0]


def test_another_size_is_for_the_next_start(caplog: pytest.LogCaptureFixture) -> None:
    node = node_of()
    Caretaker(SMALL).open(node)
    larger = Limits(max_buckets=128, max_holds=32)
    Caretaker(larger).open(node)
    assert "max_buckets stays 64 and max_holds 32: another size needs a restart" in caplog.text
    assert open_table(node.segment, larger).layout.rows == 64


def test_a_visit_frees_the_slots_of_who_has_died() -> None:
    node = node_of()
    caretaker = Caretaker(SMALL)
    caretaker.visit(node)  # before there is anything: nothing
    caretaker.open(node)
    state = node.slot(2)
    state.begin(Order.SERVE, 0)
    table = open_table(node.segment, SMALL)
    table.reserve("h", [Amount("b", SLOT, 1)], owner=owner_of(2, state.birth), lease_ms=9_000)
    caretaker.visit(node)
    assert table.peek([Amount("b", SLOT, 0)])[0].level == 0
    state.end()
    caretaker.visit(node)
    assert table.peek([Amount("b", SLOT, 0)])[0].level == 1


def test_a_table_that_is_lost_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    node = node_of()
    caretaker = Caretaker(SMALL)
    caretaker.open(node)

    def lost(*_: object) -> None:
        raise MutexLost("a repair failed")

    monkeypatch.setattr("gateway.limiter.shared.sweep", lost)
    caretaker.visit(node)
    caretaker.visit(node)
    assert [record.getMessage() for record in caplog.records] == ["limits: a repair failed"]
