"""Lines come in order, each once, from wherever a reader had got to; a bad one does not hide those after it."""

from pathlib import Path

import pytest

from gateway.journal import layout, read
from gateway.journal.line import MAX_LINE_BYTES, body_of, content_of, genesis, leaf_of, line_of, link
from gateway.journal.read import Place, entries
from gateway.record import Kind, Record

NODE = "a" * 32


def written(journal: Path, sizes: dict[int, int], chain: str = "w0") -> list[bytes]:
    """Segments with that many lines each; all the lines."""
    head, seq, lines = genesis(NODE, chain), 0, list[bytes]()
    for segment, count in sizes.items():
        path = layout.segment_path(journal, chain, segment)
        path.parent.mkdir(exist_ok=True)
        for _ in range(count):
            body = body_of(seq, content_of(Record(Kind.OUTCOME, f"x{seq}", seq)))
            head = link(head, leaf_of(body))
            lines.append(line_of(body, head))
            seq += 1
        path.write_bytes(b"".join(lines[len(lines) - count :]))
    return lines


def test_everything_from_the_start(tmp_path: Path) -> None:
    lines = written(tmp_path, {1: 3, 2: 0, 3: 2})
    found = list(entries(tmp_path, "w0"))
    assert [entry.raw for entry in found] == lines
    assert [(entry.segment, entry.seq, entry.record.exchange_id) for entry in found] == [
        (1, 0, "x0"), (1, 1, "x1"), (1, 2, "x2"), (3, 3, "x3"), (3, 4, "x4"),
    ]  # fmt: skip
    assert found[3].id(NODE) == f"{NODE}/w0/3/3"


def test_from_every_place_to_every_other(tmp_path: Path) -> None:
    written(tmp_path, {1: 3, 2: 2})
    every = list(entries(tmp_path, "w0"))
    places = [read.START, *(entry.after for entry in every)]
    for first in range(len(places)):
        for last in range(first, len(places)):
            found = list(entries(tmp_path, "w0", places[first], places[last]))
            assert [entry.seq for entry in found] == list(range(first, last))


def test_small_reads_change_nothing(tmp_path: Path) -> None:
    lines = written(tmp_path, {1: 5})
    path = layout.segment_path(tmp_path, "w0", 1)
    for size in (1, 2, 63, 64, 65, len(lines[0])):
        vars(read)["_CHUNK_BYTES"], kept = size, vars(read)["_CHUNK_BYTES"]
        try:
            assert [entry.raw for entry in entries(tmp_path, "w0")] == lines, path
        finally:
            vars(read)["_CHUNK_BYTES"] = kept


def test_an_incomplete_last_line_waits(tmp_path: Path) -> None:
    lines = written(tmp_path, {1: 2})
    path = layout.segment_path(tmp_path, "w0", 1)
    path.write_bytes(b"".join(lines)[:-1])
    (only,) = entries(tmp_path, "w0")
    assert only.after == Place(1, len(lines[0]))
    path.write_bytes(b"".join(lines))
    assert [entry.seq for entry in entries(tmp_path, "w0", only.after)] == [1]


def test_a_bad_line_is_given_out_as_one(tmp_path: Path) -> None:
    lines = written(tmp_path, {1: 3})
    layout.segment_path(tmp_path, "w0", 1).write_bytes(lines[0] + b"rubbish\n" + lines[1][:50] + b"\n" + lines[2])
    found = list(entries(tmp_path, "w0"))
    assert [entry.seq for entry in found] == [0, -1, -1, 2]
    assert [bool(entry.error) for entry in found] == [False, True, True, False]


def test_a_line_without_end_is_given_out_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "w0").mkdir()
    layout.segment_path(tmp_path, "w0", 1).write_bytes(b"x" * (3 * MAX_LINE_BYTES) + b"\n")
    found = list(entries(tmp_path, "w0"))
    assert len(found) >= 2
    assert all(entry.error for entry in found)
    assert found[-1].after == Place(1, 3 * MAX_LINE_BYTES + 1)


def test_a_dropped_segment_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path, {1: 2, 2: 2})
    layout.segment_path(tmp_path, "w0", 1).unlink()
    assert [entry.seq for entry in entries(tmp_path, "w0", Place(1, 80))] == [2, 3]


def told(entry: read.Entry) -> tuple[object, ...]:
    return entry.seq, entry.raw, entry.record, entry.after, entry.error


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"\r",
        b"{}",
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1}',
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1}{}',
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"} ',
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"}\r',
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"A" * 64 + b'"}',
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 63 + b'"}',
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 65 + b'"}',
        b'{"seq":1,"kind":"outcome","exchange_id":"\\ud800","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1,"kind":"outcome","exchange_id":"\xff","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1,"kind":"nothing","exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1,"seq":7,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":01,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1.0,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq": 1,"kind":"outcome","exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"kind":"outcome","seq":1,"exchange_id":"x","at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1,"x":' + b"[" * 50_000 + b',"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":' + b"9" * 5000 + b',"kind":"outcome","hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1,"kind":"outcome","exchange_id":"x",\n"at_us":1,"hash":"' + b"a" * 64 + b'"}',
        b'{"seq":1,"kind":"outcome","exchange_id":"x","at_us":1}\n{},"hash":"' + b"a" * 64 + b'"}',
    ],
)
def test_a_piece_says_of_its_lines_what_each_says_alone(tmp_path: Path, line: bytes) -> None:
    lines = written(tmp_path, {1: 3})
    layout.segment_path(tmp_path, "w0", 1).write_bytes(lines[0] + line + b"\n" + lines[1] + lines[2])
    found = list(entries(tmp_path, "w0"))
    alone = [vars(read)["_entry"]("w0", 1, entry.raw, entry.after) for entry in found]
    assert [told(entry) for entry in found] == [told(entry) for entry in alone]
    assert b"".join(entry.raw for entry in found) == lines[0] + line + b"\n" + lines[1] + lines[2]
    assert [bool(entry.error) for entry in (found[0], *found[-2:])] == [False] * 3


def test_lines_come_as_many_at_once_as_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(tmp_path, {1: 5, 2: 2})
    monkeypatch.setattr(read, "_CHUNK_BYTES", 2 * len(lines[0]) + 9)
    found = list(read.pieces(tmp_path, "w0"))
    assert [[entry.seq for entry in piece] for piece in found] == [[0, 1], [2, 3], [4], [5, 6]]
