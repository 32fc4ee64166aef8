"""What should go, what may, and which reason is given: on journals of a few segments with round sizes and times."""

from pathlib import Path
from unittest import mock

import pytest

from gateway.control import inventory
from gateway.control.expiry import MOST_AT_ONCE, Expiry, Plan, RetentionSettings, Standing
from gateway.control.holds import Hold
from gateway.journal.read import Place
from gateway.record import Kind, Record
from gateway.units import US_PER_S
from tests.fakes.written_journal import WrittenJournal

DAY_US = 86_400 * US_PER_S
NOW_US = 100 * DAY_US
PLENTY = 10**12


class Scene:
    """A journal whose segments end on given days; all of it signed and read unless a test says otherwise."""

    def __init__(self, directory: Path) -> None:
        self.journal = WrittenJournal(directory)
        self.places: dict[str, dict[str, Place]] = {}
        self.signed: dict[str, Place] | None = None
        self.holds: tuple[Hold, ...] = ()
        self.unreadable = ""
        self.doubt = ""
        self.expiry = Expiry(self.journal.path)

    def chain(self, name: str, *days: float, size: int = 10_000) -> None:
        """A segment for each day, of about `size` bytes, that ends then."""
        for day in days:
            at_us = int(day * DAY_US)
            self.journal.chain(name).segment(at_us - 60, Record(Kind.OUTCOME, "x", at_us, detail="y" * size))

    def plan(self, max_bytes: int = PLENTY, keep_days: int = 400) -> Plan:
        signed = self.journal.signed() if self.signed is None else self.signed
        settings = RetentionSettings(max_bytes, keep_days)
        standing = Standing(NOW_US, settings, signed, self.places, self.holds, self.unreadable, self.doubt)
        return self.expiry.plan(inventory.take(self.journal.path), standing)

    def hold(self, first_day: float, last_day: float) -> None:
        first_us, last_us = int(first_day * DAY_US), int(last_day * DAY_US)
        hold = Hold(id="h1", why="case 17", actor="ann", at_us=0, from_us=first_us, to_us=last_us)
        self.holds = (*self.holds, hold)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def names(plan: Plan) -> list[str]:
    return [drop.segment.name for drop in plan.drops]


# --- should go ------------------------------------------------------------------------------------------------------


def test_nothing_goes_while_there_is_time_and_room(scene: Scene) -> None:
    scene.chain("w0", 70, 80, 90)
    used = inventory.take(scene.journal.path).bytes
    assert scene.plan(used) == Plan([], used, 0, ())


def test_what_is_too_old_goes(scene: Scene) -> None:
    scene.chain("w0", 10, 69.9, 70.1, 90)
    scene.chain("control", 20, 99)
    plan = scene.plan(keep_days=30)
    assert names(plan) == ["w0/1", "control/1", "w0/2"]
    assert {drop.why for drop in plan.drops} == {"keep_days"}
    assert (plan.blocked_bytes, plan.reasons) == (0, ())


