"""What waits through an outage, in which order it comes out, and that every loss is told."""

import json

import pytest

from gateway.journal import outage as outage_module
from gateway.journal.line import record_of
from gateway.journal.outage import Outage, kind_of
from gateway.record import Kind, Record
from tests.fakes.disk import no_space
from tests.fakes.journal_writer import content


def told(batch: list[bytes]) -> list[str]:
    """Each record by its id, or by its action."""
    records = [record_of(each[:-1]) for each in batch]
    return [record.exchange_id or record.action for record in records]


def left(batch: list[bytes]) -> dict[str, object]:
    record = record_of(batch[-1][:-1])
    assert (record.kind, record.action, record.subject) == (Kind.MODE, "left", "journal_failing")
    detail: dict[str, object] = json.loads(record.detail)
    return detail


def begun(backlog_bytes: int = 10_000, *waiting: str) -> Outage:
    outage = Outage(backlog_bytes)
    outage.begin(no_space())
    for text in waiting:
        outage.wait(content(text))
    return outage


def test_what_waited_stands_between_the_two_mode_records() -> None:
    outage = begun(10_000, "a", "b")
    batch = outage.batch()
    assert told(batch) == ["entered", "a", "b", "left"]
    assert outage.wrote(4)
    assert record_of(batch[0][:-1]).at_us <= record_of(batch[3][:-1]).at_us


@pytest.mark.parametrize(
    ("written", "rest"),
    [
        (0, ["entered", "a", "b", "left"]),
        (1, ["a", "b", "left"]),
        (2, ["b", "left"]),
        (3, ["left"]),
    ],
)
def test_a_batch_written_in_part_goes_on_behind_it(written: int, rest: list[str]) -> None:
    outage = begun(10_000, "a", "b")
    outage.batch()
    assert not outage.wrote(written)
    assert told(outage.batch()) == rest


def test_beyond_the_bound_records_are_lost_by_kind() -> None:
    outage = begun(2 * len(content("a")), "a", "b", "c")
    outage.wait(content("d", Kind.DECISION))
    outage.lose("decision")
    assert (outage.lost, outage.owed()) == (3, 3)
    batch = outage.batch()
    assert told(batch) == ["entered", "a", "b", "left"]
    said = left(batch)
    assert (said["lost"], said["lost_by_kind"], said["errno"]) == (3, {"outcome": 1, "decision": 2}, "ENOSPC")
    assert outage.wrote(4)
    assert (outage.lost, outage.owed()) == (3, 0)
    outage.wait(content("e"))
    assert told(outage.batch())[0] == "e"


def test_a_loss_between_outages_is_told_too() -> None:
    outage = Outage(1_000)
    outage.lose("decision")
    batch = outage.batch()
    assert (told(batch), left(batch)["lost"], left(batch)["failed_us"]) == (["left"], 1, 0)
    assert outage.wrote(1)
    assert outage.owed() == 0


def test_a_batch_is_not_more_than_a_turn_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "_BATCH_BYTES", 2 * len(content("a")))
    outage = begun(10_000, "a", "b", "c")
    assert told(outage.batch()) == ["entered", "a", "b"]
    assert not outage.wrote(3)
    assert told(outage.batch()) == ["c", "left"]
    assert outage.wrote(2)


def test_a_record_larger_than_a_batch_still_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "_BATCH_BYTES", 10)
    outage = begun(10_000, "a")
    assert told(outage.batch()) == ["entered"]
    outage.wrote(1)
    assert told(outage.batch()) == ["a", "left"]


def test_giving_up_counts_what_waits_and_what_comes() -> None:
    outage = begun(10_000, "a")
    outage.give_up()
    outage.wait(content("b"))
    assert outage.lost == 2
    assert told(outage.batch()) == ["entered", "left"]


def test_the_kind_is_told_from_the_bytes() -> None:
    for kind in Kind:
        assert kind_of(content("x", kind)) == kind.value
    assert record_of(content("x")[:-1]) == Record(Kind.OUTCOME, "x", 1)
