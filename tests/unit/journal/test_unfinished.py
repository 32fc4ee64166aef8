"""A decision is without an outcome for good once somebody else has begun in its chain, and not before."""

from pathlib import Path

import pytest

from gateway.journal.search import Query
from gateway.journal.unfinished import unfinished
from gateway.record import Kind
from tests.fakes.a_journal import AJournal


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    return AJournal(tmp_path / "state")


def decide(made: AJournal, chain: str, exchange: str, key_id: str = "") -> None:
    made.write(chain, kind=Kind.DECISION, exchange_id=exchange, decision="allow", key_id=key_id)


def finish(made: AJournal, chain: str, exchange: str) -> None:
    made.write(chain, exchange_id=exchange)


def begin(made: AJournal, chain: str) -> None:
    made.write(chain, kind=Kind.CHECKPOINT, exchange_id="", action="began")


def told(made: AJournal, query: Query | None = None) -> list[str]:
    return [entry.record.exchange_id for entry in unfinished(made.journal, query or Query())]


def test_what_was_under_way_when_its_worker_died(made: AJournal) -> None:
    begin(made, "w0")
    for exchange in ("a", "b", "c"):
        decide(made, "w0", exchange)
    finish(made, "w0", "b")
    assert told(made) == [], "they may still be under way"
    begin(made, "w0")
    decide(made, "w0", "d")
    finish(made, "w0", "d")
    decide(made, "w0", "e")
    assert told(made) == ["a", "c"]


def test_another_chain_says_nothing_of_this_one(made: AJournal) -> None:
    decide(made, "w0", "a")
    decide(made, "w1", "b")
    begin(made, "w1")
    assert told(made) == ["b"]


def test_all_chains_in_the_order_of_time_over_segments(made: AJournal) -> None:
    for chain, exchange in (("w0", "a"), ("w1", "b"), ("w0", "c"), ("w1", "d")):
        decide(made, chain, exchange)
        made.roll(chain, "size")
    assert told(made) == []
    begin(made, "w1")
    made.roll("w0", "idle")
    assert told(made) == ["a", "b", "c", "d"]


def test_of_those_that_are_asked_for(made: AJournal) -> None:
    decide(made, "w0", "a", key_id="demo")
    made.roll("w0", "size")
    decide(made, "w0", "b", key_id="other")
    decide(made, "w0", "c", key_id="demo")
    begin(made, "w0")
    first, second, third = (entry.record.at_us for entry in unfinished(made.journal, Query()))
    assert told(made, Query(key="demo")) == ["a", "c"]
    assert told(made, Query(since_us=second)) == ["b", "c"]
    assert told(made, Query(until_us=third)) == ["a", "b"]
    assert told(made, Query(kind="outcome")) == []
    assert first < second < third


def test_a_refusal_and_other_checkpoints_end_nothing(made: AJournal) -> None:
    decide(made, "w0", "a")
    finish(made, "w0", "refused")
    made.write("w0", kind=Kind.CHECKPOINT, exchange_id="", action="repaired")
    assert told(made) == []


def test_a_line_that_cannot_be_read_is_told_since_it_may_be_one_of_them(made: AJournal) -> None:
    decide(made, "w0", "a", key_id="demo")
    path = made.path("w0", 1)
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    assert [entry.raw for entry in unfinished(made.journal, Query())] == [b"rubbish\n"]
    assert told(made, Query(key="demo")) == []