def test_nothing_is_too_old_by_a_clock_in_doubt(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    scene.doubt = "the clock has leapt"
    plan = scene.plan(keep_days=30)
    assert (names(plan), plan.reasons) == ([], ("the clock has leapt",))
    assert plan.blocked_bytes == sum(s.all_bytes for s in inventory.take(scene.journal.path).chains["w0"][:2])


def test_too_much_goes_whatever_the_clock_says(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    scene.doubt = "the clock has leapt"
    used = inventory.take(scene.journal.path).bytes
    plan = scene.plan(used - 1, keep_days=30)
    assert [(drop.segment.name, drop.why) for drop in plan.drops] == [("w0/1", "max_bytes")]
    assert plan.reasons == ("the clock has leapt",)


def test_too_much_goes_oldest_first_and_no_more_than_needed(scene: Scene) -> None:
    scene.chain("w0", 10, 30, 50)
    scene.chain("w1", 20, 40, 60)
    used = inventory.take(scene.journal.path).bytes
    plan = scene.plan(used - 20_001)
    assert names(plan) == ["w0/1", "w1/1"]
    assert {drop.why for drop in plan.drops} == {"max_bytes"}
    assert plan.used_bytes == used - sum(drop.segment.all_bytes for drop in plan.drops) <= used - 20_001
    assert (plan.blocked_bytes, plan.reasons) == (0, ())


def test_what_a_repair_cut_off_counts(scene: Scene) -> None:
    scene.chain("w0", 10, 30, 50)
    (scene.journal.path / "w0" / "torn-1-77").write_bytes(b"x" * 50_000)
    used = inventory.take(scene.journal.path).bytes
    assert names(scene.plan(used - 60_000)) == ["w0/1"]


def test_the_newest_segment_stays_however_old(scene: Scene) -> None:
    scene.chain("w0", 10)
    scene.chain("w1", 5, 10)
    assert names(scene.plan(keep_days=30)) == ["w1/1"]


def test_a_prepared_segment_does_not_make_the_one_before_it_old(scene: Scene) -> None:
    scene.chain("w0", 10)
    end = scene.journal.signed()
    (scene.journal.path / "w0" / "0000000002.jsonl").touch()
    scene.signed = end
    assert names(scene.plan(keep_days=30)) == []


def test_many_go_in_turns(scene: Scene) -> None:
    scene.chain("w0", *range(1, MOST_AT_ONCE + 10), size=0)
    plan = scene.plan(keep_days=1)
    assert len(plan.drops) == MOST_AT_ONCE
    assert (plan.blocked_bytes, plan.reasons) == (0, ()), "the others are not blocked, only later"
    assert scene.plan(1, 400).reasons == (), "nor is what is too large"


# --- how the chain goes on ------------------------------------------------------------------------------------------


def test_a_floor_is_the_next_segments_beginning(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    plan = scene.plan(keep_days=30)
    kept = inventory.first_line(scene.journal.path, "w0", 3)
    assert kept is not None
    floor = plan.drops[-1].floor
    assert (floor.chain, floor.segment, floor.seq, floor.head) == ("w0", 3, 4, kept.record.prev)


def test_segments_without_lines_go_with_those_before_them(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    chain = scene.journal.path / "w0"
    (chain / "0000000003.jsonl").rename(chain / "0000000005.jsonl")
    (chain / "0000000003.jsonl").touch()
    (chain / "0000000004.jsonl").touch()
    scene.signed = {"w0": Place(5, 100)}
    content = (chain / "0000000005.jsonl").read_bytes()
    assert b'"segment":3' in content
    plan = scene.plan(keep_days=30)
    assert names(plan) == ["w0/1", "w0/2"]
    assert [drop.floor.segment for drop in plan.drops] == [2, 5]


def test_without_a_beginning_nothing_before_it_goes(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    scene.chain("w1", 15, 90)
    scene.journal.path.joinpath("w0", "0000000002.jsonl").write_bytes(b"rubbish\n")
    plan = scene.plan(keep_days=30)
    assert names(plan) == ["w1/1"]
    assert plan.blocked_bytes > 10_000
    assert "audit verify" in plan.reasons[0]


# --- may go ---------------------------------------------------------------------------------------------------------


def test_what_is_not_signed_stays(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    scene.signed = {"w0": Place(2, 50)}
    assert names(scene.plan(keep_days=30)) == ["w0/1"]
    scene.signed = {}
    plan = scene.plan(1)
    assert (names(plan), plan.reasons) == ([], ("chain w0 is not signed to its end",))
    assert plan.blocked_bytes == plan.used_bytes - 1


def test_what_a_reader_has_not_passed_stays(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    scene.places = {"usage": {"w0": Place(3, 0)}, "export-siem": {"w0": Place(2, 10_000)}}
    plan = scene.plan(keep_days=30)
    assert names(plan) == ["w0/1"]
    assert plan.reasons == ("export-siem has not read chain w0 that far",)
    assert 10_000 < plan.blocked_bytes < 11_000


def test_a_reader_that_has_not_begun_keeps_all(scene: Scene) -> None:
    scene.chain("w0", 10, 90)
    scene.places = {"usage": {}}
    plan = scene.plan(keep_days=30)
    assert (names(plan), plan.reasons) == ([], ("usage has not read chain w0 that far",))


def test_what_blocks_one_chain_leaves_the_others_to_make_room(scene: Scene) -> None:
    scene.chain("w0", 10, 30, 50)
    scene.chain("w1", 20, 40, 60)
    scene.places = {"usage": {"w1": Place(9, 0)}}
    used = inventory.take(scene.journal.path).bytes
    plan = scene.plan(used - 15_000)
    assert names(plan) == ["w1/1", "w1/2"]
    assert plan.reasons == ("usage has not read chain w0 that far",)
    assert plan.blocked_bytes == 0, "there is room enough now"


def test_what_cannot_make_room_is_told(scene: Scene) -> None:
    scene.chain("w0", 10, 30)
    used = inventory.take(scene.journal.path).bytes
    plan = scene.plan(used - 12_000)
    assert names(plan) == ["w0/1"]
    assert "raise journal.max_bytes" in plan.reasons[0]
    assert plan.blocked_bytes == plan.used_bytes - (used - 12_000) > 0


@pytest.mark.parametrize(
    ("first_day", "last_day", "gone"),
    [(30, 40, ["w0/1", "w0/2"]), (19, 40, ["w0/1"]), (20, 20, ["w0/1"]), (0, 9.9, ["w0/1", "w0/2"]), (10, 99, [])],
)
def test_a_hold_keeps_its_time(scene: Scene, first_day: float, last_day: float, gone: list[str]) -> None:
    scene.chain("w0", 10, 20, 90)
    scene.hold(first_day, last_day)
    plan = scene.plan(keep_days=30)
    assert names(plan) == gone
    assert plan.reasons == (() if len(gone) == 2 else ("legal hold h1 (case 17)",))


def test_a_hold_looks_at_every_record_and_not_at_the_ends(scene: Scene) -> None:
    early = Record(Kind.OUTCOME, "x", 5 * DAY_US)
    last = Record(Kind.OUTCOME, "y", 11 * DAY_US)
    scene.journal.chain("w0").segment(10 * DAY_US, early, last)
    scene.chain("w0", 90)
    scene.hold(4, 6)
    assert names(scene.plan(keep_days=30)) == []


def test_holds_nobody_can_read_hold_all(scene: Scene) -> None:
    scene.chain("w0", 10, 90)
    scene.unreadable = "holds.json cannot be read"
    plan = scene.plan(keep_days=30)
    assert (names(plan), plan.reasons) == ([], ("holds.json cannot be read",))


def test_times_are_looked_up_once_and_forgotten_with_their_segment(scene: Scene) -> None:
    scene.chain("w0", 10, 20, 90)
    scene.hold(0, 1)
    assert names(scene.plan(keep_days=30)) == ["w0/1", "w0/2"]
    with mock.patch.object(inventory, "last_us", None), mock.patch.object(inventory, "span", None):
        assert names(scene.plan(keep_days=30)) == ["w0/1", "w0/2"]
    scene.journal.path.joinpath("w0", "0000000001.jsonl").unlink()
    scene.plan(keep_days=30)
    assert len(scene.expiry._spans) == len(scene.expiry._last_us) == 1
