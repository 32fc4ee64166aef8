"""What callers of the journal are told, and when; on a loop and a sync thread that are turned by hand."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.journal import outage
from gateway.journal.journal import MAX_CONTENT_BYTES, Journal
from gateway.journal.recover import NoFreeChain
from gateway.record import Kind
from tests.fakes.disk import Fault, FaultyDisk, broken, no_space
from tests.fakes.journal_writer import FakeSigner, Writer, checked, content, ids, segment, settings

DECISION = Kind.DECISION


def full(name: str, _number: int) -> Fault | None:
    return no_space() if name == "pwrite" else None


def dead(name: str, _number: int) -> Fault | None:
    return broken() if name in {"sync", "synced"} else None


def well(_name: str, _number: int) -> Fault | None:
    return None


def modes(journal: Path) -> list[tuple[str, dict[str, Any]]]:
    found = [record for record in checked(journal) if record["kind"] == "mode"]
    return [(record["action"], json.loads(record["detail"])) for record in found]


def opened_by(journal: Path) -> list[str]:
    found = [record for record in checked(journal) if record.get("action") == "segment"]
    return [json.loads(record["detail"])["opened_by"] for record in found]


class Scene:
    """A writer whose first line is on the disk."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.disk = FaultyDisk()
        self.path = path
        self.given = settings(path, **changes)
        self.writer = Writer(self.given, self.disk)
        self.journal = self.writer.journal
        self.writer.sync()
        self.disk.calls.clear()

    def append(self, *texts: str) -> None:
        for text in texts:
            self.journal.append(content(text))

    def commit(self, text: str, *, synced: bool = False) -> "asyncio.Future[bool]":
        return self.journal.commit(content(text, DECISION), synced=synced)

    def turn(self) -> None:
        self.writer.loop.turn()

    def pass_time(self, seconds: float) -> None:
        self.writer.loop.advance(seconds)

    def grow_old(self, seconds: float) -> None:
        """The current segment was begun so much earlier, and a second passes."""
        self.journal._chain.file.opened_ns -= int(seconds * 1e9)
        self.pass_time(1.0)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "journal")
    yield scene
    scene.disk.fault = well
    scene.writer.close()
    assert scene.disk.fds == {}


# --- a turn ---------------------------------------------------------------------------------------------------------


def test_one_write_a_turn_in_the_order_handed_over(scene: Scene) -> None:
    scene.append("a")
    written = scene.commit("b")
    scene.append("c")
    assert (scene.disk.calls, written.done()) == ([], False)
    scene.turn()
    assert (scene.disk.calls, written.result()) == (["pwrite"], True)
    assert ids(scene.path) == ["a", "b", "c"]
    assert (scene.journal.lines, scene.journal.written_bytes) == (4, segment(scene.path, 1).stat().st_size)


def test_a_synced_decision_is_told_when_it_is_on_the_disk(scene: Scene) -> None:
    written, synced = scene.commit("a"), scene.commit("b", synced=True)
    scene.turn()
    assert (written.result(), synced.done()) == (True, False)
    scene.writer.sync()
    assert synced.result() is True
    assert (scene.journal.syncs, scene.journal.failures, scene.journal.lost) == (2, 0, 0)


def test_a_caller_who_leaves_takes_no_answer_from_the_others(scene: Scene) -> None:
    waiting = [scene.commit("a"), scene.commit("b"), scene.commit("c", synced=True), scene.commit("d", synced=True)]
    waiting[0].cancel()
    waiting[2].cancel()
    scene.turn()
    scene.writer.sync()
    assert [waiter.cancelled() or waiter.result() for waiter in waiting] == [True] * 4
    assert ids(scene.path) == ["a", "b", "c", "d"], "what was handed over is written all the same"


def test_what_comes_before_the_start_is_written_at_the_start(tmp_path: Path) -> None:
    journal = Journal.open(settings(tmp_path), ["w0"], FakeSigner)
    journal.append(content("a"))

    async def live() -> None:
        journal.start(asyncio.get_running_loop())
        assert await journal.commit(content("b", DECISION), synced=True)
        await journal.close()

    asyncio.run(live())
    assert ids(tmp_path) == ["a", "b"]


def test_a_record_larger_than_a_line_may_be_is_refused_and_told(scene: Scene) -> None:
    scene.journal.append(content("x" * MAX_CONTENT_BYTES))
    assert scene.commit("y" * MAX_CONTENT_BYTES).result() is False
    fits = b'{"kind":"outcome","exchange_id":"fits","at_us":1,"detail":""}'
    scene.journal.append(fits.replace(b'""', b'"%b"' % (b"z" * (MAX_CONTENT_BYTES - len(fits)))))
    scene.pass_time(1.0)
    assert ids(scene.path) == ["fits"]
    assert [(action, told["lost_by_kind"]) for action, told in modes(scene.path)] == [("left", {"outcome": 1})]
    assert max(map(len, segment(scene.path, 1).read_bytes().splitlines(keepends=True))) <= 1024 * 1024


