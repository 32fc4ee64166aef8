"""Kill retention at the Nth thing it, or the notary beside it, does to the disk: no gap is ever without its signature.

A kill is an exception that nothing handles. At that very moment, and after each later step, everything that is missing
lies below a floor that is signed and on the disk; another process then finishes, and `verify` finds nothing wrong.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.control.expiry import RetentionSettings
from gateway.control.holds import Holds
from gateway.control.idle import IdleChains
from gateway.control.notary import Notary
from gateway.control.readers.base import Cursor
from gateway.control.retention import Retention
from gateway.journal import layout
from gateway.journal.line import record_of
from gateway.journal.manifest import last_manifest
from gateway.journal.read import entries
from gateway.journal.signing import load_signer, public_keys
from gateway.journal.verify import verify
from gateway.record import Kind, Record
from gateway.units import US_PER_S
from tests.fakes.written_journal import WrittenJournal

DAY_US = 86_400 * US_PER_S
NOW_US = 100 * DAY_US
KEEP_DAYS = 30
CALLS = ("open", "unlink", "fsync", "fdatasync", "pwrite", "rename", "replace")
MOST_CALLS = 300
OLD, NEW = (10, 20), (90,)
KEPT = {"w0": [3], "w1": [3], "control": [2]}


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Steps:
    """Counts what is done, and ends the process, or fails, at the nth."""

    def __init__(self, nth: int, effect: Callable[[], BaseException]) -> None:
        self.left = nth
        self._effect = effect

    @property
    def hit(self) -> bool:
        return self.left <= 0

    def step(self) -> None:
        """Something is about to be done."""
        self.left -= 1
        if self.left == 0:
            raise self._effect()
        if self.left < 0 and isinstance(self._effect(), Killed):
            raise Killed

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Count the calls to the disk as well."""
        with ExitStack() as stack:
            for name in CALLS:
                stack.enter_context(mock.patch.object(os, name, self._counted(getattr(os, name))))
            yield

    def _counted(self, real: Callable[..., Any]) -> Callable[..., object]:
        def call(*given: Any, **more: Any) -> object:
            self.step()
            return real(*given, **more)

        return call


NEVER = Steps(10**9, Killed)


class Process:
    """A control process: the notary, and retention beside it."""

    def __init__(
        self, journal: WrittenJournal, steps: Steps = NEVER, now_us: Callable[[], int] = lambda: NOW_US
    ) -> None:
        self.journal = journal
        self.steps = steps
        self.notary = Notary(journal.path, layout.signing_of(journal.state_dir), now_us)
        self.retention = Retention(
            journal.state_dir,
            RetentionSettings(10**12, KEEP_DAYS),
            self.notary,
            lambda: {"usage": self.notary.signed},
            self.append,
            Holds(journal.path, lambda _: None, now_us),
            now_us,
        )

    def append(self, content: bytes) -> None:
        """As control's journal does, which may die before and after."""
        self.steps.step()
        self.journal.chain("control").add(record_of(b'{"seq":0,' + content[1:-1]))
        self.steps.step()

    def run(self) -> None:
        for _ in range(3):
            self.notary.turn()
            check(self.journal)
            self.retention.turn()
            check(self.journal)

    def die(self) -> None:
        """What the kernel does with the files of a process."""
        if self.notary._manifests is not None:
            self.notary._manifests.close()
        for tail in self.notary._tails.values():
            tail.close()


def check(journal: WrittenJournal) -> None:
    """Whatever is missing lies below a signed floor, and was recorded before."""
    last = last_manifest(journal.path)
    floors = {floor.chain: floor for floor in last.floors} if last is not None else {}
    for name, chain in journal.chains.items():
        first = floors[name].segment if name in floors else 1
        there = layout.segments(journal.path, name)
        assert set(range(first, chain.number + 1)) <= set(there), name
        assert there == list(range(there[0], chain.number + 1)), "the oldest went first"
        recorded = {record.subject for record in dropped(journal)}
        assert {f"{name}/{number}" for number in range(1, first)} <= recorded


def dropped(journal: WrittenJournal) -> list[Record]:
    return [entry.record for entry in entries(journal.path, "control") if entry.record.action == "dropped"]


