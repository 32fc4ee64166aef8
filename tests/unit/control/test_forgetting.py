"""What the config does not have any more is forgotten: all of it, once, and never what is in force."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance, Limits, Rule
from gateway.config.schema import Config
from gateway.control.forgetting import AGAIN_US, Books, Forgetting, Memories
from gateway.journal.line import body_of, record_of
from gateway.limiter.checkpoint import Told
from gateway.limiter.engine import Amount, Reason, Unavailable
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.replay import Fact, What, fact_of
from gateway.limiter.slicerows import SliceRows
from gateway.limiter.spec import Kind, Spec
from gateway.limiter.table import Table
from tests.fakes.limit_records import BUDGET, MINUTE, NOON_MS, decision, outcome
from tests.fakes.limit_table import Moment, memory, table
from tests.fakes.limits_node import SECOND_US, Bucket, LimitsNode

if TYPE_CHECKING:
    from gateway.record import Record

WORDS, PACE, WHOLE = ("words|key=a", BUDGET), ("pace|key=a", MINUTE), ("whole", BUDGET)
OF_KEY, OF_TEAM = ("key.rpm|key=a%7Cb", MINUTE), ("team.tpm|team=acme/a%2Fb", MINUTE)
ALL = (WORDS, PACE, WHOLE, OF_KEY, OF_TEAM)
RULES = (Rule(name="words", tokens=9, every="day"), Rule(name="pace", requests=9, every="day"))
CONFIG = Config(
    limits=Limits(rules=(*RULES, Rule(name="whole", usd=9, every="day"))), teams={"a/b": Allowance(tpm=9, rpm=9)}
)
KEYS = [KeyRecord(b"", "a|b", allowance=Allowance(rpm=9)), KeyRecord(b"", "other", allowance=Allowance(rpm=9, tpm=9))]


class FakeJournal:
    """Says of each record whether it is on the disk."""

    def __init__(self) -> None:
        self.written: list[Record] = []
        self.works = True

    async def commit(self, content: bytes, *, synced: bool) -> bool:
        assert synced
        if self.works:
            self.written.append(record_of(body_of(0, content)))
        return self.works


class FakeStore:
    """Forgets what it is told to, unless it is away."""

    def __init__(self) -> None:
        self.forgotten: list[tuple[Kind, str]] = []
        self.away = False

    async def forget(self, buckets: Sequence[tuple[Kind, str]]) -> int:
        if self.away:
            raise Unavailable(Reason.DOWN)
        self.forgotten += buckets
        return len(buckets)


class Node:
    """A node whose buckets have all been used; `kept`: it has a journal, `stored`: and a store."""

    def __init__(self, state_dir: Path, *, kept: bool = True, stored: bool = False) -> None:
        self.node = LimitsNode(state_dir)
        self.table = table(memory(), Moment(NOON_MS), kind=Table)
        self.journal, self.store = FakeJournal(), FakeStore()
        self.keys: list[KeyRecord] | None = KEYS
        self.adopted = True
        self.books = Books(cast("Any", self.journal), self.node.reader)
        self.memories = Memories(self.table, cast("Any", self.store) if stored else None)
        self.kept = kept
        self.use("h", *ALL)
        self.begin(CONFIG)
        self.turn()

    def begin(self, config: Config) -> None:
        """Control begins."""
        books = self.books if self.kept else None
        self.forgetting = Forgetting(
            config, lambda: self.keys, self.memories, lambda: self.adopted, books, lambda: self.node.now_us
        )

    def use(self, hold: str, *buckets: Bucket) -> None:
        """A request uses 100 of each."""
        self.table.settle(hold, [Amount(*bucket, 100) for bucket in buckets])
        if self.kept:
            self.node.write(outcome(hold, self.node.now_us // 1000, dict.fromkeys(buckets, 100)))
            self.node.runner.step()
        self.node.pass_us(1_000)

    def turn(self) -> None:
        self.node.pass_us(1_000)
        try:
            asyncio.run(self.forgetting.turn())
        finally:
            self.node.pass_us(1_000)

    def changed(self, config: Config, keys: list[KeyRecord] | None = KEYS) -> None:
        """A reload."""
        self.keys = keys
        self.forgetting.follow(config)

    @property
    def used(self) -> set[str]:
        """What the table has of these."""
        return {name for name, spec in ALL if self.table.peek([Amount(name, spec, 0)])[0].level < spec.limit}

    @property
    def told(self) -> list[Fact]:
        return [fact for record in self.journal.written if (fact := fact_of(record)) is not None]

    @property
    def counted(self) -> set[str]:
        return {found.bucket for found in self.node.reader.standing().used}


def without(*names: str) -> Config:
    rules = tuple(rule for rule in CONFIG.limits.rules if rule.name not in names)
    return replace(CONFIG, limits=Limits(rules=rules))


NAMES = {name for name, _ in ALL}


def test_what_is_in_force_is_kept(tmp_path: Path) -> None:
    node = Node(tmp_path)
    limits = Limits(rules=tuple(replace(rule, shadow=True) for rule in CONFIG.limits.rules))
    node.changed(replace(CONFIG, limits=limits, teams={"a/b": Allowance(tpm=1)}))
    node.turn()
    assert (node.used, node.counted, node.journal.written, node.forgetting.forgotten) == (NAMES, NAMES, [], 0)


@pytest.mark.parametrize(
    ("config", "keys", "gone"),
    [
        (without("words"), KEYS, WORDS),
        (without("whole"), KEYS, WHOLE),
        (replace(CONFIG, teams={"a/b": Allowance(rpm=9)}), KEYS, OF_TEAM),
        (replace(CONFIG, teams={"b": Allowance(tpm=9)}), KEYS, OF_TEAM),
        (CONFIG, KEYS[1:], OF_KEY),
        (CONFIG, [replace(KEYS[0], allowance=Allowance(tpm=9))], OF_KEY),
        (CONFIG, [replace(KEYS[0], allowance=None)], OF_KEY),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_what_is_removed_is_forgotten_alone(
    tmp_path: Path, config: Config, keys: list[KeyRecord], gone: Bucket, *, kept: bool
) -> None:
    node = Node(tmp_path, kept=kept)
    node.changed(config, keys)
    node.turn()
    assert node.used == NAMES - {gone[0]}
    node.changed(CONFIG)
    node.turn()
    assert (node.used, node.forgetting.forgotten) == (NAMES - {gone[0]}, 1)
    if kept:
        assert node.counted == NAMES - {gone[0]}
        (told,) = node.told
        subject = gone[0] if "." in gone[0] else gone[0].partition("|")[0]
        assert (told.what, told.subjects) == (What.FORGOTTEN, (subject,))


@pytest.mark.parametrize("reloaded", [True, False])
def test_a_removal_that_comes_in_the_middle_of_a_turn_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reloaded: bool
) -> None:
    node = Node(tmp_path)
    if reloaded:
        node.changed(CONFIG)
    else:
        node.node.pass_us(AGAIN_US)
    forgetting, subjects = node.forgetting, node.forgetting._subjects

    def removed_meanwhile() -> set[str]:
        node.changed(without("words"))
        return subjects()

    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "_subjects", removed_meanwhile)
        node.turn()
    node.turn()
    node.turn()
    assert [fact.subjects for fact in node.told] == [("words",)]
    assert (node.used, forgetting.forgotten) == (NAMES - {WORDS[0]}, 1)


def test_a_key_that_is_disabled_is_not_removed(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.changed(CONFIG, [replace(KEYS[0], disabled=True)])
    node.turn()
    node.changed(CONFIG, None)
    node.turn()
    assert node.used == NAMES


def test_nothing_is_forgotten_before_every_worker_has_the_config(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.adopted = False
    node.changed(without("words"), KEYS[1:])
    node.turn()
    assert (node.used, node.journal.written) == (NAMES, [])
    node.changed(CONFIG)  # put back before: it was removed all the same
    node.turn()
    node.adopted = True
    node.turn()
    assert node.used == NAMES - {WORDS[0], OF_KEY[0]}


def test_what_was_removed_while_control_was_dead_is_forgotten(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.begin(without("words", "pace"))
    node.turn()
    assert node.used == NAMES - {WORDS[0], PACE[0]}
    assert [(record.subject, record.actor) for record in node.journal.written] == [
        ("pace", "gateway"),
        ("words", "gateway"),
    ]


def test_in_a_store_buckets_are_forgotten_by_the_names_that_the_journal_has(tmp_path: Path) -> None:
    node = Node(tmp_path, stored=True)
    long = ("words|key=" + "x" * 300, BUDGET)
    node.node.write(outcome("only the store has counted it", node.node.now_us // 1000, {long: 5}))
    node.node.runner.step()
    node.changed(without("words"))
    node.turn()
    assert node.store.forgotten == [(Kind.WINDOW, WORDS[0]), (Kind.WINDOW, long[0])]
    assert node.counted == NAMES - {WORDS[0]}


def test_a_store_that_is_away_keeps_everything_until_it_is_back(tmp_path: Path) -> None:
    node = Node(tmp_path, stored=True)
    node.store.away = True
    node.changed(without("words"))
    for _ in range(2):
        with pytest.raises(Unavailable):
            node.turn()
    assert (node.used, node.counted, node.journal.written) == (NAMES, NAMES, [])
    node.store.away = False
    node.turn()
    assert (node.used, node.counted, len(node.told)) == (NAMES - {WORDS[0]}, NAMES - {WORDS[0]}, 1)


def test_a_journal_that_cannot_be_written_is_told_later_and_nothing_is_emptied_twice(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.journal.works = False
    node.changed(without("words"))
    at_ms = node.node.now_us // 1000 + 1
    with pytest.raises(OSError, match="the journal cannot be written"):
        node.turn()
    assert (node.used, node.counted) == (NAMES - {WORDS[0]}, NAMES)
    node.changed(CONFIG)
    node.use("h2", WORDS)
    with pytest.raises(OSError, match="the journal cannot be written"):
        node.turn()
    assert node.used == NAMES
    node.journal.works = True
    node.turn()
    (told,) = node.told
    assert (told.at_ms, node.used) == (at_ms, NAMES)


def test_thresholds_are_told_anew(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for name in (WORDS[0], WHOLE[0]):
        node.node.reader.tell(name, Told(BUDGET.start_ms, 70))
    node.changed(without("words"))
    node.turn()
    assert node.node.reader.told == {WHOLE[0]: Told(BUDGET.start_ms, 70)}


def test_what_is_charged_of_it_afterwards_is_forgotten_as_well_while_it_is_gone(tmp_path: Path) -> None:
    node = Node(tmp_path)
    at_ms = node.node.now_us // 1000
    node.node.write(decision("long", at_ms, {WORDS: 10}))
    node.node.runner.step()
    node.node.pass_us(1_000)
    node.changed(without("words"))
    node.turn()
    node.use("long", WORDS)
    assert node.used == NAMES
    node.turn()
    assert (node.used, node.counted) == (NAMES - {WORDS[0]}, NAMES - {WORDS[0]})
    node.changed(CONFIG)
    node.turn()
    node.use("anew", WORDS)
    node.turn()
    assert (node.used, node.counted, len(node.told)) == (NAMES, NAMES, 2)


def test_what_was_not_read_yet_is_found_a_little_later(tmp_path: Path) -> None:
    node = Node(tmp_path, stored=True)
    other = ("key.rpm|key=gone", MINUTE)
    node.changed(CONFIG)
    node.turn()
    node.node.write(outcome("unread", node.node.now_us // 1000, {other: 60_000_000}))
    node.node.runner.step()
    node.turn()
    assert node.store.forgotten == []
    node.node.pass_us(AGAIN_US)
    node.turn()
    assert node.store.forgotten == [(Kind.RATE, other[0])]
    node.turn()
    assert len(node.told) == 1


def test_many_are_told_in_few_records(tmp_path: Path) -> None:
    node = Node(tmp_path)
    names = [f"key.tpm|key={number:03}" for number in range(200)]
    node.use("many", *((name, MINUTE) for name in names))
    node.changed(CONFIG)
    node.turn()
    assert [len(fact.subjects) for fact in node.told] == [128, 72]
    assert sorted(name for fact in node.told for name in fact.subjects) == names
    assert node.used == node.counted == NAMES


@pytest.mark.parametrize("spec", [MINUTE, BUDGET])
def test_what_a_node_has_leased_is_no_bucket(tmp_path: Path, spec: Spec) -> None:
    node = Node(tmp_path, kept=False)
    slices = SliceRows(node.table)
    place = slices.open("words|key=a", spec, 7)
    assert place is not None
    before = node.table.peek([Amount(place.bucket, place.spec, 0)])
    node.changed(replace(without("words", "pace", "whole"), teams={}), [])
    node.turn()
    assert node.used == set()
    assert node.table.peek([Amount(place.bucket, place.spec, 0)]) == before
    assert before[0].level == 0


def test_rows_that_do_not_tell_whose_they_are_are_left_alone(tmp_path: Path) -> None:
    node = Node(tmp_path, kept=False)
    kept = ("key.rpm|key=" + "x" * 300, "y" * 300)
    gone = ("unknown|key=" + "x" * 300, "unknown")
    node.use("h2", *((name, MINUTE) for name in (*kept, *gone)))
    node.changed(CONFIG)
    node.turn()
    left = {name: node.table.peek([Amount(name, MINUTE, 0)])[0].level for name in (*kept, *gone)}
    assert [left[name] < MINUTE.limit for name in (*kept, *gone)] == [True] * 2 + [False] * 2


@pytest.mark.parametrize(("error", "reason"), [(MutexBusy("x"), Reason.BUSY), (MutexLost("x"), Reason.DOWN)])
def test_a_table_that_cannot_be_had_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason
) -> None:
    node = Node(tmp_path)
    node.changed(without("words"))

    def locked() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(node.table, "locked", locked)
        with pytest.raises(Unavailable) as caught:
            node.turn()
        assert caught.value.reason is reason
    node.turn()
    assert node.used == NAMES - {WORDS[0]}


def test_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(tmp_path)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "gateway.limits"):
        node.changed(replace(without("words", "pace", "whole"), teams={}))
        node.turn()
    assert caplog.messages == [
        "limits: the config has no pace, team.tpm|team=acme/a%2Fb, whole, … any more: what was used of it is forgotten"
    ]


def test_a_rebuild_from_the_journal_does_not_bring_it_back(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.changed(without("words"))
    node.turn()
    control = node.node.journal.chain("control")
    control.segment(node.node.now_us, *node.journal.written)
    node.use("h2", WHOLE)
    for delete in (False, True):
        if delete:
            node.node.reader.path.unlink()
        node.node.start_control()
        node.node.pass_us(SECOND_US)
        node.node.reader.rebuild(node.node.now_us)
        assert [(found.bucket, found.used) for found in node.node.reader.standing().used] == [(WHOLE[0], 200)]