# --- segments -------------------------------------------------------------------------------------------------------


def test_it_rolls_by_size_into_a_segment_made_ahead(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "journal", segment_bytes=1_000)
    texts = [f"{number}" for number in range(30)]
    for text in texts:
        scene.append(text)
        scene.turn()
        scene.writer.sync()
    scene.writer.close()
    assert ids(scene.path) == texts
    assert opened_by(scene.path)[:3] == ["start", "size", "size"]
    sizes = [path.stat().st_size for path in (scene.path / "w0").glob("*.jsonl")]
    assert len(sizes) > 3
    assert max(sizes) < 1_400
    assert scene.disk.fds == {}


def test_a_segment_grows_on_while_the_next_is_not_ready(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "journal", segment_bytes=1_000)
    for number in range(30):
        scene.append(f"{number}")
        scene.turn()
    assert set(scene.disk.calls) == {"pwrite"}
    scene.writer.sync()
    scene.append("last")
    scene.turn()
    assert len(opened_by(scene.path)) == 2
    scene.writer.close()


def test_it_rolls_by_time_also_when_nothing_is_written(scene: Scene) -> None:
    scene.append("a")
    scene.pass_time(1.0)
    scene.grow_old(801)
    scene.writer.sync()
    assert (segment(scene.path, 2).exists(), opened_by(scene.path)) == (True, ["start"])
    scene.grow_old(200)
    assert opened_by(scene.path) == ["start", "time"]
    scene.grow_old(2_000)
    scene.writer.sync()
    scene.grow_old(2_000)
    assert opened_by(scene.path) == ["start", "time"], "a segment with nothing but its first line stays"
    scene.append("b")
    scene.pass_time(1.0)
    scene.writer.sync()
    scene.pass_time(1.0)
    assert opened_by(scene.path) == ["start", "time", "time"]


def test_a_reload_brings_other_sizes(scene: Scene) -> None:
    scene.journal.adopt(settings(scene.path, segment_bytes=600))
    for text in ("a", "b"):
        scene.append(text)
        scene.turn()
        scene.writer.sync()
    scene.append("c")
    scene.turn()
    assert opened_by(scene.path) == ["start", "size"]


def test_the_chain_goes_on_over_a_restart(tmp_path: Path) -> None:
    for text in ("a", "b"):
        scene = Scene(tmp_path)
        scene.append(text)
        scene.writer.close()
    assert (ids(tmp_path), opened_by(tmp_path)) == (["a", "b"], ["start"])


# --- the disk is full -----------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_decisions_and_keeps_the_rest(scene: Scene) -> None:
    scene.disk.fault = full
    scene.append("a")
    decision = scene.commit("b")
    scene.turn()
    assert (decision.result(), scene.journal.failing, scene.journal.lost) == (False, True, 0)
    assert scene.commit("c", synced=True).result() is False
    scene.append("d")
    scene.disk.fault = well
    scene.pass_time(0.2)
    assert not scene.journal.failing
    scene.append("e")
    scene.turn()
    assert ids(scene.path) == ["a", "d", "e"]
    (entered, entered_detail), (left, left_detail) = modes(scene.path)
    assert (entered, entered_detail, left) == ("entered", {"errno": "ENOSPC"}, "left")
    assert (left_detail["lost"], left_detail["lost_by_kind"], left_detail["errno"]) == (0, {}, "ENOSPC")


def test_complete_lines_of_a_failed_write_count_and_the_rest_does_not(scene: Scene) -> None:
    line = len(content("a", DECISION)) + 83
    taken: list[Fault | None] = [2 * line + 50, no_space()]
    scene.disk.fault = lambda name, _: taken.pop(0) if name == "pwrite" and taken else None
    decisions = [scene.commit("a"), scene.commit("b", synced=True), scene.commit("c"), scene.commit("d", synced=True)]
    scene.append("e")
    scene.turn()
    assert [each.done() and each.result() for each in decisions] == [True, False, False, False]
    scene.writer.sync()
    assert (decisions[1].result(), ids(scene.path)) == (True, ["a", "b"])
    scene.pass_time(0.2)
    assert ids(scene.path) == ["a", "b", "e"]


def test_it_is_tried_again_less_and_less_often(scene: Scene) -> None:
    tries_s: list[float] = []

    def fault(name: str, number: int) -> Fault | None:
        if name == "pwrite":
            tries_s.append(scene.writer.loop.now_s)
        return full(name, number)

    scene.disk.fault = fault
    scene.append("a")
    scene.pass_time(8.0)
    assert [round(at_s, 3) for at_s in tries_s] == [0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1]
    assert scene.journal.failures == 8


