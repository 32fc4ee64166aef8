"""What one reader has read is the next one's, as far as it asks for the same; and never more than it asks for."""

import threading
import time

import pytest

from gateway.control.readers import lately as module
from gateway.control.readers.lately import Lately
from gateway.journal.read import Entry, Place
from gateway.record import Kind, Record
from tests.fakes.patience import PATIENCE_S

NOTHING = Record(Kind.OUTCOME, "x", 1)


def entries(count: int, size: int = 10) -> list[Entry]:
    return [Entry("w0", 0, n, b"x" * size, NOTHING, Place(0, (n + 1) * size)) for n in range(count)]


class Disk:
    """Lines that are decoded each time they are asked for."""

    def __init__(self, lately: Lately, count: int = 5) -> None:
        self.lately = lately
        self.lines = entries(count)
        self.decoded = 0

    def read(self, start: int = 0, end: int = 5, chain: str = "w0") -> list[Entry]:
        def decode() -> list[Entry]:
            self.decoded += 1
            return self.lines[start:end]

        return self.lately.read(chain, Place(0, start * 10), Place(0, end * 10), decode)


def test_the_same_lines_are_decoded_once() -> None:
    disk = Disk(Lately())
    assert disk.read() is not disk.lines
    assert disk.read() == disk.read() == disk.lines
    assert disk.decoded == 1


def test_a_reader_that_is_elsewhere_reads_for_itself() -> None:
    disk = Disk(Lately())
    disk.read(1, 3)
    assert disk.read() == disk.lines
    assert disk.read(3) == disk.lines[3:]
    assert disk.read(2, chain="w1") == disk.lines[2:]
    assert disk.decoded == 3


def test_a_piece_is_joined_in_its_middle_and_only_where_a_line_begins() -> None:
    disk = Disk(Lately())
    disk.read()
    assert [disk.read(start, 4) for start in range(5)] == [disk.lines[start:4] for start in range(5)]
    assert disk.decoded == 2, "nothing lies before the end that was asked for last"
    within = disk.lately.read("w0", Place(0, 15), Place(0, 50), list)
    assert within == []


def test_nobody_gets_lines_beyond_the_end_that_it_knows() -> None:
    disk = Disk(Lately())
    disk.read()
    assert disk.read(0, 2) == disk.lines[:2]
    assert disk.read(0, 5) == disk.lines
    assert disk.decoded == 1
    more = disk.read(0, 0)
    assert (more, disk.decoded) == ([], 2)


def test_what_is_kept_is_bounded_over_all_chains_and_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 50)
    disk = Disk(Lately())
    disk.read(0, 3)
    disk.read(3, 5)
    disk.read(0, 3)
    assert disk.decoded == 2
    disk.read(0, 1, chain="w1")
    disk.read(3, 5)
    assert disk.decoded == 3
    disk.read(0, 3)
    assert disk.decoded == 4, "the oldest has made room"
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1)
    disk.read(0, 5, chain="w2")
    disk.read(0, 5, chain="w2")
    assert disk.decoded == 5


def test_of_a_chain_only_so_many_pieces_are_kept_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIECES", 2)
    disk = Disk(Lately())
    disk.read(0, 1, chain="w1")
    for start in range(3):
        disk.read(start, start + 1)
    assert disk.decoded == 4
    disk.read(1, 2)
    disk.read(2, 3)
    disk.read(0, 1, chain="w1")
    assert disk.decoded == 4
    disk.read(0, 1)
    assert disk.decoded == 5, "the chain's oldest has made room, and no other chain's"


def test_of_two_pieces_that_have_a_line_the_newest_is_given() -> None:
    disk = Disk(Lately())
    disk.read(1, 3)
    disk.read(0, 5)
    assert disk.read(1, 5) == disk.lines[1:5]
    assert disk.decoded == 2


def test_who_comes_while_lines_are_read_waits_for_them() -> None:
    lately, begun, go_on = Lately(), threading.Event(), threading.Event()
    found: list[list[Entry]] = []
    decoded: list[list[Entry]] = []

    def slow() -> list[Entry]:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        decoded.append(entries(3))
        return decoded[-1]

    def ask() -> None:
        found.append(lately.read("w0", Place(0, 0), Place(0, 30), slow))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.wait(PATIENCE_S)
    time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == [entries(3)] * 2
    assert len(decoded) == 1
