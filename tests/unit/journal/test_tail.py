"""Whole lines that follow from what was signed are given out once they are on the disk; nothing else ever is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal import layout
from gateway.journal import tail as module
from gateway.journal.line import MAX_LINE_BYTES, genesis
from gateway.journal.read import Place
from gateway.journal.tail import Batch, Reached, Tail
from tests.fakes.chain_files import NODE, ChainFiles

ALL = 1 << 30


@pytest.fixture
def chain(tmp_path: Path) -> ChainFiles:
    return ChainFiles(tmp_path)


@pytest.fixture
def tail(tmp_path: Path) -> Iterator[Tail]:
    made = Tail(tmp_path, NODE, "w0", None)
    yield made
    made.close()


def taken(tail: Tail, budget_bytes: int = ALL, floor: int = 0) -> Batch:
    """Read and sign."""
    batch = tail.read(budget_bytes, floor)
    tail.advance(batch)
    return batch


# --- a chain as it should be ----------------------------------------------------------------------------------------


def test_a_chain_that_is_not_there_yet(tmp_path: Path, tail: Tail) -> None:
    assert taken(tail) == ([], Reached(0, 0, -1, genesis(NODE, "w0")), False)
    (tmp_path / "w0").mkdir()
    assert taken(tail).leaves == []
    assert tail.broken == ""


def test_new_lines_come_once(chain: ChainFiles, tail: Tail) -> None:
    for count in (3, 0, 1, 5):
        before = len(chain.leaves)
        chain.append(count)
        assert taken(tail).leaves == chain.leaves[before:]
    size = chain.path.stat().st_size
    assert tail.at == Reached(1, size, 8, chain.head)
    assert tail.at.place == Place(1, size)
    assert tail.at.end_of("w0").head == chain.head.hex()


def test_what_was_not_signed_comes_again(chain: ChainFiles, tail: Tail) -> None:
    chain.append(2)
    assert tail.read(ALL).leaves == chain.leaves
    chain.append(1)
    assert taken(tail).leaves == chain.leaves


def test_a_new_reader_goes_on_from_a_signed_end(tmp_path: Path, chain: ChainFiles, tail: Tail) -> None:
    chain.append(3)
    end = taken(tail).end.end_of("w0")
    chain.roll()
    chain.append(2)
    again = Tail(tmp_path, NODE, "w0", end)
    assert again.read(ALL).leaves == chain.leaves[3:]
    again.close()


def test_it_goes_through_segments_in_order(chain: ChainFiles, tail: Tail) -> None:
    chain.append(2)
    chain.roll()
    chain.append(1)
    chain.roll(prepared=True)
    batch = taken(tail)
    assert batch.leaves == chain.leaves
    assert batch.end.segment == 2  # an empty one is not entered
    chain.segment = 2
    chain.append(1)  # and the one before it may still grow
    chain.segment = 3
    chain.append(1)
    chain.roll(prepared=True)
    chain.roll()
    chain.append(1)
    assert taken(tail).leaves == chain.leaves[3:]
    assert tail.at.segment == 5
    assert tail.broken == ""


def test_lines_that_come_while_a_segment_is_read_are_not_passed_over(
    chain: ChainFiles, tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.append(2)
    real = os.pread

    def read(fd: int, count: int, offset: int) -> bytes:
        chunk = real(fd, count, offset)
        if not chunk and chain.segment == 1:  # the end was seen; now the worker writes on, and begins the next
            chain.append(1)
            chain.roll()
            chain.append(1)
        return chunk

    monkeypatch.setattr(os, "pread", read)
    assert taken(tail).leaves == chain.leaves[:2]
    assert taken(tail).leaves == chain.leaves[2:]
    assert tail.broken == ""


def test_an_incomplete_line_waits_for_its_end(chain: ChainFiles, tail: Tail) -> None:
    chain.append(1)
    taken(tail)
    whole = chain.path.read_bytes()
    (line,) = chain.append(1)
    for cut in range(len(line)):
        chain.path.write_bytes(whole + line[:cut])
        assert taken(tail).leaves == []
        assert tail.broken == ""
    chain.path.write_bytes(whole + line)
    assert taken(tail).leaves == chain.leaves[1:]


def test_a_segment_without_a_whole_line_is_not_reached(chain: ChainFiles, tail: Tail) -> None:
    chain.append(1)
    end = taken(tail).end
    chain.roll()
    (line,) = chain.append(1)
    for cut in range(len(line)):
        chain.path.write_bytes(line[:cut])
        assert taken(tail) == ([], end, False)
        assert tail.broken == ""
    chain.path.write_bytes(b"x" + line[1:])
    assert taken(tail) == ([], end, False)
    assert tail.broken == "segment 2, byte 0, line 1: it does not follow from the line before it"
    chain.path.write_bytes(line)
    assert taken(tail) == (chain.leaves[1:], Reached(2, len(line), 1, chain.head), False)


def test_a_failed_write_may_be_taken_back(chain: ChainFiles, tail: Tail) -> None:
    chain.append(1)
    whole = chain.path.read_bytes()
    chain.path.write_bytes(whole + b'{"seq":1,"half')
    assert taken(tail).leaves == chain.leaves
    os.truncate(chain.path, len(whole))
    assert taken(tail).leaves == []
    assert tail.broken == ""


@pytest.mark.parametrize("chunk", [1, 7, 64, 300])
def test_small_reads_change_nothing(chain: ChainFiles, tail: Tail, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    chain.append(4)
    assert taken(tail).leaves == chain.leaves


def test_it_breathes_between_what_it_reads_at_once(
    tmp_path: Path, chain: ChainFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.append(4)
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * len(chain.lines[1]))
    breaths: list[int] = []
    tail = Tail(tmp_path, NODE, "w0", None, lambda: breaths.append(1))
    assert taken(tail).leaves == chain.leaves
    assert len(breaths) == -(-chain.path.stat().st_size // module.CHUNK_BYTES)
    tail.close()


def test_one_turn_is_short_and_the_next_goes_on(chain: ChainFiles, tail: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 64)
    chain.append(5)
    chain.roll()
    chain.append(5)
    found, turns = list[bytes](), 0
    while True:
        batch = taken(tail, budget_bytes=1)
        found += batch.leaves
        turns += 1
        if not batch.more:
            break
        assert len(batch.leaves) == 1
    assert (found, turns) == (chain.leaves, 11)


def test_segments_that_retention_drops(tmp_path: Path, chain: ChainFiles, tail: Tail) -> None:
    chain.append(2)
    taken(tail)
    chain.path.unlink()  # all that was there, signed and below the floor
    assert taken(tail, floor=2).leaves == []
    assert tail.broken == ""
    chain.roll()
    chain.append(2)
    assert taken(tail, floor=2).leaves == chain.leaves[2:]
    layout.segment_path(tmp_path, "w0", 2).unlink()
    chain.roll()
    chain.append(1)
    assert taken(tail, floor=3).leaves == chain.leaves[4:]


# --- a chain as it should not be ------------------------------------------------------------------------------------


def test_a_changed_byte_stops_the_chain_there_until_it_is_right_again(chain: ChainFiles, tail: Tail) -> None:
    lines = chain.append(3)
    good = chain.path.read_bytes()
    at = len(lines[0])
    for byte in range(at, at + len(lines[1]) - 1, 9):
        chain.path.write_bytes(good[:byte] + bytes([good[byte] ^ 1]) + good[byte + 1 :])
        assert tail.read(ALL).leaves == chain.leaves[:1]
        assert tail.broken == f"segment 1, byte {at}, line 1: it does not follow from the line before it"
    assert taken(tail).leaves == chain.leaves[:1]
    assert taken(tail).leaves == []
    assert tail.broken
    chain.path.write_bytes(good)
    assert taken(tail).leaves == chain.leaves[1:]
    assert tail.broken == ""


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [lines[0], b"\n", *lines[1:]],
        lambda lines: [lines[0], lines[1][:-1], *lines[2:]],
        lambda lines: [lines[0], b"\0" * 200 + b"\n"],
    ],
)
def test_lines_missing_moved_or_added(chain: ChainFiles, tail: Tail, rewrite: "object") -> None:
    assert callable(rewrite)
    lines = chain.append(3)
    chain.path.write_bytes(b"".join(rewrite(lines)))
    assert len(taken(tail).leaves) <= 1
    assert "does not follow" in tail.broken


def test_a_line_that_chains_under_a_wrong_number(chain: ChainFiles, tail: Tail) -> None:
    chain.append(2)
    chain.misnumber()
    assert taken(tail).leaves == chain.leaves[:2]
    assert "line 2: it does not follow" in tail.broken


def test_another_chains_lines(tmp_path: Path, tail: Tail) -> None:
    ChainFiles(tmp_path, "w1").append(1)
    (tmp_path / "w1").rename(tmp_path / "w0")
    assert taken(tail).leaves == []
    assert "line 0: it does not follow" in tail.broken


def test_a_line_without_an_end(chain: ChainFiles, tail: Tail) -> None:
    chain.append(1)
    with chain.path.open("ab") as file:
        file.write(b"x" * (2 * MAX_LINE_BYTES))
    assert taken(tail).leaves == chain.leaves
    assert "longer than" in tail.broken


def test_a_file_cut_below_what_was_signed(chain: ChainFiles, tail: Tail) -> None:
    first, _ = chain.append(2)
    size = taken(tail).end.offset
    os.truncate(chain.path, len(first))
    assert taken(tail).leaves == []
    assert tail.broken == f"segment 1 is cut to {len(first)} bytes, {size} were signed"


def test_a_signed_segment_that_is_gone(tmp_path: Path, chain: ChainFiles, tail: Tail) -> None:
    chain.append(1)
    taken(tail)
    chain.path.unlink()
    for _ in range(2):
        assert taken(tail).leaves == []
        assert tail.broken == "segment 1 is gone"
        chain.segment = 2
        chain.append(1)
    layout.segment_path(tmp_path, "w0", 2).unlink()
    (tmp_path / "w0").rmdir()
    assert taken(tail).leaves == []
    assert tail.broken == "segment 1 is gone"


def test_an_unsigned_segment_that_is_gone(tmp_path: Path, chain: ChainFiles, tail: Tail) -> None:
    chain.append(1)
    taken(tail)
    for _ in range(2):
        chain.roll()
        chain.append(1)
    layout.segment_path(tmp_path, "w0", 2).unlink()
    assert taken(tail).leaves == []
    assert "segment 3, byte 0, line 1: it does not follow" in tail.broken


def test_a_segment_that_ends_within_a_line_and_is_not_the_last(chain: ChainFiles, tail: Tail) -> None:
    chain.append(2)
    os.truncate(chain.path, chain.path.stat().st_size - 5)
    chain.roll()
    chain.append(1)
    assert taken(tail).leaves == chain.leaves[:1]
    assert "ends with" in tail.broken


def test_a_file_put_in_the_place_of_another_is_looked_at(chain: ChainFiles, tail: Tail, tmp_path: Path) -> None:
    chain.append(2)
    taken(tail)
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "other").rename(chain.path)
    assert taken(tail).leaves == []
    assert "is cut to 0 bytes" in tail.broken


# --- the disk -------------------------------------------------------------------------------------------------------


class Disk:
    """Notes what is synced, and fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.forgotten: list[str] = []
        self.fail = ""
        for name in ("fdatasync", "fsync"):
            monkeypatch.setattr(os, name, self._syncing(getattr(os, name)))
        monkeypatch.setattr(os, "posix_fadvise", lambda fd, *_: self.forgotten.append(name_of(fd)))

    def _syncing(self, real: "object") -> "object":
        def sync(fd: int) -> None:
            assert callable(real)
            if self.fail and name_of(fd) == self.fail:
                raise OSError(5, "Input/output error")
            real(fd)
            self.synced.append(name_of(fd))

        return sync