def test_what_waits_is_bounded_and_what_is_lost_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, backlog_bytes=3 * len(content("a")))
    scene.disk.fault = full
    scene.append("a")
    decision = scene.commit("b")
    scene.turn()
    scene.append("c", "d", "e", "f")
    assert decision.result() is False
    scene.journal.unrecorded()
    assert scene.journal.lost == 3
    scene.disk.fault = well
    scene.pass_time(0.2)
    assert ids(tmp_path) == ["a", "c", "d"]
    assert modes(tmp_path)[1][1]["lost_by_kind"] == {"outcome": 2, "decision": 1}
    scene.writer.close()


def test_a_long_backlog_takes_several_turns_and_nobody_overtakes_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_BATCH_BYTES", 2 * len(content("a")))
    scene.disk.fault = full
    scene.append("a", "b", "c", "d", "e")
    scene.turn()
    scene.disk.fault = well
    scene.journal._retry()
    assert (scene.journal.failing, ids(scene.path)) == (True, ["a", "b"])
    scene.append("f")
    assert scene.commit("g").result() is False
    scene.turn()
    scene.turn()
    assert (scene.journal.failing, ids(scene.path)) == (False, ["a", "b", "c", "d", "e", "f"])
    assert [action for action, _ in modes(scene.path)] == ["entered", "left"]


def test_a_second_failure_while_recovering_is_the_same_outage(scene: Scene) -> None:
    scene.disk.fault = full
    scene.append("a")
    scene.turn()
    line = len(content("a")) + 80
    taken: list[Fault | None] = [4 * line, no_space()]
    scene.disk.fault = lambda name, _: taken.pop(0) if name == "pwrite" and taken else None
    scene.pass_time(0.1)
    assert scene.journal.failing
    scene.pass_time(0.2)
    assert [action for action, _ in modes(scene.path)] == ["entered", "left"]
    assert ids(scene.path) == ["a"]


def test_a_loss_told_of_after_the_outage_gets_a_record_too(scene: Scene) -> None:
    scene.journal.unrecorded()
    scene.pass_time(1.0)
    assert [(action, told["lost"]) for action, told in modes(scene.path)] == [("left", 1)]
    scene.pass_time(5.0)
    assert len(modes(scene.path)) == 1


def test_a_loss_that_cannot_be_told_now_is_told_later(scene: Scene) -> None:
    scene.journal.unrecorded()
    scene.disk.fault = full
    scene.pass_time(1.0)
    assert scene.journal.failing
    scene.disk.fault = well
    scene.pass_time(3.0)
    assert [(action, told.get("lost")) for action, told in modes(scene.path)] == [("entered", None), ("left", 1)]


# --- the disk loses what it said it had taken -----------------------------------------------------------------------


