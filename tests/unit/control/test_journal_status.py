"""The status document: made from files alone, true to them, and saying what it cannot read."""

import json
from pathlib import Path

import pytest

from gateway.control.expiry import RetentionSettings
from gateway.control.holds import Holds
from gateway.control.journal_status import document, lag
from gateway.control.notary import Notary
from gateway.journal import layout
from gateway.journal.layout import NoJournal
from gateway.journal.manifest import last_manifest
from gateway.record import Kind, Record
from tests.fakes.written_journal import NODE, WrittenJournal

SETTINGS = RetentionSettings(1000, 30)


@pytest.fixture
def journal(tmp_path: Path) -> WrittenJournal:
    made = WrittenJournal(tmp_path)
    made.chain("w0").segment(5, Record(Kind.OUTCOME, "x", 6))
    made.chain("w0").segment(7)
    made.chain("control").segment(3)
    return made


def sign(journal: WrittenJournal) -> None:
    notary = Notary(journal.path, layout.signing_of(journal.state_dir), lambda: 9)
    notary.turn()
    notary.close()


def test_it_tells_what_lies_there(journal: WrittenJournal) -> None:
    sign(journal)
    end = journal.chain("w0").end
    journal.chain("w0").add(Record(Kind.OUTCOME, "y", 8))
    told = document(journal.state_dir, SETTINGS)
    first, control = told["chains"]
    sizes = [path.stat().st_size for path in sorted((journal.path / "w0").glob("*.jsonl"))]
    assert first == {
        "chain": "w0",
        "segments": 2,
        "oldest_segment": 1,
        "newest_segment": 2,
        "bytes": sum(sizes),
        "first_seq": 0,
        "oldest_us": 5,
        "signed": {"segment": 2, "offset": end.offset, "seq": 2},
        "unsigned_bytes": sizes[1] - end.offset,
    }
    assert control["unsigned_bytes"] == 0
    assert (told["node"], told["oldest_us"]) == (NODE, 3)
    manifest = last_manifest(journal.path)
    assert manifest is not None
    assert told["manifest"] == {"n": manifest.n, "at_us": 9, "key": manifest.key}
    assert told["manifest_bytes"] == sum(path.stat().st_size for path in (journal.path / "manifests").iterdir())
    assert told["used_bytes"] == sum(sizes) + control["bytes"] + told["manifest_bytes"]
    assert told["retention"] == {"max_bytes": 1000, "keep_days": 30}
    assert (told["holds"], told["readers"], told["poison"], told["problems"]) == ([], [], {}, [])
    assert json.loads(json.dumps(told)) == told


def test_what_was_never_signed_is_all_unsigned(journal: WrittenJournal) -> None:
    told = document(journal.state_dir, SETTINGS)
    assert told["manifest"] is None
    assert all(chain["signed"] is None and chain["unsigned_bytes"] == chain["bytes"] for chain in told["chains"])


def test_a_prepared_segment_is_none_yet(journal: WrittenJournal) -> None:
    layout.segment_path(journal.path, "w0", 3).touch()
    (journal.path / "w9").mkdir()
    told = document(journal.state_dir, SETTINGS)
    assert (told["chains"][0]["newest_segment"], told["chains"][0]["segments"]) == (2, 2)
    assert (told["chains"][1]["chain"], told["chains"][1]["oldest_us"], told["oldest_us"]) == ("w9", 0, 3)


def test_holds_and_poison_are_told(journal: WrittenJournal) -> None:
    hold = Holds(journal.path, lambda _: None, lambda: 4).add("case", "ann", org="acme")
    (journal.state_dir / "poison").mkdir()
    (journal.state_dir / "poison" / "usage.jsonl").write_bytes(b"x" * 12)
    told = document(journal.state_dir, SETTINGS)
    assert told["holds"] == [{
        "id": hold.id, "why": "case", "actor": "ann", "at_us": 4, "from_us": 0, "to_us": hold.to_us, "org": "acme",
    }]  # fmt: skip
    assert told["poison"] == {"usage": 12}


def test_what_cannot_be_read_is_a_problem_and_the_rest_is_told(journal: WrittenJournal) -> None:
    sign(journal)
    for path in (journal.path / "manifests").glob("*.jsonl"):
        path.write_bytes(b"rubbish\n")
    (journal.path / "holds.json").write_text("[")
    told = document(journal.state_dir, SETTINGS)
    assert len(told["chains"]) == 2
    assert ["manifest is damaged" in told["problems"][0], "holds.json" in told["problems"][1]] == [True, True]


def test_without_a_journal_there_is_nothing_to_tell(tmp_path: Path) -> None:
    with pytest.raises(NoJournal, match="when it first runs"):
        document(tmp_path, SETTINGS)


def test_a_lag_counts_signed_lines_only(journal: WrittenJournal) -> None:
    assert lag(document(journal.state_dir, SETTINGS), {}) == 0
    sign(journal)
    told = document(journal.state_dir, SETTINGS)
    assert lag(told, {}) == 4
    assert lag(told, {"w0": 1, "control": 0}) == 1
    assert lag(told, {"w0": 99, "control": 99}) == 0
