"""What callers of the journal are told, and when; on a loop and a sync thread that are turned by hand."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.journal import Journal
from gateway.journal.recover import NoFreeChain
from gateway.record import Kind
from tests.fakes.disk import Fault, FaultyDisk, broken, no_space
from tests.fakes.journal_writer import FakeSigner, Writer, checked, content, ids, segment, settings


def full(name: str, _number: int) -> Fault | None:
    return no_space() if name == "pwrite" else None


def dead(name: str, _number: int) -> Fault | None:
    return broken() if name == "sync" else None


def well(_name: str, _number: int) -> Fault | None:
    return None


def modes(tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    found = [record for record in checked(tmp_path) if record["kind"] == "mode"]
    return [(record["action"], json.loads(record["detail"])) for record in found]


# --- a turn ---------------------------------------------------------------------------------------------------------


def test_one_write_a_turn_in_the_order_handed_over(tmp_path: Path) -> None:
    disk = FaultyDisk()
    writer = Writer(settings(tmp_path), disk)
    disk.calls.clear()
    writer.journal.append(content("a"))
    written = writer.journal.commit(content("b", Kind.DECISION), synced=False)
    writer.journal.append(content("c"))
    assert (disk.calls, written.done()) == ([], False)
    writer.loop.turn()
    assert (disk.calls, written.result()) == (["pwrite"], True)
    assert ids(tmp_path) == ["a", "b", "c"]
    writer.close()


def test_a_synced_decision_is_told_when_it_is_on_the_disk(tmp_path: Path) -> None:
    disk = FaultyDisk()
    writer = Writer(settings(tmp_path), disk)
    synced = writer.journal.commit(content("a"), synced=True)
    writer.loop.turn()
    assert not synced.done()
    writer.sync()
    assert synced.result() is True
    writer.close()


# --- the disk is full -----------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_decisions_and_keeps_the_rest(tmp_path: Path) -> None:
    disk = FaultyDisk()
    writer = Writer(settings(tmp_path), disk)
    disk.fault = full
    writer.journal.append(content("a"))
    decision = writer.journal.commit(content("b", Kind.DECISION), synced=False)
    writer.loop.turn()
    assert (decision.result(), writer.journal.failing, writer.journal.lost) == (False, True, 0)
    assert writer.journal.commit(content("c", Kind.DECISION), synced=True).result() is False
    writer.journal.append(content("d"))
    disk.fault = well
    writer.loop.advance(0.2)
    assert not writer.journal.failing
    writer.journal.append(content("e"))
    writer.loop.turn()
    assert ids(tmp_path) == ["a", "d", "e"]
    (entered, entered_detail), (left, left_detail) = modes(tmp_path)
    assert (entered, entered_detail, left) == ("entered", {"errno": "ENOSPC"}, "left")
    assert (left_detail["lost"], left_detail["lost_by_kind"], left_detail["errno"]) == (0, {}, "ENOSPC")
    writer.close()


def test_what_is_acted_on_unrecorded_is_told(tmp_path: Path) -> None:
    disk = FaultyDisk()
    writer = Writer(settings(tmp_path), disk)
    disk.fault = full
    decision = writer.journal.commit(content("b", Kind.DECISION), synced=False)
    writer.loop.turn()
    assert decision.result() is False
    writer.journal.unrecorded()
    disk.fault = well
    writer.loop.advance(0.2)
    assert modes(tmp_path)[1][1]["lost_by_kind"] == {"decision": 1}
    assert writer.journal.lost == 1
    writer.close()


# --- the disk loses what it said it had taken -----------------------------------------------------------------------


def test_a_failed_sync_refuses_until_the_same_bytes_are_on_the_disk(tmp_path: Path) -> None:
    disk = FaultyDisk()
    writer = Writer(settings(tmp_path), disk)
    writer.sync()
    synced = writer.journal.commit(content("a"), synced=True)
    writer.loop.turn()
    disk.fault = dead
    writer.sync()
    assert (synced.result(), writer.journal.failing) == (False, True)
    writer.journal.append(content("b"))
    disk.fault = well
    data = segment(tmp_path, 1).read_bytes()
    with segment(tmp_path, 1).open("r+b") as file:  # the kernel forgot the pages that it could not write
        file.seek(data.index(b"\n") + 1)
        file.write(bytes(len(data) - file.tell()))
    writer.sync()
    assert not writer.journal.failing
    assert ids(tmp_path) == ["a", "b"]
    writer.close()


def test_the_lock_is_held_and_the_next_name_is_taken(tmp_path: Path) -> None:
    given = settings(tmp_path)
    first = Journal.open(given, ["w0", "w1"], FakeSigner)
    second = Journal.open(given, ["w0", "w1"], FakeSigner)
    assert (first.chain, second.chain) == ("w0", "w1")
    with pytest.raises(NoFreeChain, match="w0 and w1"):
        Journal.open(given, ["w0", "w1"], FakeSigner)
    asyncio.run(first.close())
    third = Journal.open(given, ["w0"], FakeSigner)
    asyncio.run(second.close())
    asyncio.run(third.close())