def forget(path: Path) -> None:
    """The kernel gives up the pages that it could not write: all but the first line."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(data.index(b"\n") + 1)
        file.write(bytes(len(data) - file.tell()))


def test_a_failed_sync_refuses_until_the_same_bytes_are_on_the_disk(scene: Scene) -> None:
    synced = scene.commit("a", synced=True)
    scene.turn()
    scene.disk.fault = dead
    scene.writer.sync()
    assert (synced.result(), scene.journal.failing, scene.journal.failures) == (False, True, 1)
    assert scene.commit("b").result() is False
    scene.append("c")
    scene.turn()
    scene.pass_time(5.0)
    assert "pwrite" not in scene.disk.calls[1:], "while the disk loses what it takes, nothing is added"
    forget(segment(scene.path, 1))
    scene.disk.fault = well
    scene.writer.sync()
    assert not scene.journal.failing
    assert ids(scene.path) == ["a", "c"]
    assert [told["errno"] for _, told in modes(scene.path)] == ["EIO", "EIO"]


def test_what_was_handed_over_before_a_failed_sync_was_known(scene: Scene) -> None:
    scene.append("a")
    scene.turn()
    scene.disk.fault = dead
    decision = scene.commit("b")
    scene.append("c")
    scene.writer.round()
    scene.turn()
    scene.turn()
    assert (decision.result(), scene.journal.failing) == (True, True), "its line is in the journal"
    scene.disk.fault = well
    scene.writer.sync()
    assert ids(scene.path) == ["a", "b", "c"]


def test_what_was_handed_over_in_the_turn_that_learnt_of_it(scene: Scene) -> None:
    scene.append("a")
    scene.turn()
    scene.disk.fault = dead
    scene.writer.round()
    decision = scene.commit("b")
    scene.append("c")
    scene.turn()
    assert (decision.result(), ids(scene.path)) == (False, ["a"])
    scene.disk.fault = well
    scene.writer.sync()
    assert ids(scene.path) == ["a", "c"]


def test_order_holds_through_the_turn_that_learnt_of_it(scene: Scene) -> None:
    scene.append("a")
    scene.turn()
    scene.disk.fault = dead
    scene.writer.round()  # its report runs first, then this callback, then the write
    scene.writer.loop.call_soon(scene.append, "c")
    scene.append("b")
    scene.turn()
    scene.disk.fault = well
    scene.writer.sync()
    assert ids(scene.path) == ["a", "b", "c"]


def test_lines_written_while_an_outage_ends_in_part_are_synced(scene: Scene) -> None:
    scene.disk.fault = full
    scene.append("a")
    scene.turn()
    taken: list[Fault | None] = [len(content("a")) * 4, no_space()]
    scene.disk.fault = lambda name, _: taken.pop(0) if name == "pwrite" and taken else None
    scene.writer.round()
    scene.pass_time(0.1)
    assert scene.journal.failing
    assert scene.journal._syncer._dirty


def test_a_disk_that_fails_both_ways_must_heal_both_ways(scene: Scene) -> None:
    scene.append("a")
    scene.turn()
    scene.disk.fault = full
    scene.append("b")
    scene.turn()
    scene.disk.fault = dead
    scene.writer.round()
    scene.turn()
    scene.pass_time(5.0)
    assert (scene.journal.failing, ids(scene.path)) == (True, ["a"])
    scene.disk.fault = well
    scene.writer.sync()
    assert (scene.journal.failing, ids(scene.path)) == (False, ["a", "b"])
    assert [action for action, _ in modes(scene.path)] == ["entered", "left"]


# --- closing --------------------------------------------------------------------------------------------------------


def test_closing_writes_syncs_and_answers(scene: Scene) -> None:
    waiting = [scene.commit("a"), scene.commit("b", synced=True)]
    scene.writer.close()
    assert [each.result() for each in waiting] == [True, True]
    assert scene.disk.calls == ["pwrite", "begin", "synced"]
    scene.writer.close()
    assert ids(scene.path) == ["a", "b"]
    scene.append("c")
    assert (scene.commit("d").result(), scene.journal.lost) == (False, 1)
    scene.turn()


def test_what_was_to_be_tried_again_ends_with_it(scene: Scene) -> None:
    scene.disk.fault = full
    scene.append("a")
    scene.writer.close()
    scene.disk.fault = well
    scene.disk.calls.clear()
    scene.journal._retry()
    scene.pass_time(10.0)
    assert scene.disk.calls == []


def test_closing_what_was_never_started(tmp_path: Path) -> None:
    disk = FaultyDisk()
    journal = Journal.open(settings(tmp_path), ["w0"], FakeSigner, disk=disk)
    journal.append(content("a"))
    asyncio.run(journal.close())
    assert (ids(tmp_path), disk.calls[-1], disk.fds) == (["a"], "sync", {})


def test_closing_in_an_outage_that_is_over(scene: Scene) -> None:
    scene.disk.fault = full
    scene.append("a")
    scene.turn()
    scene.disk.fault = well
    scene.writer.close()
    assert ids(scene.path) == ["a"]
    assert [action for action, _ in modes(scene.path)] == ["entered", "left"]


def test_closing_on_a_full_disk_says_what_is_lost(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.disk.fault = full
    waiting = [scene.commit("a"), scene.commit("b", synced=True)]
    scene.append("c")
    scene.writer.close()
    assert [each.result() for each in waiting] == [False, False]
    assert scene.journal.lost == 1
    assert "1 records are lost" in caplog.text


def test_closing_tries_a_failed_sync_once_more(scene: Scene) -> None:
    scene.append("a")
    scene.turn()
    scene.disk.fault = dead
    scene.writer.sync()
    scene.append("b")
    forget(segment(scene.path, 1))
    failures = [broken()]
    scene.disk.fault = lambda name, _: failures.pop() if name == "sync" and failures else None
    scene.writer.close()
    assert ids(scene.path) == ["a", "b"]
    assert scene.journal._chain.file.synced == scene.journal._chain.file.size


def test_closing_on_a_dead_disk_refuses_who_waits_for_it(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    synced = scene.commit("a", synced=True)
    scene.disk.fault = dead
    scene.writer.close()
    assert synced.result() is False
    assert "may not be on the disk" in caplog.text


# --- opening --------------------------------------------------------------------------------------------------------


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


def test_an_opening_that_fails_lets_go_of_the_lock(tmp_path: Path) -> None:
    disk = FaultyDisk(lambda name, number: broken() if name == "create" and number > 3 else None)
    with pytest.raises(OSError, match="Input/output error"):
        Journal.open(settings(tmp_path), ["w0"], FakeSigner, disk=disk)
    assert disk.fds == {}