def name_of(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").readlink().name


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_every_segment_is_synced_before_its_lines_count(chain: ChainFiles, tail: Tail, disk: Disk) -> None:
    journal = chain.path.parents[1].name
    chain.append(1)
    chain.roll()
    chain.append(1)
    tail.read(ALL)
    assert disk.synced == ["0000000001.jsonl", "w0", journal, "0000000002.jsonl", "w0", journal]
    disk.synced.clear()
    tail.advance(tail.read(ALL))
    assert disk.synced == ["0000000001.jsonl", "0000000002.jsonl"]  # the names are there already
    disk.synced.clear()
    taken(tail)
    assert disk.synced == []  # nothing is new
    chain.append(1)
    taken(tail)
    assert disk.synced == ["0000000002.jsonl"]


def test_good_lines_before_a_bad_one_are_synced_as_well(chain: ChainFiles, tail: Tail, disk: Disk) -> None:
    chain.append(1)
    with chain.path.open("ab") as file:
        file.write(b"rubbish\n")
    assert taken(tail).leaves == chain.leaves
    assert disk.synced[0] == "0000000001.jsonl"


@pytest.mark.parametrize("failing", ["0000000001.jsonl", "0000000002.jsonl", "w0"])
def test_what_cannot_be_synced_is_not_given_out_and_then_read_from_the_disk(
    chain: ChainFiles, tail: Tail, disk: Disk, failing: str
) -> None:
    chain.append(1)
    chain.roll()
    chain.append(1)
    disk.fail = failing
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            tail.read(ALL)
    disk.fail = ""
    disk.forgotten.clear()
    assert taken(tail).leaves == chain.leaves
    assert disk.forgotten == ["0000000001.jsonl", "0000000002.jsonl"]
    chain.append(1)
    disk.forgotten.clear()
    taken(tail)
    assert disk.forgotten == []


def test_one_file_is_open_between_calls_and_none_after(chain: ChainFiles, tail: Tail) -> None:
    def open_segments() -> list[str]:
        links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [link.name for link in links if link.parent == chain.path.parent]

    for _ in range(3):
        chain.append(1)
        chain.roll()
    taken(tail)
    assert len(open_segments()) == 1
    tail.close()
    assert open_segments() == []
    chain.append(1)
    assert taken(tail).leaves == chain.leaves[3:]
