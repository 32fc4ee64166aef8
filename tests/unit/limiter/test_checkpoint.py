"""A checkpoint comes back as it was, is whole or the one before, and is believed only when all of it is there."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from gateway.limiter import checkpoint as module
from gateway.limiter.checkpoint import At, Checkpoint, Damaged, Told, decoded, digest_of, encoded, path_of, write
from gateway.limiter.replay import Ledger, fact_of
from tests.fakes.limit_records import BUDGET, MINUTE, NOON_MS, decision, outcome

NODE = "a" * 32
USD = ("budget|org=a", BUDGET)
TPM = ("tpm|key=k", MINUTE)


def ledger() -> Ledger:
    made = Ledger()
    for record in (
        decision("h", NOON_MS, {USD: 5, TPM: 70_000}),
        decision("g", NOON_MS + 3, {TPM: 8}),
        outcome("o", NOON_MS + 9, {USD: 3}),
    ):
        fact = fact_of(record)
        assert fact is not None
        made.take("w0", fact)
    made.forget(["gone", "key.rpm|key=k"], NOON_MS)
    made.holds["g"].dead = made.holds["g"].due = True
    return made


def checkpoint(at_us: int = 7) -> Checkpoint:
    return Checkpoint(
        node=NODE,
        at_us=at_us,
        epoch="e1",
        epoch_us=5,
        seen_us=6,
        places={"w0": At(3, 999, 41, 2)},
        told={USD[0]: Told(BUDGET.start_ms, 70)},
        ledger=ledger(),
    )


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return encoded(one) == encoded(other)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    write(path, encoded(checkpoint()))
    found = decoded(path.read_bytes(), NODE)
    assert same(found, checkpoint())
    assert (found.epoch, found.epoch_us, found.seen_us, found.at_us, found.places["w0"].seq) == ("e1", 5, 6, 7, 41)
    assert found.ledger.forgotten == {"gone": NOON_MS, "key.rpm|key=k": NOON_MS}
    assert [(hold, held.dead, held.due) for hold, held in found.ledger.holds.items()] == [
        ("h", False, False),
        ("g", True, True),
    ]
    assert list(found.ledger.used(NOON_MS + 9)) == list(ledger().used(NOON_MS + 9))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_goes_on_as_the_one_that_was_kept() -> None:
    found, kept = decoded(encoded(checkpoint()), NODE).ledger, ledger()
    for each in (found, kept):
        for record in (outcome("h", NOON_MS + 20, {USD: 1}), outcome("g", NOON_MS + 21, {})):
            fact = fact_of(record)
            assert fact is not None
            each.take("w0", fact)
    assert list(found.used(NOON_MS + 30)) == list(kept.used(NOON_MS + 30))


def test_one_of_an_earlier_build_goes_on() -> None:
    said = json.loads(encoded(checkpoint()).split(b"\n")[0])
    del said["epoch_us"], said["forgotten"]
    said["holds"] = [held[:5] for held in said["holds"]]
    content = json.dumps(said).encode()
    found = decoded(b"%b\n%b\n" % (content, hashlib.sha256(content).hexdigest().encode()), NODE)
    assert (found.epoch, found.epoch_us, found.ledger.forgotten) == ("e1", 0, {})
    assert [(held.dead, held.due) for held in found.ledger.holds.values()] == [(False, False), (True, False)]


def test_a_file_ends_with_its_digest() -> None:
    content, digest, _ = encoded(checkpoint()).split(b"\n")
    assert digest_of(encoded(checkpoint())) == digest == hashlib.sha256(content).hexdigest().encode()


def test_a_hold_of_which_nothing_is_left_is_kept_without_charges() -> None:
    late = ledger()
    late.prune(BUDGET.end_ms)
    found = decoded(encoded(Checkpoint(node=NODE, ledger=late)), NODE)
    assert found.ledger.accounts == {}
    assert found.ledger.holds["h"].charges == {}


def test_any_byte_that_was_lost_or_changed_is_noticed() -> None:
    raw = encoded(checkpoint())
    for at in range(len(raw)):
        with pytest.raises(Damaged):
            decoded(raw[:at], NODE)
        with pytest.raises(Damaged):
            decoded(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], NODE)


def test_a_checkpoint_of_another_node_or_version_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encoded(checkpoint())
    with pytest.raises(Damaged, match="and node a"):
        decoded(raw, "b" * 32)
    monkeypatch.setattr(module, "VERSION", 2)
    with pytest.raises(Damaged, match="of version 1 and"):
        decoded(raw, NODE)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", b'{"v":1}'])
def test_a_file_of_something_else_is_no_checkpoint(content: bytes) -> None:
    raw = content + b"\n" + hashlib.sha256(content).hexdigest().encode() + b"\n"
    with pytest.raises(Damaged):
        decoded(raw, NODE)


@pytest.mark.parametrize("name", ["private_directory", "replacing"])
def test_a_write_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = path_of(tmp_path)
    write(path, encoded(checkpoint(1)))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, name, refuse)
    with pytest.raises(OSError, match="No space"):
        write(path, encoded(checkpoint(2)))
    assert decoded(path.read_bytes(), NODE).at_us == 1


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_disk_that_fails_on_the_way_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = path_of(tmp_path)
    write(path, encoded(checkpoint(1)))

    def refuse(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="Input/output"):
            write(path, encoded(checkpoint(2)))
    assert decoded(path.read_bytes(), NODE).at_us == 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
