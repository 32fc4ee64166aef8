"""The bytes of a line are frozen: outsiders check them with programs of their own."""

import hashlib

import msgspec
import pytest

from gateway.journal.line import (
    Malformed,
    body_of,
    compose,
    content_of,
    genesis,
    leaf_of,
    line_of,
    link,
    parse,
    record_of,
    seq_of,
)
from gateway.record import Kind, Personal, Record

RECORD = Record(Kind.OUTCOME, "x1", 1_800_000_000_000_000, org="acme", detail='a "quoted" word\nand a line')


def a_line(seq: int = 7) -> bytes:
    body = body_of(seq, content_of(RECORD))
    return line_of(body, link(genesis("0" * 32, "w0"), leaf_of(body)))


def test_one_line_as_it_is_written() -> None:
    body = (
        b'{"seq":7,"kind":"outcome","exchange_id":"x1","at_us":1800000000000000,"org":"acme",'
        b'"detail":"a \\"quoted\\" word\\nand a line"'
    )
    first = hashlib.sha256(b"gateway journal 1\n" + b"0" * 32 + b"\nw0\n").digest()
    head = hashlib.sha256(first + hashlib.sha256(body).digest()).hexdigest()
    assert a_line() == body + b',"hash":"' + head.encode() + b'"}\n'


def test_a_line_is_one_json_object_on_one_line() -> None:
    assert a_line().count(b"\n") == 1
    assert msgspec.json.decode(a_line())["detail"] == RECORD.detail


def test_a_line_is_read_as_it_was_written() -> None:
    line = parse(a_line())
    assert (seq_of(line.body), record_of(line.body)) == (7, RECORD)
    assert line.hash == link(genesis("0" * 32, "w0"), leaf_of(line.body))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_many_lines_at_once_are_as_they_are_one_by_one(count: int) -> None:
    contents = [content_of(Record(Kind.OUTCOME, f"x{number}", number)) for number in range(count)]
    head, expected = genesis("0" * 32, "w0"), list[bytes]()
    for seq, content in enumerate(contents, 9):
        body = body_of(seq, content)
        head = link(head, leaf_of(body))
        expected.append(line_of(body, head))
    assert compose(contents, 9, genesis("0" * 32, "w0")) == (expected, head)


def test_no_two_chains_begin_alike() -> None:
    assert len({genesis(node, chain) for node in ("0" * 32, "1" * 32) for chain in ("w0", "w1", "control")}) == 6


def test_a_personal_part_is_never_written_as_it_is() -> None:
    with pytest.raises(ValueError, match="sealed"):
        content_of(Record(Kind.OUTCOME, "x", 1, personal=Personal("ann")))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        a_line()[:-1],
        a_line()[1:],
        a_line().replace(b'"hash"', b'"hush"'),
        a_line()[:-67] + b"Z" * 64 + b'"}\n',
        a_line()[:-67] + a_line()[-67:-3].upper() + b'"}\n',
        a_line()[:-5] + b"  " + b'"}\n',
    ],
)
def test_what_is_no_line(line: bytes) -> None:
    with pytest.raises(Malformed):
        parse(line)


@pytest.mark.parametrize("digits", [b"", b"x", b"-1", b"01", b"1 ", b"1" + b"0" * 18, b"9" * 5000])
def test_what_is_no_number(digits: bytes) -> None:
    body = b'{"seq":%b,"a":1' % digits
    with pytest.raises(Malformed, match="its number is no number"):
        seq_of(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"seq":1,"kind":"other"',
        b'{"seq":1,"kind":"outcome"',
        b'{"seq":1,',
        b'{"a":"\xff"',
        b'{"seq":1,"kind":"outcome","x":' + b"[" * 50_000,
    ],
)
def test_what_is_no_record(body: bytes) -> None:
    with pytest.raises(Malformed):
        record_of(body)
