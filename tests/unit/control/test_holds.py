"""A hold is in force before it is recorded, its release is recorded first, and a file nobody can read holds all."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from gateway.control import holds as module
from gateway.control.holds import FOREVER_US, Hold, HoldRefused, Holds, HoldsUnreadable, blocks_erasure
from gateway.journal.line import content_of
from gateway.record import Kind, Record

NOW_US = 1_763_700_000_000_000


def made(journal: Path) -> tuple[Holds, list[Record]]:
    records = list[Record]()
    return Holds(journal, records.append, lambda: NOW_US), records


def test_none_at_first(tmp_path: Path) -> None:
    assert made(tmp_path)[0].all() == ()


def test_what_is_added_is_in_force_and_recorded(tmp_path: Path) -> None:
    holds, records = made(tmp_path)
    hold = holds.add("case 17", "ann", from_us=10, to_us=20, org="acme")
    assert hold == Hold(id=hold.id, why="case 17", actor="ann", at_us=NOW_US, from_us=10, to_us=20, org="acme")
    assert holds.all() == module.read(tmp_path) == (hold,)
    (record,) = records
    assert (record.kind, record.action, record.subject, record.actor) == (Kind.ADMIN, "journal.hold", hold.id, "ann")
    assert json.loads(record.detail) == json.loads((tmp_path / "holds.json").read_text())[0]
    assert content_of(record), "it can be written"
    assert stat.S_IMODE((tmp_path / "holds.json").stat().st_mode) == 0o600


def test_what_is_released_is_gone_and_recorded(tmp_path: Path) -> None:
    holds, records = made(tmp_path)
    first, second = holds.add("one", "ann"), holds.add("two", "bob")
    assert (first.from_us, first.to_us) == (0, FOREVER_US)
    assert holds.release(first.id, "eve") == first
    assert holds.all() == (second,)
    assert [(record.action, record.actor) for record in records[2:]] == [("journal.release", "eve")]
    assert json.loads(records[2].detail)["why"] == "one"
    with pytest.raises(HoldRefused, match=first.id):
        holds.release(first.id, "eve")
    assert len(records) == 3


@pytest.mark.parametrize(
    ("from_us", "to_us", "covers"),
    [(0, 9, False), (0, 10, True), (15, 15, True), (20, 99, True), (21, 99, False), (0, 99, True)],
)
def test_both_ends_are_held(from_us: int, to_us: int, *, covers: bool) -> None:
    hold = Hold(id="a", why="b", actor="c", at_us=0, from_us=10, to_us=20)
    assert hold.covers(from_us, to_us) == covers


def test_whose_data_a_hold_keeps() -> None:
    everybody = Hold(id="a", why="b", actor="c", at_us=0, from_us=0, to_us=1)
    acme = Hold(id="a", why="b", actor="c", at_us=0, from_us=0, to_us=1, org="acme")
    assert blocks_erasure(everybody, "acme")
    assert blocks_erasure(acme, "acme")
    assert not blocks_erasure(acme, "other")


@pytest.mark.parametrize(
    ("why", "actor", "from_us", "to_us"),
    [("", "ann", 0, 1), ("x", " ", 0, 1), ("x", "ann", 2, 1), ("x", "ann", -1, 1), ("x", "ann", 0, FOREVER_US + 1)],
)
def test_what_makes_no_hold(tmp_path: Path, why: str, actor: str, from_us: int, to_us: int) -> None:
    holds, records = made(tmp_path)
    with pytest.raises(HoldRefused):
        holds.add(why, actor, from_us=from_us, to_us=to_us)
    assert (holds.all(), records) == ((), [])


def test_texts_have_a_bound(tmp_path: Path) -> None:
    with pytest.raises(HoldRefused, match="1000 characters"):
        made(tmp_path)[0].add("x" * 1001, "ann")


@pytest.mark.parametrize("content", [b"", b'[{"id":"\xff"}]', b"[{}]", b"{}", b'[{"id":"a"}', b"\xff"])
def test_a_file_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "holds.json").write_bytes(content)
    holds, records = made(tmp_path)
    for action in (holds.all, lambda: holds.add("x", "ann"), lambda: holds.release("a", "ann")):
        with pytest.raises(HoldsUnreadable, match=r"holds\.json"):
            action()
    assert (tmp_path / "holds.json").read_bytes() == content
    assert records == []


def test_an_old_holds_file_may_have_more_fields(tmp_path: Path) -> None:
    one = {"id": "a", "why": "b", "actor": "c", "at_us": 1, "from_us": 2, "to_us": 3, "court": "high"}
    (tmp_path / "holds.json").write_text(json.dumps([one]))
    assert made(tmp_path)[0].all()[0].id == "a"


# --- crashes --------------------------------------------------------------------------------------------------------


def test_a_hold_that_cannot_be_recorded_holds_all_the_same(tmp_path: Path) -> None:
    holds = Holds(tmp_path, mock.Mock(side_effect=OSError("the journal is full")), lambda: NOW_US)
    with pytest.raises(OSError, match="full"):
        holds.add("x", "ann")
    assert [hold.why for hold in holds.all()] == ["x"]


def test_a_release_that_cannot_be_recorded_releases_nothing(tmp_path: Path) -> None:
    hold = made(tmp_path)[0].add("x", "ann")
    holds = Holds(tmp_path, mock.Mock(side_effect=OSError("the journal is full")), lambda: NOW_US)
    with pytest.raises(OSError, match="full"):
        holds.release(hold.id, "ann")
    assert holds.all() == (hold,)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    holds, records = made(tmp_path)
    hold = holds.add("x", "ann")
    with mock.patch.object(module, "replacing", side_effect=OSError("no space")):
        with pytest.raises(OSError, match="no space"):
            holds.add("y", "ann")
        with pytest.raises(OSError, match="no space"):
            holds.release(hold.id, "ann")
    assert holds.all() == (hold,)
    assert [record.action for record in records] == ["journal.hold", "journal.release"]


def test_many_at_once_are_all_kept(tmp_path: Path) -> None:
    holds, records = made(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        ids = {hold.id for hold in pool.map(lambda number: holds.add(str(number), "ann"), range(40))}
    assert {hold.id for hold in holds.all()} == ids
    assert len(records) == len(ids) == 40
