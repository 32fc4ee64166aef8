"""Start and reload publish what passed, and nothing else."""

from pathlib import Path

import pytest

from gateway.config.boot import boot_snapshot, reload_snapshot
from gateway.config.keys import KeyRecord, digest
from gateway.config.problems import ConfigProblems
from gateway.config.snapshot import SnapshotStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text("node: a\nkeys: [{id: demo, secret: gw-x}, {id: old, secret: gw-y}]\n")
    return file


def ids(state_dir: Path, generation: int) -> list[str]:
    return sorted(record.id for record in SnapshotStore(state_dir).load(generation).keys)


def test_a_node_boots_from_its_file(path: Path) -> None:
    config, generation = boot_snapshot(path, ["drain_s=3"])
    state = path.parent / "state"
    assert config.state_dir == str(state)
    loaded = SnapshotStore(state).load(generation)
    assert (loaded.config.node, loaded.config.drain_s) == ("a", 3)
    found = loaded.keys.find(digest(b"gw-x"))
    assert found is not None
    assert found.id == "demo"


def test_a_bad_config_leaves_the_running_one(path: Path) -> None:
    _, generation = boot_snapshot(path)
    path.write_text("nod: b")
    with pytest.raises(ConfigProblems):
        reload_snapshot(path, (), path.parent / "state")
    assert SnapshotStore(path.parent / "state").current() == generation


def test_a_reload_takes_the_configs_keys_as_they_are_and_carries_the_others_over(path: Path) -> None:
    state = path.parent / "state"
    boot_snapshot(path)
    store = SnapshotStore(state)
    edited = store.edit(store.load(1).keys.overlay.put(KeyRecord(digest(b"gw-z"), "made")))
    assert ids(state, edited) == ["demo", "made", "old"]
    path.write_text("node: b\nkeys: [{id: demo, secret: gw-x}]\n")
    for _ in range(2):
        config, generation = reload_snapshot(path, (), state)
        assert config.node == "b"
        assert ids(state, generation) == ["demo", "made"]


def test_a_reload_stays_in_its_directory(path: Path) -> None:
    state = path.parent / "state"
    boot_snapshot(path)
    path.write_text("state_dir: elsewhere")
    assert reload_snapshot(path, (), state).generation == 2
    assert not (path.parent / "elsewhere").exists()


def test_prices_are_kept_or_chosen_from_what_the_node_has(path: Path) -> None:
    state = path.parent / "state"
    asked: list[bytes] = []

    def choose(kept: bytes) -> bytes:
        asked.append(kept)
        return kept + b"+"

    boot_snapshot(path)
    boot_snapshot(path, prices=choose)
    reload_snapshot(path, (), state)
    _, generation = reload_snapshot(path, (), state, prices=choose)
    assert asked == [b"", b"+"]
    assert SnapshotStore(state).load(generation).prices == b"++"


def test_prices_are_not_looked_for_when_the_config_is_bad(path: Path) -> None:
    path.write_text("nod: b")
    with pytest.raises(ConfigProblems):
        boot_snapshot(path, prices=lambda _kept: pytest.fail("asked for prices"))
