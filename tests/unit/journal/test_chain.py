"""The end of a chain: what a write leaves behind, whole or cut short at any byte."""

from pathlib import Path

import pytest

from gateway.journal.chain import Chain, NotWritten, Origin, SegmentFile
from gateway.journal.line import genesis
from tests.fakes.disk import Fault, FaultyDisk, no_space
from tests.fakes.journal_writer import NODE, checked, content, ids, segment


class Script:
    """Faults of the next calls, by name; None: none."""

    def __init__(self, **faults: list[Fault | None]) -> None:
        self.faults = faults

    def __call__(self, name: str, _number: int) -> Fault | None:
        left = self.faults.get(name)
        return left.pop(0) if left else None


def a_chain(tmp_path: Path) -> tuple[Chain, FaultyDisk]:
    disk = FaultyDisk()
    (tmp_path / "w0").mkdir()
    lock = disk.create(tmp_path / "w0" / "lock")
    file = SegmentFile(disk.create(segment(tmp_path, 1)), 1)
    chain = Chain(disk, tmp_path, Origin(NODE, "eu", "w0"), lock, file, 0, genesis(NODE, "w0"))
    chain.keep_bytes = 1_000_000
    return chain, disk


def test_the_first_line_of_a_segment_says_where_it_stands(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    chain.write([])
    chain.write([content("a"), content("b")])
    head = chain.head
    chain.roll(SegmentFile(disk.create(segment(tmp_path, 2)), 2), "size")
    chain.write([content("c")])
    records = checked(tmp_path)
    assert [record.get("exchange_id", "") for record in records] == ["", "a", "b", "", "c"]
    assert (records[3]["prev"], records[3]["segment"], records[3]["region"]) == (head.hex(), 2, "eu")
    assert '"opened_by": "size"' in records[3]["detail"]
    assert (chain.seq, chain.path) == (5, segment(tmp_path, 2))
    assert chain.written_bytes == sum(segment(tmp_path, number).stat().st_size for number in (1, 2))


def test_an_empty_write_into_a_begun_segment_writes_nothing(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    chain.write([])
    disk.calls.clear()
    chain.write([])
    assert (disk.calls, len(checked(tmp_path))) == ([], 1)


def test_a_short_write_goes_on_where_it_stopped(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    disk.fault = Script(pwrite=[5, 1, 300, None])
    chain.write([content("a"), content("b")])
    assert ids(tmp_path) == ["a", "b"]


def test_a_write_that_takes_nothing_fails_instead_of_going_round_for_ever(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    disk.fault = Script(pwrite=[0])
    with pytest.raises(NotWritten, match="took no byte"):
        chain.write([content("a")])


def test_cut_short_at_any_byte_complete_lines_stand_and_the_rest_is_cut_off(tmp_path: Path) -> None:
    whole, _ = a_chain(tmp_path)
    whole.write([content("a"), content("b")])
    lines = segment(tmp_path, 1).read_bytes().splitlines(keepends=True)
    whole.close()
    for taken in range(sum(map(len, lines))):
        directory = tmp_path / f"{taken}"
        directory.mkdir()
        chain, disk = a_chain(directory)
        disk.fault = Script(pwrite=[taken, no_space()] if taken else [no_space()])
        with pytest.raises(NotWritten) as failed:
            chain.write([content("a"), content("b")])
        stand = sum(sum(map(len, lines[: count + 1])) <= taken for count in range(3))
        assert failed.value.lines == max(0, stand - 1)
        assert failed.value.error.strerror == "No space left on device"
        assert (len(checked(directory)), chain.torn) == (stand, False)
        chain.write([content("b")])
        assert ids(directory)[-1] == "b"
        chain.close()


def test_a_write_that_fails_may_have_left_more_than_it_told(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    chain.write([content("a")])
    size = chain.file.size

    def fault(name: str, _number: int) -> Fault | None:
        if name != "pwrite":
            return None
        with segment(tmp_path, 1).open("ab") as file:
            file.write(b"x" * 1_000)
        return no_space()

    disk.fault = fault
    with pytest.raises(NotWritten):
        chain.write([content("b")])
    assert segment(tmp_path, 1).stat().st_size == size


def test_what_cannot_be_cut_off_now_is_cut_off_before_the_next_line(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    chain.write([content("a")])
    disk.fault = Script(pwrite=[200, no_space()], truncate=[no_space(), no_space(), no_space()])
    with pytest.raises(NotWritten):
        chain.write([content("long" * 100)])
    assert chain.torn
    with pytest.raises(NotWritten) as failed:
        chain.write([content("b")])
    assert (failed.value.lines, chain.torn) == (0, True)
    chain.write([content("b")])
    assert (ids(tmp_path), chain.torn) == (["a", "b"], False)


def test_what_is_not_synced_is_kept_and_read_back_beyond_the_bound(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    chain.write([])
    file = chain.file
    file.synced_to(file.size)
    begin = file.size
    chain.keep_bytes = 0
    for text in ("a", "b", "c"):
        chain.write([content(text)])
    chain.keep_bytes = 1_000_000
    chain.write([content("d")])
    pieces = list(file.unsynced(disk, file.size))
    assert len(pieces) == 3  # kept: the first, as nothing waited yet; read back: two; kept again: the last
    assert b"".join(data for _, data in pieces) == segment(tmp_path, 1).read_bytes()[begin:]
    assert [offset for offset, _ in pieces] == [begin, *[begin + sum(len(d) for _, d in pieces[:n]) for n in (1, 2)]]
    mark = pieces[2][0]
    assert list(file.unsynced(disk, mark)) == pieces[:2]
    file.synced_to(mark)
    assert list(file.unsynced(disk, file.size)) == pieces[2:]
    file.synced_to(file.size)
    assert list(file.unsynced(disk, file.size)) == []
    chain.keep_bytes = -1
    chain.write([content("e")])
    assert [data for _, data in file.unsynced(disk, file.size)] == [
        segment(tmp_path, 1).read_bytes()[-len(pieces[2][1]) :]
    ]


def test_closing_gives_back_the_segment_and_the_lock(tmp_path: Path) -> None:
    chain, disk = a_chain(tmp_path)
    chain.close()
    assert disk.fds == {}
