"""Record, then floor, then files: what a turn does in which order, and what it tells."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.control import expiry, retention
from gateway.control.expiry import RetentionSettings
from gateway.control.holds import Hold, Holds
from gateway.control.retention import Retention
from gateway.journal import keytable, layout
from gateway.journal.line import record_of
from gateway.journal.manifest import Floor
from gateway.journal.read import Place
from gateway.record import Kind, Record
from gateway.units import US_PER_S
from tests.fakes.written_journal import WrittenJournal

DAY_US = 86_400 * US_PER_S
NOW_US = 100 * DAY_US
PLENTY = 10**12


class FakeNotary:
    """Signs when the test says so."""

    def __init__(self, journal: WrittenJournal, told: list[str]) -> None:
        self._journal = journal
        self._told = told
        self.wished: dict[str, Floor] = {}
        self.floors: dict[str, Floor] = {}

    @property
    def signed(self) -> dict[str, Place]:
        return self._journal.signed()

    def raise_floor(self, floors: Iterable[Floor]) -> None:
        found = {floor.chain: floor for floor in floors}
        self.wished |= found
        self._told.extend(f"floor {chain}/{floor.segment}" for chain, floor in found.items())

    def sign(self) -> None:
        self.floors = self.floors | self.wished


class Scene:
    """Segments that end on given days, and a retention beside them."""

    def __init__(self, directory: Path, keep_days: int = 30, max_bytes: int = PLENTY) -> None:
        self.journal = WrittenJournal(directory)
        self.told: list[str] = []
        self.records: list[Record] = []
        self.notary = FakeNotary(self.journal, self.told)
        self.places: dict[str, dict[str, Place]] = {}
        self.holds = Holds(self.journal.path, lambda _: None, lambda: NOW_US)
        self.doubt = ""
        self.refuse = 0  # appends from this one on fail
        self.retention = Retention(
            directory,
            RetentionSettings(max_bytes, keep_days),
            self.notary,
            lambda: self.places,
            self.append,
            self.holds,
            lambda: NOW_US,
            lambda: self.doubt,
        )

    def append(self, content: bytes) -> None:
        if self.refuse and len(self.records) + 1 >= self.refuse:
            raise OSError("the journal takes no record")
        self.records.append(record_of(b'{"seq":0,' + content[1:-1]))
        self.told.append(f"record {self.records[-1].subject}")

    def chain(self, name: str, *days: float) -> None:
        for day in days:
            at_us = int(day * DAY_US)
            self.journal.chain(name).segment(at_us, Record(Kind.OUTCOME, "x", at_us, detail="y" * 10_000))

    def details(self) -> list[dict[str, Any]]:
        return [json.loads(record.detail) for record in self.records]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    made.chain("w0", 10, 20, 90)
    return made


def left(scene: Scene, chain: str = "w0") -> list[int]:
    return layout.segments(scene.journal.path, chain)


# --- the steps ------------------------------------------------------------------------------------------------------


def test_recorded_first_then_signed_then_removed(scene: Scene) -> None:
    scene.retention.turn()
    assert scene.told == ["record w0/1", "record w0/2", "floor w0/3"]
    assert left(scene) == [1, 2, 3]
    scene.retention.turn()
    assert left(scene) == [1, 2, 3], "not before it is signed"
    assert len(scene.told) == 3, "nor is it said twice"
    scene.notary.sign()
    scene.retention.turn()
    assert left(scene) == [3]
    scene.retention.turn()
    assert len(scene.told) == 3
    assert (scene.retention.dropped_segments, scene.retention.failing) == (2, "")


def test_a_record_says_what_is_gone(scene: Scene) -> None:
    size = layout.segment_path(scene.journal.path, "w0", 2).stat().st_size
    (scene.journal.path / "w0" / "torn-2-50").write_bytes(b"x" * 7)
    scene.retention.turn()
    record = scene.records[1]
    assert (record.kind, record.action, record.subject) == (Kind.CHECKPOINT, "dropped", "w0/2")
    assert (record.exchange_id, record.at_us) == ("", NOW_US)
    floor = scene.notary.wished["w0"]
    assert scene.details()[1] == {
        "first_seq": 2, "last_seq": 3, "head": floor.head, "bytes": size + 7, "why": "keep_days",
    }  # fmt: skip
    assert floor.seq == 4
    assert scene.retention.dropped_bytes == sum(detail["bytes"] for detail in scene.details())


def test_a_damaged_segment_goes_in_its_time_too(scene: Scene) -> None:
    path = layout.segment_path(scene.journal.path, "w0", 1)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    scene.retention.turn()
    assert [(detail["first_seq"], detail["last_seq"]) for detail in scene.details()] == [(-1, 1), (2, 3)]


def test_what_was_cut_off_goes_with_its_segment(scene: Scene) -> None:
    directory = scene.journal.path / "w0"
    for name in ("torn-1-5", "torn-1-5.1", "torn-2-0", "torn-3-9", "torn-2-9.new", "lock"):
        (directory / name).touch()
    scene.retention.turn()
    scene.notary.sign()
    scene.retention.turn()
    kept = {"0000000003.jsonl", "torn-3-9", "torn-2-9.new", "lock"}
    assert {path.name for path in directory.iterdir()} == kept


def test_other_chains_are_left_alone(scene: Scene) -> None:
    scene.chain("w1", 90, 95)
    scene.chain("control", 15, 95)
    for _ in range(2):
        scene.retention.turn()
        scene.notary.sign()
    scene.retention.turn()
    assert (left(scene), left(scene, "w1"), left(scene, "control")) == ([3], [1, 2], [2])


def test_another_process_finishes_what_was_signed(scene: Scene, tmp_path: Path) -> None:
    scene.retention.turn()
    scene.notary.sign()
    again = Scene(tmp_path)
    again.journal = scene.journal
    again.notary.floors = scene.notary.floors
    again.retention.turn()
    assert left(again) == [3]
    assert again.told == []


def test_removing_is_synced(scene: Scene) -> None:
    scene.retention.turn()
    scene.notary.sign()
    with mock.patch("gateway.control.retention.sync_directory") as sync:
        scene.retention.turn()
        scene.retention.turn()
    sync.assert_called_once_with(scene.journal.path / "w0")


# --- what fails -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_recorded_is_not_dropped(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.refuse = 2
    scene.retention.turn()
    assert scene.told == ["record w0/1", "floor w0/2"], "the first one goes all the same"
    assert "takes no record" in scene.retention.failing
    scene.retention.turn()
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"
    scene.refuse = 0
    scene.retention.turn()
    assert scene.told[2:] == ["record w0/2", "floor w0/3"]
    assert scene.retention.failing == ""


def test_what_cannot_be_removed_is_tried_again(scene: Scene) -> None:
    scene.retention.turn()
    scene.notary.sign()
    with mock.patch.object(Path, "unlink", side_effect=PermissionError(1, "Operation not permitted")):
        scene.retention.turn()
    assert "not permitted" in scene.retention.failing
    assert left(scene) == [1, 2, 3]
    scene.retention.turn()
    assert left(scene) == [3]


# --- holds ----------------------------------------------------------------------------------------------------------


def test_a_hold_keeps_and_its_release_lets_go(scene: Scene) -> None:
    hold = scene.holds.add("case", "ann", from_us=0, to_us=15 * DAY_US)
    scene.retention.turn()
    assert scene.told == []
    assert scene.retention.blocked_bytes > 20_000
    scene.holds.release(hold.id, "ann")
    scene.retention.turn()
    assert scene.told == ["record w0/1", "record w0/2", "floor w0/3"]
    assert scene.retention.blocked_bytes == 0


def test_a_hold_waits_for_a_turn_and_is_not_slipped_past(scene: Scene) -> None:
    locked = list[bool]()
    real = scene.append

    def append(content: bytes) -> None:
        locked.append(scene.holds._busy.locked())
        real(content)

    scene.retention._append = append
    scene.retention.turn()
    assert locked == [True, True]


def test_holds_nobody_can_read_keep_all(scene: Scene) -> None:
    (scene.journal.path / "holds.json").write_text("[")
    scene.retention.turn()
    assert scene.told == []
    assert "holds.json" in scene.retention.reasons[0]


def test_holds_are_what_the_decision_sees(scene: Scene) -> None:
    scene.holds.add("case", "ann", org="acme", from_us=0, to_us=DAY_US)
    with mock.patch.object(scene.retention._expiry, "plan", wraps=scene.retention._expiry.plan) as plan:
        scene.retention.turn()
    standing = plan.call_args.args[1]
    assert [type(hold) for hold in standing.holds] == [Hold]
    assert standing.unreadable == ""


def test_a_clock_in_doubt_keeps_what_it_calls_old_until_it_is_believed(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.doubt = "the clock has leapt"
    scene.retention.turn()
    scene.retention.turn()
    assert (scene.told, scene.retention.reasons) == ([], ("the clock has leapt",))
    assert caplog.text.count("the clock has leapt") == 1
    scene.doubt = ""
    scene.retention.turn()
    assert scene.told[:2] == ["record w0/1", "record w0/2"]


def test_more_than_a_turn_takes_is_gone_on_with_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (expiry, retention):
        monkeypatch.setattr(module, "MOST_AT_ONCE", 2)
    scene = Scene(tmp_path)
    scene.chain("w0", 10, 20, 30, 90)
    behind = []
    for _ in range(3):
        scene.retention.turn()
        behind.append(scene.retention.behind)
    assert (behind, len(scene.records)) == ([True, False, False], 3)
    scene.chain("w1", 10, 20, 90)
    scene.refuse = 1
    scene.retention.turn()
    assert (scene.retention.behind, bool(scene.retention.failing)) == (False, True)


# --- keys -----------------------------------------------------------------------------------------------------------


def keys_of(scene: Scene, chain: str, *days: float) -> Path:
    """Key files made on these days."""
    directory = scene.journal.state_dir / "sealing"
    keytable.ensure_salt(directory)
    for number, day in enumerate(days):
        with mock.patch("time.time_ns", return_value=int(day * DAY_US) * 1000):
            keytable.KeyTable.create(directory, chain, number).close()
    return directory


def test_keys_that_no_record_can_name_go_after_the_records(scene: Scene) -> None:
    directory = keys_of(scene, "w0", 1, 10, 50, 80, 89)
    keys_of(scene, "w7", 1, 2, 3)
    scene.retention.turn()
    assert len(keytable.key_files(directory)) == 8
    scene.notary.sign()
    scene.retention.turn()
    kept = [("w0", 4), ("w0", 5)]  # the chain begins on day 90, the third file was left on day 80
    assert keytable.key_files(directory) == [*kept, ("w7", 1), ("w7", 2), ("w7", 3)]


def test_a_clock_that_was_ahead_costs_no_keys(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.chain("w0", 99, 60, 61)
    directory = keys_of(scene, "w0", 1, 40, 70)
    scene.retention.turn()
    assert keytable.key_files(directory) == [("w0", 2), ("w0", 3)], "the first was left on day 40"


def test_where_a_segment_does_not_say_when_it_began_all_keys_stay(scene: Scene) -> None:
    directory = keys_of(scene, "w0", 1, 1.5, 3)
    path = layout.segment_path(scene.journal.path, "w0", 2)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    scene.retention.turn()
    assert len(keytable.key_files(directory)) == 3


def test_keys_are_looked_at_when_something_was_removed_and_at_the_start(scene: Scene) -> None:
    keys_of(scene, "w0", 1, 2)
    with mock.patch("gateway.control.retention.spent", return_value=[]) as looked:
        scene.retention.turn()
        scene.retention.turn()
        assert looked.call_count == 1
        scene.notary.sign()
        scene.retention.turn()
    assert looked.call_count == 2


# --- telling --------------------------------------------------------------------------------------------------------


def test_the_alarm_comes_at_four_fifths_and_is_told_once(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    used = sum(path.stat().st_size for path in scene.journal.path.glob("*/*.jsonl"))
    quiet = Scene(tmp_path, keep_days=400, max_bytes=used * 5 // 4 + 2)
    quiet.journal = quiet.notary._journal = scene.journal
    quiet.retention.turn()
    assert (quiet.retention.used_bytes, quiet.retention.alarm) == (used, False)
    for _ in range(2):
        quiet.retention.adopt(RetentionSettings(used * 5 // 4, 400))
        quiet.retention.turn()
        assert quiet.retention.alarm
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    quiet.retention.adopt(RetentionSettings(PLENTY, 400))
    quiet.retention.turn()
    assert not quiet.retention.alarm
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_why_something_stays_is_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.places = {"export-siem": {}}
    scene.retention.turn()
    scene.retention.turn()
    (said,) = caplog.records
    assert (said.levelname, "export-siem has not read chain w0" in said.getMessage()) == ("ERROR", True)
    assert scene.retention.reasons == ("export-siem has not read chain w0 that far",)


def test_what_goes_is_not_counted_as_used(scene: Scene) -> None:
    scene.retention.turn()
    newest = layout.segment_path(scene.journal.path, "w0", 3).stat().st_size
    assert scene.retention.used_bytes == newest
    scene.retention.turn()
    assert scene.retention.used_bytes == newest
