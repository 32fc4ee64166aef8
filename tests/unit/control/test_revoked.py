"""Each revoked key is told to the journal once, by whoever revoked it, whatever goes wrong in between."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.revocations import Revocations
from gateway.control import revoked as module
from gateway.control.publisher import ADMIN, OPERATOR
from gateway.control.revoked import RevokedKeys, Revokers
from gateway.journal.read import START, Entry, Place
from gateway.journal.search import Query, end_of, search
from gateway.record import Kind, Record
from tests.fakes.control_chain import ControlChain

NOW_US = 1_800_000_000_000_000


class Scene:
    """A state_dir, control's chain in it, and who revokes."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.chain = ControlChain(state_dir)
        self.revokers = Revokers()
        self.revocations = Revocations(state_dir)
        self.fails = ""  # whether a write of a record fails: "before" or "after" it is there
        self.signing = True
        self.keys = self.another()

    def another(self) -> RevokedKeys:
        """As after a restart."""
        return RevokedKeys(self.state_dir, self.write, self._signed, self.revokers, lambda: NOW_US)

    def _signed(self) -> int:
        return self.chain.signed_seq() if self.signing else -1

    def write(self, record: Record) -> None:
        if self.fails != "before":
            self.chain.write(record)
        if self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")

    def told(self) -> list[tuple[str, str]]:
        return [(record.subject, record.actor) for record in self.chain.records() if record.action == "key.revoke"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_what_was_revoked_while_nobody_looked_is_told_once_and_when_it_was(scene: Scene) -> None:
    scene.keys.turn()
    assert scene.chain.records() == []
    for key_id, at_ms in (("b", 17), ("a", 18), ("b", 19)):
        scene.revocations.add(key_id, at_ms)
    for keys in (scene.keys, scene.keys, scene.another()):
        keys.turn()
        assert scene.told() == [("a", OPERATOR), ("b", OPERATOR)]
    record = scene.chain.records()[1]
    assert (record.kind, record.at_us, json.loads(record.detail)) == (Kind.ADMIN, NOW_US, {"revoked_at_ms": 17})


def test_who_revokes_by_way_of_control_is_told(scene: Scene) -> None:
    scene.revocations.add("other", 1)
    with scene.revokers.revoking("ann"):
        scene.revocations.add("ann", 2)
        scene.keys.turn()
        assert scene.told() == [("other", OPERATOR)]
        scene.revokers.revoked("ann", ADMIN)
    scene.keys.turn()
    assert scene.told() == [("other", OPERATOR), ("ann", ADMIN)]


def test_who_failed_to_revoke_a_key_does_not_hide_who_does(scene: Scene) -> None:
    with pytest.raises(OSError, match="No space"), scene.revokers.revoking("ann"):
        raise OSError(28, "No space")
    scene.keys.turn()
    assert scene.told() == []
    scene.revocations.add("ann", 1)
    scene.keys.turn()
    assert scene.told() == [("ann", OPERATOR)]


@pytest.mark.parametrize("fails", ["before", "after"])
def test_a_record_of_which_nothing_is_known_is_looked_for_before_it_is_written_again(
    scene: Scene, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene.revocations.add("ann", 1)
    scene.fails = fails
    scene.keys.turn()
    scene.keys.turn()
    assert caplog.text.count("revoked keys are not told") == 1
    scene.fails = ""
    scene.keys.turn()
    assert scene.told() == [("ann", OPERATOR)]


def test_what_was_searched_is_not_searched_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Place] = []

    def noted(journal: Path, chain: str, query: Query, start: Place, end: Place) -> Iterator[Entry]:
        starts.append(start)
        return search(journal, chain, query, start, end)

    monkeypatch.setattr(module, "search", noted)
    scene.revocations.add("ann", 1)
    scene.keys.turn()
    scene.revocations.add("bob", 2)
    scene.fails = "after"
    for _ in range(2):
        scene.keys.turn()
    scene.fails = ""
    for _ in range(2):
        scene.keys.turn()
    assert starts == [START, START]  # there was nothing the first time
    end = end_of(scene.state_dir / "journal", "control")
    scene.revocations.add("eve", 3)
    scene.fails = "after"
    scene.keys.turn()
    scene.fails = ""
    scene.keys.turn()
    assert starts[2:] == [end]
    assert scene.told() == [("ann", OPERATOR), ("bob", OPERATOR), ("eve", OPERATOR)]


def test_a_record_that_is_not_signed_yet_is_waited_for(scene: Scene) -> None:
    scene.revocations.add("ann", 1)
    scene.fails = "after"
    scene.keys.turn()
    scene.fails = ""
    scene.revocations.add("bob", 2)
    scene.signing = False
    scene.keys.turn()
    assert scene.told() == [("ann", OPERATOR)]  # it may be lost yet, and bob waits with it
    scene.signing = True
    scene.keys.turn()
    assert scene.told() == [("ann", OPERATOR), ("bob", OPERATOR)]


def test_what_is_told_is_known_without_its_record(scene: Scene, tmp_path: Path) -> None:
    scene.revocations.add("ann", 1)
    scene.keys.turn()
    (tmp_path / "journal" / "control" / "0000000001.jsonl").write_bytes(b"")  # as retention leaves it, or an erasure
    scene.chain = ControlChain(tmp_path)
    scene.another().turn()
    assert scene.told() == []


def test_another_journal_is_told_of_all(scene: Scene, tmp_path: Path) -> None:
    scene.revocations.add("ann", 1)
    scene.keys.turn()
    (tmp_path / "journal").rename(tmp_path / "moved")
    again = Scene(tmp_path)
    again.keys.turn()
    assert again.told() == [("ann", OPERATOR)]


def test_revocations_that_are_gone_again_end_nothing(scene: Scene) -> None:
    scene.revocations.add("ann", 1)
    with scene.revokers.revoking("ann"):
        scene.keys.turn()
    scene.revocations.path.unlink()
    scene.keys.turn()
    assert scene.told() == []
