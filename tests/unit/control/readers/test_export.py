"""What an export hands on: the record's own bytes, where it comes from, how far it has got, and whose data it shows."""

import hashlib
import itertools
import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import msgspec
import pytest

from gateway.config.schema import Export
from gateway.control.pace import FEW, PAUSE_S, Pace
from gateway.control.readers import export as module
from gateway.control.readers.base import Batch, Cursor, Poison, Trouble
from gateway.control.readers.export import ExportReader
from gateway.control.sinks.base import SinkError
from gateway.journal import layout
from gateway.journal.line import Malformed
from gateway.journal.read import START, Place, entries
from gateway.record import Kind, Personal, Record
from tests.fakes.written_journal import NODE, WrittenJournal

Mode = Literal["sealed", "opened", "omitted"]
SEALED = Record(Kind.OUTCOME, "x1", 5, org="acme", sealed="c2VhbGVk", sealed_by="w0-1.1", prompt_digest="ab")
ANN = Personal(user="ann", client_ip="10.0.0.1")


class Taken:
    """A sink that remembers; `refuse` makes it refuse."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.refuse = False
        self.closed = False

    def send(self, lines: Sequence[bytes]) -> None:
        if self.refuse:
            raise SinkError("the other end is away: bring it back")
        self.lines.extend(lines)

    def close(self) -> None:
        self.closed = True

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def plain(number: int) -> Record:
    return Record(Kind.OUTCOME, f"x{number}", number)


@pytest.fixture
def journal(tmp_path: Path) -> WrittenJournal:
    made = WrittenJournal(tmp_path)
    made.chain("w0").segment(1, plain(1), SEALED)
    made.chain("w0").segment(2, plain(2))
    return made


def reader_of(
    journal: WrittenJournal, personal: Mode = "sealed", opened: Callable[[Record], Personal | None] = lambda _: ANN
) -> tuple[ExportReader, Taken]:
    sink = Taken()
    settings = Export(name="siem", kind="stdout", personal=personal)
    return ExportReader(settings, sink, journal.path, journal.node, journal.state_dir, opened), sink


def batch_of(journal: WrittenJournal, start: Place = START, chain: str = "w0") -> Batch:
    found = list(entries(journal.path, chain, start))
    return Batch(chain, found, Cursor(start), Cursor(found[-1].after, found[-1].seq))


# --- lines ----------------------------------------------------------------------------------------------------------


def test_many_lines_are_made_with_pauses_between_them(journal: WrittenJournal) -> None:
    ticks, pauses, sink = itertools.count(), list[float](), Taken()
    pace = Pace(now_s=lambda: float(next(ticks)), sleep=pauses.append)
    settings = Export(name="siem", kind="stdout")
    reader = ExportReader(settings, sink, journal.path, journal.node, journal.state_dir, lambda _: None, pace)
    journal.chain("w1").segment(3, *(plain(number) for number in range(2 * FEW)))
    batch = batch_of(journal, chain="w1")
    reader.apply(batch)
    assert [entry["record"]["at_us"] for entry in sink.told()] == [entry.record.at_us for entry in batch.entries]
    assert pauses == [PAUSE_S] * 3


def test_every_record_with_its_id_and_origin(journal: WrittenJournal) -> None:
    reader, sink = reader_of(journal)
    reader.apply(batch_of(journal))
    told = sink.told()
    assert [line["id"] for line in told] == [f"{NODE}/w0/{end}" for end in ("1/0", "1/1", "1/2", "2/3", "2/4")]
    assert {(line["node"], line["region"], line["chain"]) for line in told} == {(NODE, "eu", "w0")}
    assert [line["record"]["exchange_id"] for line in told] == ["", "x1", "x1", "", "x2"]
    assert list(told[0]) == ["id", "node", "region", "chain", "record", "leaf"]


def test_a_sealed_record_keeps_its_bytes_so_that_anybody_can_prove_it(journal: WrittenJournal) -> None:
    reader, sink = reader_of(journal)
    reader.apply(batch_of(journal))
    for line, raw in zip(sink.lines, journal.chain("w0").lines, strict=True):
        record = line[line.index(b'"record":') + 9 : line.rindex(b',"leaf":')]
        assert raw.startswith(record[:-1] + b',"hash":')
        assert json.loads(line)["leaf"] == hashlib.sha256(record[:-1]).hexdigest()


def test_one_that_begins_in_the_middle_of_a_segment_looks_up_where_it_is(journal: WrittenJournal) -> None:
    every = list(entries(journal.path, "w0"))
    for begin in range(1, len(every)):
        reader, sink = reader_of(journal)
        reader.apply(batch_of(journal, every[begin - 1].after))
        assert [line["region"] for line in sink.told()] == ["eu"] * (len(every) - begin)


def test_each_segment_says_its_own_region(journal: WrittenJournal) -> None:
    chain = journal.chain("w0")
    chain.region = 'u"s'
    chain.segment(3, plain(3))
    journal.chain("control").segment(4, plain(4))
    reader, sink = reader_of(journal)
    reader.apply(batch_of(journal))
    reader.apply(batch_of(journal, chain="control"))
    assert [line["region"] for line in sink.told()] == ["eu"] * 5 + ['u"s'] * 2 + ["eu"] * 2
    assert sink.told()[-1]["chain"] == "control"


@pytest.mark.parametrize("first", [b"rubbish\n", b""])
def test_without_a_first_line_the_journal_tells_the_node(journal: WrittenJournal, first: bytes) -> None:
    path = layout.segment_path(journal.path, "w0", 2)
    path.write_bytes(first + journal.chain("w0").lines[-1])
    reader, sink = reader_of(journal)
    (last,) = [entry for entry in entries(journal.path, "w0", Place(2, 0)) if not entry.error]
    reader.apply(Batch("w0", [last], Cursor(), Cursor(last.after, last.seq)))
    assert [(line["id"], line["node"], line["region"]) for line in sink.told()] == [(f"{NODE}/w0/2/4", NODE, "")]


def test_a_line_that_is_none_is_poison(journal: WrittenJournal) -> None:
    reader, sink = reader_of(journal)
    batch = batch_of(journal)
    bad = msgspec.structs.replace(batch.entries[1], raw=b"rubbish\n")
    with pytest.raises(Poison) as caught:
        reader.apply(batch._replace(entries=[batch.entries[0], bad]))
    assert caught.value.entry is bad
    assert isinstance(caught.value.__cause__, Malformed)
    assert not sink.lines
    assert not reader.path.exists()


# --- personal parts -------------------------------------------------------------------------------------------------


def exported(journal: WrittenJournal, personal: Mode, opened: Callable[[Record], Personal | None]) -> dict[str, Any]:
    """The one record that has a personal part."""
    reader, sink = reader_of(journal, personal, opened)
    reader.apply(batch_of(journal))
    others = [line["record"] for line in sink.told() if line["record"]["at_us"] != 5]
    assert all({"personal", "sealed", "sealed_by"}.isdisjoint(record) for record in others)
    (record,) = [line["record"] for line in sink.told() if line["record"]["at_us"] == 5]
    return dict(record)


def test_opened_shows_the_person(journal: WrittenJournal) -> None:
    opened = mock.Mock(return_value=ANN)
    record = exported(journal, "opened", opened)
    opened.assert_called_once_with(SEALED)
    assert record["personal"] == {"user": "ann", "client_ip": "10.0.0.1"}
    assert "sealed" not in record
    assert (record["sealed_by"], record["prompt_digest"], record["seq"]) == ("w0-1.1", "ab", 2)


def test_opened_says_that_a_person_was_erased(journal: WrittenJournal) -> None:
    record = exported(journal, "opened", lambda _: None)
    assert record["personal"] is None
    assert "sealed" not in record


def test_omitted_leaves_nothing_that_a_persons_records_share(journal: WrittenJournal) -> None:
    def never(_record: Record) -> Personal | None:
        raise AssertionError

    record = exported(journal, "omitted", never)
    assert record == {
        "seq": 2, "kind": "outcome", "exchange_id": "x1", "at_us": 5, "org": "acme", "prompt_digest": "ab",
    }  # fmt: skip


@pytest.mark.parametrize("personal", ["opened", "omitted"])
def test_fields_of_a_newer_version_pass(journal: WrittenJournal, personal: Mode) -> None:
    chain = journal.chain("w0")
    line = chain._line(b'{"kind":"outcome","exchange_id":"x9","at_us":5,"sealed":"eA==","sealed_by":"k","new":{"a":1}}')
    with chain.path.open("ab") as file:
        file.write(line)
    reader, sink = reader_of(journal, personal)
    reader.apply(batch_of(journal))
    assert sink.told()[-1]["record"]["new"] == {"a": 1}


# --- how far it has got ---------------------------------------------------------------------------------------------


def test_it_begins_at_the_beginning(journal: WrittenJournal) -> None:
    reader, _ = reader_of(journal)
    assert reader.name == "export-siem"
    assert reader.cursors(["w0", "control"]) == {"w0": Cursor(), "control": Cursor()}


def test_another_process_goes_on_where_it_was(journal: WrittenJournal) -> None:
    batch = batch_of(journal)
    moved = batch._replace(after=batch.after._replace(missing=7))
    reader_of(journal)[0].apply(moved)
    second = reader_of(journal)[0]
    assert second.cursors(["w0", "w1"]) == {"w0": moved.after, "w1": Cursor()}
    assert stat.S_IMODE(second.path.stat().st_mode) == 0o600
    assert second.path == journal.state_dir / "exports" / "siem.json"


def test_chains_do_not_forget_each_other(journal: WrittenJournal) -> None:
    journal.chain("w1").segment(3)
    reader, _ = reader_of(journal)
    first, second = batch_of(journal), batch_of(journal, chain="w1")
    reader.apply(first)
    reader.apply(second)
    assert reader_of(journal)[0].cursors(["w0", "w1"]) == {"w0": first.after, "w1": second.after}


def test_a_batch_of_nothing_moves_the_cursor(journal: WrittenJournal) -> None:
    reader, sink = reader_of(journal)
    sink.refuse = True
    reader.apply(Batch("w0", [], Cursor(), Cursor(Place(1, 9), 0)))
    assert reader_of(journal)[0].cursors(["w0"]) == {"w0": Cursor(Place(1, 9), 0)}


def test_what_the_sink_refuses_is_trouble_and_moves_nothing(journal: WrittenJournal) -> None:
    reader, sink = reader_of(journal)
    sink.refuse = True
    with pytest.raises(Trouble, match="bring it back"):
        reader.apply(batch_of(journal))
    assert reader.cursors(["w0"]) == {"w0": Cursor()}


def test_a_cursor_that_cannot_be_written_is_trouble(journal: WrittenJournal) -> None:
    reader, sink = reader_of(journal)
    broken = mock.patch.object(module, "replacing", side_effect=OSError(28, "No space left on device"))
    with broken, pytest.raises(Trouble, match=r"siem\.json cannot be written: No space"):
        reader.apply(batch_of(journal))
    assert reader.cursors(["w0"]) == {"w0": Cursor()}
    reader.apply(batch_of(journal))
    assert len(sink.lines) == 10, "twice, and not lost"


def test_a_cursor_that_cannot_be_read_is_trouble(journal: WrittenJournal) -> None:
    reader, _ = reader_of(journal)
    reader.path.mkdir(parents=True)
    with pytest.raises(Trouble, match="cannot be read"):
        reader.cursors(["w0"])


@pytest.mark.parametrize("content", [b"", b"{}", b'{"v":1,"node":"\xff"}', b'{"v":1,"node":"n","chains":{"w0":{}}}'])
def test_a_damaged_cursor_starts_over(
    journal: WrittenJournal, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, _ = reader_of(journal)
    reader.apply(batch_of(journal))
    reader.path.write_bytes(content)
    assert reader.cursors(["w0"]) == {"w0": Cursor()}
    assert "starts with the oldest record again" in caplog.text


def test_a_cursor_of_another_journal_starts_over(journal: WrittenJournal, caplog: pytest.LogCaptureFixture) -> None:
    reader_of(journal)[0].apply(batch_of(journal))
    journal.node = "b" * 32
    assert reader_of(journal)[0].cursors(["w0"]) == {"w0": Cursor()}
    assert NODE in caplog.text


def test_closing_closes_the_sink(journal: WrittenJournal) -> None:
    reader, sink = reader_of(journal)
    reader.close()
    assert sink.closed