def check_end(journal: WrittenJournal) -> None:
    """All that should be gone is; records and floors say the same; and the rest is proved."""
    last = last_manifest(journal.path)
    assert last is not None
    assert {chain: layout.segments(journal.path, chain) for chain in KEPT} == KEPT
    told: dict[str, dict[str, Any]] = {record.subject: json.loads(record.detail) for record in dropped(journal)}
    for floor in last.floors:
        newest_gone = told[f"{floor.chain}/{floor.segment - 1}"]
        assert (newest_gone["last_seq"] + 1, newest_gone["head"]) == (floor.seq, floor.head)
    assert sorted(told) == ["control/1", *(f"{chain}/{n}" for chain in ("w0", "w1") for n in (1, 2))]
    report = verify(journal.path, public_keys(layout.signing_of(journal.state_dir)), pause=lambda _: None)
    assert report.findings == []
    assert not list(journal.path.glob("w0/torn-*"))


@pytest.fixture
def journal(tmp_path: Path) -> Callable[[int], WrittenJournal]:
    def made(number: int) -> WrittenJournal:
        journal = WrittenJournal(tmp_path / f"state{number}")
        for name in ("w0", "w1"):
            for day in (*OLD, *NEW):
                at_us = day * DAY_US
                journal.chain(name).segment(at_us, *(Record(Kind.OUTCOME, f"x{n}", at_us) for n in range(2)))
        journal.chain("control").segment(10 * DAY_US)
        journal.chain("control").segment(99 * DAY_US)
        for name in ("torn-1-10", "torn-2-5"):
            (journal.path / "w0" / name).write_bytes(b"half a line")
        return journal

    return made


def test_the_scene_without_faults(journal: Callable[[int], WrittenJournal]) -> None:
    found = journal(0)
    process = Process(found)
    process.run()
    process.notary.close()
    check_end(found)
    assert len(dropped(found)) == 5, "each said once"
    assert process.retention.failing == ""


def test_killed_at_any_step(journal: Callable[[int], WrittenJournal]) -> None:
    for nth in range(1, MOST_CALLS):
        found = journal(nth)
        process = Process(found, Steps(nth, Killed))
        with process.steps.playing(), suppress(Killed):
            process.run()
        process.die()
        if not process.steps.hit:
            break
        check(found)
        second = Process(found)
        second.run()
        second.notary.close()
        check_end(found)
    else:
        raise AssertionError("there were more steps than this test takes")
    assert nth > 30


def test_a_fault_at_any_step_is_outlived(journal: Callable[[int], WrittenJournal]) -> None:
    for nth in range(1, MOST_CALLS):
        found = journal(nth)
        process = Process(found, Steps(nth, lambda: OSError(errno.EIO, "broken")))
        with process.steps.playing():
            process.run()
            process.run()
            process.notary.close()
        check_end(found)
        if not process.steps.hit:
            break
    else:
        raise AssertionError("there were more steps than this test takes")
    assert nth > 30


def test_what_a_reader_had_passed_is_all_that_went(journal: Callable[[int], WrittenJournal]) -> None:
    """A cursor as readers keep it, after everything before it is gone: it still leads to the next line."""
    found = journal(0)
    process = Process(found)
    process.notary.turn()
    cursors = {chain: Cursor(place, 0) for chain, place in process.notary.signed.items()}
    process.run()
    process.notary.close()
    found.chain("w0").add(Record(Kind.OUTCOME, "next", NOW_US))
    (entry,) = entries(found.path, "w0", cursors["w0"].place)
    assert entry.record.exchange_id == "next"


def test_over_many_days_nothing_piles_up(tmp_path: Path) -> None:
    """A worker's chain, control's, and one whose worker is gone: after keep_days neither grows, nor do manifests."""
    found, now_us = WrittenJournal(tmp_path / "state"), [NOW_US]
    process = Process(found, now_us=lambda: now_us[0])
    signing = layout.signing_of(found.state_dir)
    idle = IdleChains(found.path, "eu", 1.0, lambda: load_signer(signing), lambda: now_us[0])
    found.chain("w2").segment(NOW_US, Record(Kind.OUTCOME, "x", NOW_US))
    with mock.patch("time.time_ns", mock.Mock(side_effect=lambda: now_us[0] * 1000)):
        for _ in range(KEEP_DAYS + 15):
            for name in ("w0", "control"):
                found.chain(name).segment(now_us[0], Record(Kind.OUTCOME, "x", now_us[0]))
            idle.turn()
            for _ in range(2):
                process.notary.turn()
                process.retention.turn()
            now_us[0] += DAY_US + 1
    process.notary.close()
    most = KEEP_DAYS + 2
    assert {chain: len(layout.segments(found.path, chain)) <= most for chain in layout.chains(found.path)} == {
        "w0": True, "w2": True, "control": True,
    }  # fmt: skip
    assert len(layout.manifest_files(found.path)) <= most
    report = verify(found.path, public_keys(signing), pause=lambda _: None)
    assert report.findings == []
