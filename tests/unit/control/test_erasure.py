"""Keys first, then the tables, then the record, which names no user; a hold forbids it, and what fails is said."""

import json
from pathlib import Path
from unittest import mock

import pytest

from gateway.control.database.trouble import DatabaseTrouble
from gateway.control.erasure import Erased, Erasure, ErasureRefused, ErasureUnfinished
from gateway.control.holds import Holds, HoldsUnreadable
from gateway.journal.keytable import Tags, read_salt
from gateway.journal.layout import sealing_of
from gateway.journal.line import content_of
from gateway.journal.seal import Opener, Sealer
from gateway.record import Kind, Personal, Record

NOW_US = 1_763_700_000_000_000
ANN = Personal(user="ann@example.org", client_ip="10.0.0.1")


class Scene:
    """A node on which two organisations have users."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.told: list[str] = []
        self.records: list[Record] = []
        self.full = False
        self.down = False
        self.sealing = sealing_of(state_dir)
        (state_dir / "journal").mkdir()
        self.holds = Holds(state_dir / "journal", lambda _: None, lambda: NOW_US)
        self.erasure = Erasure(state_dir, self.holds, self.forget, self.append, lambda: NOW_US)
        sealer = Sealer(self.sealing, "w0")
        self.sealed: dict[tuple[str, str], Record] = {}
        for org, user in (("acme", ANN.user), ("acme", "bob"), ("other", ANN.user)):
            key = sealer.key(org, user, "")
            sealed = key.seal(Personal(user=user), "x")
            self.sealed[org, user] = Record(Kind.OUTCOME, "x", 1, org=org, sealed=sealed, sealed_by=key.id)
        sealer.close()

    def readable(self) -> set[tuple[str, str]]:
        return {who for who, record in self.sealed.items() if Opener(self.sealing).open(record) is not None}

    def forget(self, org: str, user: str) -> int:
        self.told.append(f"forget {org}/{user} with {len(self.readable())} readable")
        if self.down:
            raise DatabaseTrouble("the database is away")
        return 7

    def append(self, record: Record) -> None:
        if self.full:
            raise OSError("the journal is full")
        self.told.append("record")
        self.records.append(record)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_user_is_forgotten_everywhere_and_nobody_else(scene: Scene) -> None:
    assert scene.erasure.run("acme", ANN.user, "eve") == Erased(keys=1, usage_rows=7)
    assert scene.readable() == {("acme", "bob"), ("other", ANN.user)}
    assert scene.told == [f"forget acme/{ANN.user} with 2 readable", "record"], "keys, tables, record"


def test_all_users_of_an_organisation(scene: Scene) -> None:
    assert scene.erasure.run("acme", "", "eve").keys == 2
    assert scene.readable() == {("other", ANN.user)}
    assert json.loads(scene.records[0].detail) == {"keys": 2, "usage_rows": 7}


def test_the_record_names_no_user_and_can_still_be_matched(scene: Scene) -> None:
    scene.erasure.run("acme", ANN.user, "eve")
    (record,) = scene.records
    assert (record.kind, record.action, record.subject, record.actor) == (Kind.ADMIN, "journal.erase", "acme", "eve")
    assert ANN.user.encode() not in content_of(record)
    tag = Tags(read_salt(scene.sealing)).user("acme", ANN.user).hex()
    assert json.loads(record.detail) == {"keys": 1, "usage_rows": 7, "user_tag": tag}


@pytest.mark.parametrize("org", ["", "acme"])
def test_a_hold_forbids_it(scene: Scene, org: str) -> None:
    hold = scene.holds.add("case 17", "ann", org=org, from_us=1, to_us=2)
    with pytest.raises(ErasureRefused, match=f"{hold.id} .*case 17.* release it first"):
        scene.erasure.run("acme", ANN.user, "eve")
    assert len(scene.readable()) == 3
    assert scene.told == []


def test_a_hold_of_another_organisation_does_not(scene: Scene) -> None:
    scene.holds.add("case 17", "ann", org="other")
    assert scene.erasure.run("acme", "", "eve").keys == 2


def test_holds_nobody_can_read_forbid_it(scene: Scene) -> None:
    (scene.state_dir / "journal" / "holds.json").write_text("[")
    with pytest.raises(HoldsUnreadable):
        scene.erasure.run("acme", "", "eve")
    assert len(scene.readable()) == 3


def test_somebody_must_ask(scene: Scene) -> None:
    with pytest.raises(ErasureRefused, match="name of who asks"):
        scene.erasure.run("acme", "", " ")
    assert len(scene.readable()) == 3


# --- what fails -----------------------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_said_and_recorded(scene: Scene) -> None:
    scene.down = True
    with pytest.raises(ErasureUnfinished, match=r"2 keys are destroyed.*still name them: the database is away.*again"):
        scene.erasure.run("acme", "", "eve")
    assert scene.readable() == {("other", ANN.user)}
    assert json.loads(scene.records[0].detail) == {"keys": 2, "usage_rows": 0, "undone": 1}
    scene.down = False
    assert scene.erasure.run("acme", "", "eve") == Erased(keys=0, usage_rows=7)


def test_keys_that_cannot_be_destroyed_are_said(scene: Scene) -> None:
    (scene.sealing / "salt").unlink()
    with pytest.raises(ErasureUnfinished, match=r"0 keys are destroyed, 7 rows.*nothing is erased.*salt"):
        scene.erasure.run("acme", ANN.user, "eve")
    assert json.loads(scene.records[0].detail) == {"keys": 0, "usage_rows": 7, "user_tag": "", "undone": 1}


def test_what_was_destroyed_is_counted_though_not_all_of_it_went_well(scene: Scene) -> None:
    full = mock.patch("gateway.journal.erase.count_erasure", side_effect=OSError(28, "No space left on device"))
    with (
        full,
        pytest.raises(ErasureUnfinished, match=r"^2 keys are destroyed, 7 rows.*but: writers that run may hold on"),
    ):
        scene.erasure.run("acme", "", "eve")
    assert json.loads(scene.records[0].detail) == {"keys": 2, "usage_rows": 7, "undone": 1}


def test_a_journal_that_takes_no_record_is_said(scene: Scene) -> None:
    scene.full = True
    with pytest.raises(ErasureUnfinished, match="the journal could not be told: the journal is full"):
        scene.erasure.run("acme", "", "eve")
    assert scene.readable() == {("other", ANN.user)}


def test_no_hold_comes_in_between(scene: Scene) -> None:
    locked = list[bool]()

    def append(_record: Record) -> None:
        locked.append(scene.holds._busy.locked())

    with mock.patch.object(scene.erasure, "_append", append):
        scene.erasure.run("acme", "", "eve")
    assert locked == [True]
