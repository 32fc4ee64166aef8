"""What goes into a line, what is only counted, and when a decision is as good as recorded."""

import asyncio

import pytest

from gateway.errors import JournalUnavailable
from gateway.journal.line import record_of
from gateway.journal.scribe import Sealed, decided, form, with_hold
from gateway.record import Kind, Personal, Record
from tests.fakes.journal import FakeDesk, FakeKey

ANN = Personal("ann", "u1", "192.0.2.1", "sdk/1")
SHARED = Record(Kind.DECISION, "", 0, org='ac"me', key_id="k%d", model="m%b%%", decision="allow", generation=3)
S = 1_000_000


def decide(desk: FakeDesk, *, synced: bool = False) -> bool:
    """Whether the decision is in the journal."""
    sealed = desk.scribe.seal("x1", "acme", ANN)

    async def main() -> bool:
        content = decided(form(SHARED), "x1", 5, "t", "s", sealed, 42, sealed.key.digest(b"body"))
        return await desk.scribe.commit(content, synced=synced)

    return asyncio.run(main())


def refusal(status: int, error: str, key_id: str = "k") -> Record:
    return Record(Kind.OUTCOME, "x", 9 * S + 5, status=status, error=error, key_id=key_id, ending="refused")


def test_a_form_is_a_record_with_its_blanks_filled_in() -> None:
    desk = FakeDesk()
    assert decide(desk)
    (content,) = desk.lines.contents
    record = record_of(content[:-1])
    assert record == Record(
        Kind.DECISION,
        "x1",
        5,
        trace_id="t",
        span_id="s",
        sealed="x1|ann|u1|192.0.2.1|sdk/1",
        sealed_by="acme/ann/u1",
        request_bytes=42,
        prompt_digest=FakeKey("acme/ann/u1").digest(b"body"),
        org='ac"me',
        key_id="k%d",
        model="m%b%%",
        decision="allow",
        generation=3,
    )


def test_a_limited_request_says_what_was_taken_and_under_which_id() -> None:
    content = decided(form(SHARED), "x1", 5, "t", "s", Sealed(FakeKey(""), ""), 42, "")
    record = record_of(with_hold(content, "x1", {'rpm|key=a"b|rate=1/60000': 1_000, "usd|window=1-2": 0})[:-1])
    assert record.hold_id == "x1"
    assert record.hold_amounts == {'rpm|key=a"b|rate=1/60000': 1_000, "usd|window=1-2": 0}
    assert record.request_bytes == 42


def test_what_begins_and_ends_is_a_line() -> None:
    desk = FakeDesk()
    desk.scribe.mode("limit_store_away", "main", "it is gone", 7)
    (line,) = desk.lines.told()
    told = (line["kind"], line["action"], line["subject"], line["detail"], line["at_us"])
    assert told == ("mode", "limit_store_away", "main", "it is gone", 7)


def test_kind_comes_first_so_that_checkpoints_are_told_without_decoding() -> None:
    assert form(SHARED).startswith(b'{"kind":"decision",')


@pytest.mark.parametrize("synced", [True, False])
def test_how_safe_a_decision_must_be_is_passed_on(synced: bool) -> None:
    desk = FakeDesk()
    decide(desk, synced=synced)
    assert [commit[1] for commit in desk.lines.commits] == [synced]


def test_a_decision_that_is_not_in_the_journal_is_refused_or_gone_on_with() -> None:
    desk = FakeDesk()
    desk.lines.answer = False
    assert not decide(desk)
    with pytest.raises(JournalUnavailable) as raised:
        desk.scribe.not_recorded(go_on=False)
    assert (raised.value.retry_after_s, desk.lines.gone_on) == (1, 0)
    desk.scribe.not_recorded(go_on=True)
    assert desk.lines.gone_on == 1


def test_without_a_key_nothing_is_said_of_the_person_or_the_body() -> None:
    desk = FakeDesk()
    desk.sealer.out = True
    assert decide(desk)
    (told,) = desk.lines.told()
    assert (told["sealed"], told["sealed_by"], told["prompt_digest"]) == ("", "", "")


def test_an_outcome_is_a_line() -> None:
    desk = FakeDesk()
    record = Record(Kind.OUTCOME, "x", 1, ending="complete", key_id="k")
    desk.scribe.outcome(record)
    desk.scribe.outcome(refusal(404, "model_not_found"))
    assert [record_of(content[:-1]) for content in desk.lines.contents] == [record, refusal(404, "model_not_found")]


def test_refusals_of_nobody_known_are_counted() -> None:
    desk = FakeDesk()
    for _ in range(1000):
        desk.scribe.outcome(refusal(401, "invalid_api_key", ""))
    desk.scribe.tick(9 * S + 5)
    assert desk.lines.contents == []
    desk.scribe.tick(10 * S)
    (line,) = desk.lines.told()
    assert (line["action"], line["error"], line["count"], line["at_us"]) == ("refusals", "invalid_api_key", 1000, 9 * S)
    assert "key_id" not in line


def test_a_storm_of_429s_is_told_one_by_one_and_then_counted() -> None:
    desk = FakeDesk(refusals_per_s=3)
    for _ in range(10):
        desk.scribe.outcome(refusal(429, "rate_limited"))
    assert len(desk.lines.contents) == 3
    desk.scribe.tick(10 * S)
    assert (desk.lines.told()[3]["count"], desk.lines.told()[3]["key_id"]) == (7, "k")


def test_refusals_for_want_of_the_journal_are_counted() -> None:
    desk = FakeDesk()
    for _ in range(10):
        desk.scribe.outcome(refusal(503, "journal_unavailable"))
    assert desk.lines.contents == []
    desk.scribe.tick(10 * S)
    assert [line["count"] for line in desk.lines.told()] == [10]


def test_a_snapshot_may_change_how_many_are_told() -> None:
    desk = FakeDesk(refusals_per_s=0)
    desk.scribe.adopt(2)
    for _ in range(5):
        desk.scribe.outcome(refusal(429, "rate_limited"))
    assert len(desk.lines.contents) == 2


def test_keys_are_looked_at_when_told_to() -> None:
    desk = FakeDesk()
    desk.scribe.poll()
    assert desk.sealer.polls == 1
