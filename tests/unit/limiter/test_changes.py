"""Changes behind a checkpoint: whatever is cut, or fails, what is loaded is what was kept, then or one save before."""

import errno
import os
import random
from functools import partial
from pathlib import Path

import pytest

from gateway.limiter import changes as module
from gateway.limiter.changes import CheckpointFiles
from gateway.limiter.checkpoint import At, Checkpoint, Damaged, Told, encoded, path_of
from gateway.limiter.recorded import Key
from gateway.limiter.replay import Ledger, fact_of
from gateway.record import Kind, Record
from tests.fakes.limit_records import BUDGET, MINUTE, NOON_MS, decision, outcome

NODE = "a" * 32
USD = ("budget|org=a", BUDGET)
TPM = ("tpm|key=k", MINUTE)
BEGAN = Record(Kind.CHECKPOINT, "", NOON_MS * 1000, action="began")
Shape = dict[str, object]


def shape(checkpoint: Checkpoint) -> Shape:
    """All that is kept, without order."""
    ledger = checkpoint.ledger
    return {
        "header": (checkpoint.at_us, checkpoint.epoch, checkpoint.epoch_us, checkpoint.seen_us, checkpoint.places),
        "told": dict(checkpoint.told),
        "accounts": {key: (account.row, account.spec) for key, account in ledger.accounts.items()},
        "holds": {
            hold: (held.chain, held.at_ms, dict(held.charges), held.dead, held.due)
            for hold, held in ledger.holds.items()
        },
        "forgotten": dict(ledger.forgotten),
    }


