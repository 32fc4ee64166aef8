"""Opening a chain that is whole, torn, or missing what was signed; and openings that are themselves cut short."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.journal.end import Signed
from gateway.journal.read import Place
from tests.fakes.disk import Fault, FaultyDisk, no_space
from tests.fakes.journal_writer import NODE, FakeSigner, Writer, checked, content, ids, segment, settings


def written(journal: Path, *texts: str) -> None:
    writer = Writer(settings(journal))
    for text in texts:
        writer.journal.append(content(text))
    writer.close()


def test_a_torn_line_is_set_aside_and_told_under_a_signature(tmp_path: Path) -> None:
    written(tmp_path, "a", "b")
    data = segment(tmp_path, 1).read_bytes()
    segment(tmp_path, 1).write_bytes(data[:-20])
    cut = data[:-20][data.rindex(b"\n", 0, -20) + 1 :]
    Writer(settings(tmp_path)).close()
    assert ids(tmp_path) == ["a"]
    repaired = checked(tmp_path)[-1]
    assert (repaired["action"], repaired["subject"], repaired["signed_by"]) == ("repaired", "w0/1", "k1")
    told = json.loads(repaired["detail"])
    offset = len(data[:-20]) - len(cut)
    assert told == {
        "cut_bytes": len(cut), "cut_sha256": hashlib.sha256(cut).hexdigest(), "after_seq": 1, "offset": offset,
    }  # fmt: skip
    assert repaired["prev"] == checked(tmp_path)[-2]["hash"]
    signed = f"gateway repair 1\n{NODE}\nw0\n{repaired['prev']}\n{repaired['detail']}".encode()
    assert repaired["signature"] == FakeSigner().sign(signed).hex()
    assert (tmp_path / "w0" / f"torn-1-{offset}").read_bytes() == cut


def test_a_whole_chain_needs_no_signer(tmp_path: Path) -> None:
    written(tmp_path, "a")
    written(tmp_path, "b")
    assert ids(tmp_path) == ["a", "b"]
    assert [record["action"] for record in checked(tmp_path) if not record["exchange_id"]] == ["segment"]


def test_what_was_signed_and_is_gone_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, "a", "b", "c")
    last = checked(tmp_path)[-1]
    data = segment(tmp_path, 1).read_bytes()
    signed = Signed(Place(1, len(data)), last["seq"], bytes.fromhex(last["hash"]))
    segment(tmp_path, 1).write_bytes(data[: data.index(b'{"seq":2,') + 5])
    Writer(settings(tmp_path), signed=lambda _: signed).close()
    records = checked(tmp_path)
    assert [record["action"] for record in records if record["exchange_id"] == ""] == ["segment", "segment", "repaired"]
    assert (records[-2]["segment"], json.loads(records[-1]["detail"])["signed_lost"]) == (2, 2)
    assert "2 lines that control had signed" in caplog.text


def test_an_opening_cut_short_at_any_step_is_done_again(tmp_path: Path) -> None:
    for number in range(1, 30):
        journal = tmp_path / str(number)
        written_torn(journal)
        disk = FaultyDisk(fails_at(number))
        try:
            Writer(settings(journal), disk).close()
        except OSError:
            assert disk.fds == {}
            Writer(settings(journal)).close()
        assert ids(journal) == ["a"]
        told = [json.loads(record["detail"]) for record in checked(journal) if record.get("action") == "repaired"]
        kept = [path for path in (journal / "w0").iterdir() if path.name.startswith("torn")]
        assert {each["cut_sha256"] for each in told} == {hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
        assert all(path.suffix != ".new" for path in kept)
        if len(disk.calls) < number:
            return
    raise AssertionError("no opening got through")


def fails_at(number: int) -> Callable[[str, int], Fault | None]:
    return lambda _name, count: no_space() if count == number else None


def written_torn(journal: Path) -> None:
    journal.mkdir()
    written(journal, "a", "b")
    data = segment(journal, 1).read_bytes()
    segment(journal, 1).write_bytes(data[:-20])
