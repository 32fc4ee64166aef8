"""Opening a chain that is whole, torn, or missing what was signed; and openings that are themselves cut short."""

import contextlib
import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.journal.end import ForeignChain, Signed
from gateway.journal.read import Place
from tests.fakes.disk import Fault, FaultyDisk, PowerDisk, no_space
from tests.fakes.journal_story import Killed
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
        disk = FaultyDisk(fails_at(number, no_space()))
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


def test_a_spoilt_first_line_before_the_signed_place_is_left_to_verify(tmp_path: Path) -> None:
    written(tmp_path, "a", "b")
    last = checked(tmp_path)[-1]
    data = bytearray(segment(tmp_path, 1).read_bytes())
    data[20] ^= 1
    segment(tmp_path, 1).write_bytes(data)
    signed = Signed(Place(1, len(data)), last["seq"], bytes.fromhex(last["hash"]))
    writer = Writer(settings(tmp_path), signed=lambda _: signed)
    writer.journal.append(content("c"))
    writer.close()
    after = segment(tmp_path, 1).read_bytes()
    assert after.startswith(data)
    assert json.loads(after[len(data) :])["exchange_id"] == "c"


def test_a_segment_of_which_nothing_is_left_is_begun_again(tmp_path: Path) -> None:
    written(tmp_path, "a")
    data = segment(tmp_path, 1).read_bytes()
    segment(tmp_path, 1).rename(segment(tmp_path, 7))
    segment(tmp_path, 7).write_bytes(data[:30])
    Writer(settings(tmp_path)).close()
    assert [record["action"] for record in checked(tmp_path)] == ["segment", "repaired"]
    assert segment(tmp_path, 7).exists()
    assert (tmp_path / "w0" / "torn-7-0").read_bytes() == data[:30]


def test_an_empty_segment_made_ahead_is_gone_on_in(tmp_path: Path) -> None:
    written(tmp_path, "a")
    segment(tmp_path, 2).touch()
    written(tmp_path, "b")
    assert ids(tmp_path) == ["a", "b"]
    assert checked(tmp_path)[2]["segment"] == 2


def test_two_torn_segments_are_both_set_aside(tmp_path: Path) -> None:
    written(tmp_path, "a", "b")
    segment(tmp_path, 2).touch()
    written(tmp_path, "c")
    one, two = (segment(tmp_path, number).read_bytes() for number in (1, 2))
    segment(tmp_path, 1).write_bytes(one[:-5])
    written(tmp_path, "d")
    assert ids(tmp_path) == ["a", "d"]
    assert [record["subject"] for record in checked(tmp_path) if record.get("action") == "repaired"] == ["w0/1", "w0/2"]
    assert (tmp_path / "w0" / "torn-2-0").read_bytes() == two
    written(tmp_path, "e")
    assert ids(tmp_path) == ["a", "d", "e"]


def test_the_same_place_torn_twice_keeps_both(tmp_path: Path) -> None:
    written(tmp_path, "a")
    data = segment(tmp_path, 1).read_bytes()
    for torn in (b"first", b"second"):
        segment(tmp_path, 1).write_bytes(data + torn)
        Writer(settings(tmp_path)).close()
    assert (tmp_path / "w0" / f"torn-1-{len(data)}").read_bytes() == b"first"
    assert (tmp_path / "w0" / f"torn-1-{len(data)}.1").read_bytes() == b"second"


def test_a_segment_is_as_old_as_its_first_line_says(tmp_path: Path) -> None:
    written(tmp_path, "a")
    writer = Writer(settings(tmp_path))
    age_ns = time.monotonic_ns() - writer.journal._chain.file.opened_ns
    assert abs(age_ns - (time.time_ns() - checked(tmp_path)[0]["at_us"] * 1_000)) < 1_000_000_000
    assert writer.journal._chain.file.header_bytes == segment(tmp_path, 1).read_bytes().index(b"\n") + 1
    writer.close()


def test_a_chain_that_was_copied_from_another_node_is_refused_and_let_go(tmp_path: Path) -> None:
    written(tmp_path, "a")
    disk = FaultyDisk()
    with pytest.raises(ForeignChain, match="give this node a state_dir of its own"):
        Writer(settings(tmp_path, node="f" * 32), disk)
    assert disk.fds == {}
    assert ids(tmp_path) == ["a"]


@pytest.mark.parametrize("seed", range(4))
def test_power_cut_at_any_step_of_a_repair_loses_neither_evidence_nor_record(tmp_path: Path, seed: int) -> None:
    for number in range(1, 40):
        journal = tmp_path / str(number)
        written_torn(journal)
        cut = segment(journal, 1).read_bytes().rpartition(b"\n")[2]
        disk = PowerDisk(journal, fails_at(number, Killed()))
        for path in (journal / "w0").iterdir():
            disk.keep(path)
        with contextlib.suppress(Killed):
            Writer(settings(journal), disk)
        disk.lose_power(random.Random(seed))
        Writer(settings(journal)).close()
        told = [json.loads(record["detail"]) for record in checked(journal) if record.get("action") == "repaired"]
        kept = {path.read_bytes() for path in (journal / "w0").glob("torn-*")}
        assert cut in kept
        assert {hashlib.sha256(data).hexdigest() for data in kept} <= {each["cut_sha256"] for each in told}
        if len(disk.calls) < number:
            return
    raise AssertionError("no opening got through")


@pytest.mark.parametrize("seed", range(4))
def test_what_is_cut_stays_cut(tmp_path: Path, seed: int) -> None:
    journal = tmp_path / "journal"
    (journal / "w0").mkdir(parents=True)
    for number in (1, 2, 3):
        segment(journal, number).touch()
        written(journal, f"{number}")
    first = checked(journal)[0]
    data = segment(journal, 1).read_bytes()
    signed = Signed(Place(1, data.index(b"\n") + 1), 0, bytes.fromhex(first["hash"]))
    segment(journal, 1).write_bytes(data[:-5])
    disk = PowerDisk(journal)
    for path in (journal / "w0").iterdir():
        disk.keep(path)
    Writer(settings(journal), disk, lambda _: signed)
    disk.lose_power(random.Random(seed))
    Writer(settings(journal)).close()
    repaired = [record["subject"] for record in checked(journal) if record.get("action") == "repaired"]
    assert repaired == ["w0/1", "w0/2", "w0/3"]


def fails_at(number: int, fault: Fault) -> Callable[[str, int], Fault | None]:
    return lambda _name, count: fault if count == number else None


def written_torn(journal: Path) -> None:
    journal.mkdir()
    written(journal, "a", "b")
    data = segment(journal, 1).read_bytes()
    segment(journal, 1).write_bytes(data[:-20])