class Node:
    """A ledger that goes on, and is kept."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = path_of(tmp_path)
        self.files = CheckpointFiles(self.path, NODE)
        self.ledger = Ledger()
        self.told: dict[str, Told] = {}
        self.at_us = 0
        self.kept: list[Shape] = []

    @property
    def checkpoint(self) -> Checkpoint:
        places = {"w0": At(1, self.at_us, self.at_us)}
        return Checkpoint(
            node=NODE, at_us=self.at_us, epoch="e", epoch_us=3, seen_us=self.at_us, places=places, told=self.told,
            ledger=self.ledger,
        )  # fmt: skip

    def fold(self, *records: Record) -> None:
        for record in records:
            fact = fact_of(record)
            assert fact is not None
            self.ledger.take("w0", fact)

    def save(self, told: dict[str, Told] | None = None, *, anew: bool = False) -> None:
        self.at_us, told = self.at_us + 1, told or {}
        self.told |= told
        self.files.write(self.files.encoded(self.checkpoint, told, anew=anew))
        self.kept.append(shape(self.checkpoint))

    def loaded(self) -> Shape:
        found = CheckpointFiles(self.path, NODE).load()
        assert found is not None
        assert found.unread == 0
        return shape(found.checkpoint)

    def live_a_little(self) -> None:
        """A whole, and four lines with everything that a line can say."""
        self.fold(decision("h", NOON_MS, {USD: 5, TPM: 70}), decision("g", NOON_MS, {TPM: 8}))
        self.save()
        self.fold(outcome("h", NOON_MS + 9, {USD: 3, TPM: 20}))
        self.save({"budget": Told(BUDGET.start_ms, 70)})
        self.fold(decision("i", NOON_MS + 10, {USD: 1}), BEGAN)
        self.save()
        self.fold(decision("short", NOON_MS + 11, {USD: 2}), outcome("short", NOON_MS + 11, {USD: 2}))
        self.save()
        self.ledger.laid_to_rest(["g"])
        self.fold(outcome("i", NOON_MS + 12, {USD: 4}))
        self.save()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_there_is_nothing_at_first(node: Node) -> None:
    assert node.files.load() is None
    assert not node.files.is_whole


def test_changes_come_back_with_what_they_changed(node: Node) -> None:
    node.live_a_little()
    assert node.loaded() == node.kept[-1]
    assert node.files.changes.read_bytes().count(b"\n") == 4
    assert node.files.changes.stat().st_mode & 0o777 == 0o600
    before = node.files.is_whole
    node.save(anew=True)
    assert (before, node.files.is_whole) == (False, True)
    assert node.path.read_bytes() == encoded(node.checkpoint)
    assert node.loaded() == node.kept[-1]


def test_little_is_written_where_little_has_changed(node: Node) -> None:
    for number in range(1_000):
        node.fold(outcome(f"o{number}", NOON_MS, {(f"b|key={number}", BUDGET): 1}))
    node.save()
    node.fold(outcome("o", NOON_MS, {("b|key=7", BUDGET): 1}))
    node.save()
    assert node.path.stat().st_size > 50_000
    assert node.files.changes.stat().st_size < 500
    assert node.loaded() == node.kept[-1]


def test_what_changes_more_than_some_rows_is_kept_whole(node: Node) -> None:
    for change in (partial(node.ledger.forget, ["budget"], NOON_MS + 20), node.ledger.disturb):
        node.live_a_little()
        change()
        node.save()
        assert node.files.is_whole
        assert node.loaded() == node.kept[-1]


def test_once_the_changes_are_as_much_as_the_checkpoint_it_is_replaced(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 1_500)
    whole = 0
    for number in range(60):
        node.fold(outcome(f"o{number}", NOON_MS, {USD: number, TPM: 3}))
        node.save()
        assert node.loaded() == node.kept[-1]
        assert node.files.changes.stat().st_size < 2_000 if node.files.changes.exists() else number == 0
        whole += node.files.is_whole
    assert 3 < whole < 20


def test_wherever_it_is_cut_it_is_one_that_was_kept(node: Node) -> None:
    node.live_a_little()
    lines = node.files.changes.read_bytes()
    seen = list[Shape]()
    for at in range(len(lines) + 1):
        node.files.changes.write_bytes(lines[:at])
        seen.append(node.loaded())
        assert seen[-1] in node.kept
        assert seen[-1] == node.kept[lines[:at].count(b"\n")]
    assert (seen[0], seen[-1]) == (node.kept[0], node.kept[-1])


def test_a_byte_that_changed_ends_what_is_believed_and_is_told(node: Node) -> None:
    node.live_a_little()
    lines = node.files.changes.read_bytes()
    for at in range(len(lines)):
        damaged = lines[:at] + bytes([lines[at] ^ 1]) + lines[at + 1 :]
        node.files.changes.write_bytes(damaged)
        found = node.files.load()
        assert found is not None
        read = lines[:at].count(b"\n")
        assert shape(found.checkpoint) == node.kept[read]
        assert found.unread == (damaged.count(b"\n") - read if read else 0)


def test_changes_of_an_older_checkpoint_are_none_of_the_newer(node: Node) -> None:
    node.live_a_little()
    older = node.files.changes.read_bytes()
    node.fold(outcome("o", NOON_MS, {USD: 9}))
    node.save(anew=True)
    assert node.files.changes.read_bytes() == older  # as after a crash: nothing happens to both at once
    assert node.loaded() == node.kept[-1]
    node.fold(outcome("p", NOON_MS, {USD: 9}))
    node.save()
    assert node.files.changes.read_bytes().count(b"\n") == 1
    assert node.loaded() == node.kept[-1]


@pytest.mark.parametrize("name", ["open", "pwrite", "fdatasync", "fsync"])
def test_what_cannot_be_written_is_kept_whole_the_next_time(
    node: Node, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    node.live_a_little()
    before, real = node.kept[-1], getattr(os, name)
    node.fold(outcome("o", NOON_MS, {USD: 9}))
    if name == "fsync":  # of the directory, where the first line of changes begins a file
        node.save(anew=True)
        before = node.kept[-1]
        node.fold(outcome("p", NOON_MS, {USD: 9}))

    def fails(*given: object) -> int:
        if name == "pwrite":  # the disk is full in the middle of the line
            real(given[0], bytes(given[1])[:7], given[2])  # type: ignore[call-overload]
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fails)
        with pytest.raises(OSError, match="Input/output"):
            node.save()
    assert node.loaded() in (before, shape(node.checkpoint))
    broken = node.files.is_whole
    node.save()
    assert (broken, node.files.is_whole) == (False, True)
    assert node.loaded() == node.kept[-1]
    node.save()
    assert node.loaded() == node.kept[-1]


def test_changes_that_were_taken_and_never_written_are_kept_whole_the_next_time(node: Node) -> None:
    node.live_a_little()
    node.fold(outcome("o", NOON_MS, {USD: 9}))
    node.files.encoded(node.checkpoint, {})
    node.save()
    assert node.files.is_whole
    assert node.loaded() == node.kept[-1]


def test_a_file_that_somebody_took_away_costs_a_whole_one(node: Node) -> None:
    node.live_a_little()
    node.files.changes.unlink()
    with pytest.raises(FileNotFoundError):
        node.save()
    node.save()
    assert node.loaded() == node.kept[-1]


def test_a_line_that_fits_and_cannot_be_read_is_damage(node: Node) -> None:
    node.live_a_little()
    content = b'{"of": "another build"}'
    digest = module._chained(node.files._digest, content)
    with node.files.changes.open("ab") as file:
        file.write(b"%b %b\n" % (digest, content))
    with pytest.raises(Damaged, match="changes: "):
        node.files.load()


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_it_is_what_was_kept(node: Node, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 3_000)
    dice, number, now_ms = random.Random(seed), 0, NOON_MS
    buckets = [USD, TPM, ("b|key=1", BUDGET), ("r|key=2", MINUTE)]
    for _ in range(120):
        number, now_ms, act = number + 1, now_ms + dice.choice((0, 5, 700)), dice.random()
        if act < 0.3:
            node.fold(decision(f"h{number}", now_ms, {dice.choice(buckets): dice.randrange(90)}))
        elif act < 0.6:
            hold = dice.choice([*node.ledger.holds, "unheard of"])
            node.fold(outcome(hold, now_ms, {dice.choice(buckets): dice.randrange(90)}))
        elif act < 0.64:
            node.fold(BEGAN)
        elif act < 0.68:
            node.ledger.laid_to_rest(dice.sample([*node.ledger.holds], len(node.ledger.holds) // 2))
        elif act < 0.7:
            node.ledger.forget([dice.choice(["budget", "r"])], now_ms)
        else:
            node.save({f"t{dice.randrange(3)}": Told(now_ms, 70)} if act > 0.95 else {})
            assert node.loaded() == node.kept[-1]
    node.ledger.prune(now_ms)
    node.save()
    kept, found = node.kept[-1]["accounts"], node.loaded()["accounts"]
    assert isinstance(kept, dict)
    assert isinstance(found, dict)
    stale = {key: row for key, row in found.items() if key not in kept}
    assert {key: row for key, row in found.items() if key in kept} == kept
    assert all(isinstance(key, Key) and key.kind == MINUTE.kind for key in stale)  # refilled: pruned again
