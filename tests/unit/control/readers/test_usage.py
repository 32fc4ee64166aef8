"""What each record adds to which row, and that the rows are those of every record once."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from gateway.control.database import usage_rows
from gateway.control.database.handle import Database
from gateway.control.database.tables import CURSORS
from gateway.control.database.trouble import BadValue
from gateway.control.database.usage_rows import forget_user
from gateway.control.pace import FEW, PAUSE_S, Pace
from gateway.control.readers.base import Batch, Cursor, Moved, Poison, Trouble
from gateway.control.readers.runner import Runner
from gateway.control.readers.usage import MAX_AMOUNT, MAX_AT_US, UsageReader, fold
from gateway.control.usage_fields import MEASURES, Group
from gateway.journal.read import Entry, Place
from gateway.record import Kind, Personal, Record, Usage, UsageSource
from tests.fakes.signed_journal import SignedJournal, outcome
from tests.fakes.usage_table import amounts_in, rows_in

NODE = "a" * 32
HOUR_US = 3_600_000_000


def entry(record: Record, seq: int = 0) -> Entry:
    return Entry("w0", 1, seq, b"", record, Place(1, 100 * (seq + 1)))


def nobody(_record: Record) -> Personal | None:
    return None


def sums(*records: Record) -> dict[tuple[int, Group], dict[str, int]]:
    """What the records add, without the zeros."""
    folded = fold(NODE, [entry(record, seq) for seq, record in enumerate(records)], nobody, Pace())
    return {
        key: {name: amount for name, amount in zip(MEASURES, amounts, strict=True) if amount}
        for key, amounts in folded.items()
    }


def only(record: Record) -> dict[str, int]:
    """What one record adds."""
    (amounts,) = sums(record).values()
    return amounts


# --- what is counted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.OUTCOME])
def test_nothing_but_outcomes_counts(kind: Kind) -> None:
    assert sums(Record(kind, "x", 1, org="acme", cost_microusd=5)) == {}


@pytest.mark.parametrize(
    ("ending", "counted"),
    [
        ("complete", {}),
        ("refused", {"refused": 1}),
        ("failed", {"failed": 1}),
        ("truncated", {"truncated": 1}),
        ("abandoned", {"abandoned": 1}),
        ("an ending of a later version", {}),
    ],
)
def test_an_exchange_counts_once_and_by_its_ending(ending: str, counted: dict[str, int]) -> None:
    assert only(outcome(ending=ending)) == {"requests": 1} | counted


def test_refusals_told_together_count_each() -> None:
    told = outcome("", action="refusals", ending="refused", count=250, error="invalid_api_key")
    assert only(told) == {"requests": 250, "refused": 250}


def test_every_amount_is_in_its_column() -> None:
    usage = Usage(
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        reasoning_tokens=5,
        audio_input_tokens=6,
        audio_output_tokens=7,
    )
    assert only(outcome(usage=usage, streamed=True, cost_microusd=8, duration_us=9)) == {
        "requests": 1,
        "streamed": 1,
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_tokens": 3,
        "cache_write_tokens": 4,
        "reasoning_tokens": 5,
        "audio_input_tokens": 6,
        "audio_output_tokens": 7,
        "cost_microusd": 8,
        "duration_us": 9,
    }


@pytest.mark.parametrize(
    ("source", "estimated"), [(UsageSource.PROVIDER, 0), (UsageSource.METERED, 1), (UsageSource.ESTIMATED, 1)]
)
def test_what_the_provider_did_not_report_is_marked(source: UsageSource, estimated: int) -> None:
    assert only(outcome(usage=Usage(source=source))).get("estimated_requests", 0) == estimated


def test_many_lines_are_counted_with_pauses_between_them() -> None:
    ticks, pauses = itertools.count(), list[float]()
    pace = Pace(now_s=lambda: float(next(ticks)), sleep=pauses.append)
    lines = [entry(outcome(), seq) for seq in range(2 * FEW + 1)]
    (amounts,) = fold(NODE, lines, nobody, pace).values()
    assert amounts[MEASURES.index("requests")] == len(lines)
    assert pauses == [PAUSE_S] * 3


def test_records_of_one_group_and_hour_are_one_row() -> None:
    records = [outcome(at_us=HOUR_US + at, org="acme", cost_microusd=at) for at in (0, 1, HOUR_US - 1)]
    later = outcome(at_us=2 * HOUR_US, org="acme", cost_microusd=7)
    group = Group(NODE, "acme", "", "", "", "", "")
    assert sums(*records, later) == {
        (3600, group): {"requests": 3, "cost_microusd": HOUR_US},
        (7200, group): {"requests": 1, "cost_microusd": 7},
    }


# --- whose it is ----------------------------------------------------------------------------------------------------


def group_of(record: Record, personal: Personal | None = None) -> Group:
    ((_, group),) = fold(NODE, [entry(record)], lambda _record: personal, Pace())
    return group


def test_a_row_is_of_its_group() -> None:
    record = outcome(
        org="acme", team="search", key_id="k", model="large", target="big/large-1", route="agents", sealed="x"
    )
    assert group_of(record, Personal(user="ann", end_user="somebody")) == Group(
        NODE, "acme", "search", "k", "ann", "large", "big/large-1"
    )


def test_what_is_erased_or_was_never_sealed_is_nobodys() -> None:
    assert group_of(outcome(sealed="x"), None).user == ""
    assert group_of(outcome(), Personal(user="ann")).user == "", "nothing is sealed: nothing is opened"


def test_a_model_that_no_route_was_found_for_is_a_callers_word() -> None:
    assert group_of(outcome(model="made-up", ending="refused", error="model_not_found")).model == ""


def test_a_key_is_one_persons_and_opened_once_a_batch() -> None:
    opened: list[str] = []

    def open_personal(record: Record) -> Personal | None:
        opened.append(record.sealed_by)
        return Personal(user=f"user of {record.sealed_by}")

    records = [outcome(sealed="x", sealed_by=key) for key in ("w0-1.1", "w0-1.2", "w0-1.1", "w0-1.1")]
    folded = fold(NODE, [entry(record, seq) for seq, record in enumerate([*records, outcome()])], open_personal, Pace())
    assert opened == ["w0-1.1", "w0-1.2"]
    requests = {group.user: amounts[0] for (_, group), amounts in folded.items()}
    assert requests == {"user of w0-1.1": 3, "user of w0-1.2": 1, "": 1}


@pytest.mark.parametrize(("status", "kept"), [(200, True), (399, True), (400, False), (502, False), (0, False)])
def test_a_pattern_stands_for_the_names_that_no_provider_has_served(status: int, kept: bool) -> None:
    record = outcome(model="made-up", target="big/made-up", route="r", entry="*", status=status)
    group = group_of(record)
    assert (group.model, group.target) == (("made-up", "big/made-up") if kept else ("*", "big/*"))
    named = group_of(outcome(model="large", target="big/large-1", route="r", status=status))
    assert (named.model, named.target) == ("large", "big/large-1"), "an entry of the config is nobody's invention"
    assert group_of(outcome(model="made-up", route="r", entry="*", status=503)).target == ""


def test_texts_are_made_fit() -> None:
    record = outcome(org="a\0", team="t" * 300, key_id="k\0", model="m\0", target="t\0", route="r", sealed="x")
    group = group_of(record, Personal(user="u\0"))
    assert group == Group(NODE, "a\ufffd", "t" * 256, "k\ufffd", "u\ufffd", "m\ufffd", "t\ufffd")


# --- what cannot be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        outcome(cost_microusd=MAX_AMOUNT + 1),
        outcome(cost_microusd=-1),
        outcome(usage=Usage(input_tokens=10**30)),
        outcome(usage=Usage(output_tokens=-5)),
        outcome(count=MAX_AMOUNT + 1),
        outcome(duration_us=2**63),
        outcome(at_us=MAX_AT_US),
        outcome(at_us=-1),
    ],
    ids=["dear", "a-gift", "many-tokens", "lost-tokens", "many", "long", "late", "early"],
)
def test_a_number_that_cannot_be_is_poison_and_named(record: Record) -> None:
    lines = [entry(outcome(), 0), entry(record, 1), entry(outcome(), 2)]
    with pytest.raises(Poison) as caught:
        fold(NODE, lines, nobody, Pace())
    assert caught.value.entry is lines[1]


def test_the_largest_numbers_are_taken() -> None:
    assert only(outcome(cost_microusd=MAX_AMOUNT, at_us=MAX_AT_US - 1))["cost_microusd"] == MAX_AMOUNT


# --- in the database ------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database("", tmp_path)
    yield made
    made.close()


def batch(reader: UsageReader, *records: Record) -> Batch:
    before = reader.cursors(["w0"])["w0"]
    return Batch("w0", [entry(record) for record in records], before, Cursor(Place(1, before.place.offset + 100), 5))


def test_effect_and_cursor_go_together(database: Database) -> None:
    reader = UsageReader(database, NODE, nobody)
    one = batch(reader, outcome(cost_microusd=5))
    reader.apply(one)
    assert amounts_in(database)["cost_microusd"] == 5
    assert reader.cursors(["w0"]) == {"w0": one.after}
    with pytest.raises(Moved):
        reader.apply(one)
    assert amounts_in(database)["cost_microusd"] == 5


def test_an_empty_batch_moves_the_cursor(database: Database) -> None:
    reader = UsageReader(database, NODE, nobody)
    one = batch(reader)
    reader.apply(one)
    assert (reader.cursors(["w0"]), rows_in(database)) == ({"w0": one.after}, {})


def test_two_readers_of_one_chain_count_once(database: Database) -> None:
    first, second = UsageReader(database, NODE, nobody), UsageReader(database, NODE, nobody)
    one, two = batch(first, outcome(cost_microusd=5)), batch(second, outcome(cost_microusd=5))
    first.apply(one)
    with pytest.raises(Moved):
        second.apply(two)
    assert amounts_in(database)["cost_microusd"] == 5


def test_a_name_read_before_it_was_forgotten_is_not_written_after(database: Database) -> None:
    known = {"ann": True}
    reader = UsageReader(database, NODE, lambda _record: Personal(user="ann") if known["ann"] else None)
    one = batch(reader, outcome(org="acme", sealed="x"))
    known["ann"] = False
    forget_user(database, "acme", "ann")
    known["ann"] = True  # opened just before
    with pytest.raises(Moved):
        reader.apply(one)
    known["ann"] = False
    assert reader.cursors(["w0"])["w0"] == one.before
    reader.apply(one)
    assert {group.user for _, group in rows_in(database)} == {""}


def test_rows_that_somebody_deleted_are_begun_anew(database: Database) -> None:
    reader = UsageReader(database, NODE, nobody)
    one = batch(reader, outcome())
    with database.writing() as connection:
        connection.execute(delete(CURSORS))
    with pytest.raises(Moved):
        reader.apply(one)
    assert reader.cursors(["w0"]) == {"w0": Cursor()}


def test_trouble_says_what_helps(database: Database, tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"no database" * 1000)
    reader = UsageReader(database, NODE, nobody)
    with pytest.raises(Trouble, match="move it away"):
        reader.cursors(["w0"])


def test_a_value_that_the_database_refuses_is_poison(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = UsageReader(database, NODE, nobody)
    one = batch(reader, outcome())

    def refuse(*_: object) -> None:
        raise BadValue("out of range")

    monkeypatch.setattr(usage_rows, "add", refuse)
    with pytest.raises(Poison, match="out of range") as caught:
        reader.apply(one)
    assert caught.value.entry is None
    assert reader.cursors(["w0"])["w0"] == one.before


def test_trouble_while_writing_changes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = UsageReader(database, NODE, nobody)
    one = batch(reader, outcome())
    with database.writing() as connection:  # ours is not the only writer
        connection.execute(select(CURSORS)).all()
        monkeypatch.setattr("gateway.control.database.engine.BUSY_S", 0)
        database.close()
        with pytest.raises(Trouble, match="another program holds it"):
            reader.apply(one)
    reader.apply(one)
    assert len(rows_in(database)) == 1


def test_a_key_that_cannot_be_read_now_is_waited_for(database: Database, tmp_path: Path) -> None:
    """The name would be lost for good: it is no longer asked for once the cursor has passed."""
    signed = SignedJournal(tmp_path)
    signed.write(outcome(sealed="x"))
    broken = [OSError(24, "Too many open files")]

    def open_personal(_record: Record) -> Personal | None:
        if broken:
            raise broken.pop()
        return Personal(user="ann")

    runner = Runner(UsageReader(database, signed.node, open_personal), signed.source(), tmp_path)
    runner.step()
    assert "Too many open files" in runner.failing
    assert rows_in(database) == {}
    runner.step()
    assert [group.user for _, group in rows_in(database)] == ["ann"]


def test_a_journal_is_counted_wholly(database: Database, tmp_path: Path) -> None:
    signed = SignedJournal(tmp_path)
    for chain in ("w0", "w1"):
        signed.write(*(outcome(key_id=f"k{at % 3}", cost_microusd=at) for at in range(50)), chain=chain)
    signed.write(b"rubbish", outcome(cost_microusd=10**15), outcome(cost_microusd=1))
    runner = Runner(UsageReader(database, signed.node, nobody), signed.source(), tmp_path)
    assert runner.step()
    assert runner.failing == ""
    assert amounts_in(database)["cost_microusd"] == 2 * sum(range(50)) + 1
    assert (runner.poisoned, runner.lag_records) == (2, 0)
