"""Generations: published whole, read by number, and the one before when the newest is damaged."""

import hashlib
import stat
from pathlib import Path

import msgspec
import pytest

from gateway.config import snapshot as module
from gateway.config.keyindex import Overlay
from gateway.config.keys import KeyRecord, digest
from gateway.config.load import Document, read_text
from gateway.config.problems import ConfigProblems
from gateway.config.snapshot import SnapshotStore, SnapshotUnusable


def document(text: str = "node: a", **env: str) -> Document:
    return read_text(text, "f", Path("/etc"), (), env).document


def key(name: str) -> KeyRecord:
    return KeyRecord(digest(name.encode()), name)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path)


def names(store: SnapshotStore) -> set[str]:
    return {path.name for path in store.directory.iterdir()}


def test_what_is_published_is_loaded_by_its_number(store: SnapshotStore) -> None:
    assert store.current() is None
    generation = store.publish(document(), [key("a")])
    assert store.current() == generation == 1
    loaded = SnapshotStore(store.directory.parent).load(generation)
    assert (loaded.generation, loaded.config.node, loaded.config.keys) == (1, "a", ())
    assert loaded.keys.find(key("a").digest) == key("a")
    assert loaded.keys.find(key("b").digest) is None


def test_numbers_go_up_and_one_generation_back_is_kept(store: SnapshotStore) -> None:
    for name in "abc":
        store.publish(document(f"node: {name}"), [key(name)])
    assert names(store) == {"2.snapshot", "3.snapshot", "keys-2.index", "keys-3.index", "current", "lock"}
    assert store.load(2).config.node == "b"
    with pytest.raises(SnapshotUnusable, match="snapshot 1 cannot be read"):
        store.load(1)


def test_a_process_keeps_a_generation_that_was_pruned(store: SnapshotStore) -> None:
    loaded = store.load(store.publish(document(), [key("a")]))
    for name in "bcd":
        store.publish(document(), [key(name)])
    assert loaded.keys.find(key("a").digest) == key("a")


def test_unchanged_keys_keep_their_file(store: SnapshotStore) -> None:
    store.publish(document(), [key("a")])
    store.publish(document("node: b"), [key("a")])
    assert "keys-2.index" not in names(store)
    assert store.load(2).keys.find(key("a").digest) == key("a")


def test_an_edit_is_a_generation_with_the_same_config_and_key_file(store: SnapshotStore) -> None:
    store.publish(document(), [key("a")])
    generation = store.edit(Overlay().put(key("b")).remove(key("a").digest))
    keys = store.load(generation).keys
    assert [record.id for record in keys] == ["b"]
    assert "keys-2.index" not in names(store)
    assert [record.id for record in store.load(store.publish(document("node: b"), None)).keys] == ["b"]


def test_many_edits_are_folded_into_a_new_file(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLD_AT", 2)
    store.publish(document(), [key("a")])
    overlay = Overlay().put(key("b")).put(key("c")).remove(key("a").digest)
    keys = store.load(store.edit(overlay)).keys
    assert len(keys.overlay) == 0
    assert sorted((record.id, record.edited) for record in keys) == [("b", True), ("c", True)]


def test_there_is_nothing_to_keep_before_the_first(store: SnapshotStore) -> None:
    with pytest.raises(SnapshotUnusable):
        store.publish(document(), None)
    with pytest.raises(SnapshotUnusable):
        store.edit(Overlay())


@pytest.mark.parametrize("name", ["2.snapshot", "keys-2.index"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "empty"])
def test_a_damaged_generation_is_never_used_and_the_one_before_is(store: SnapshotStore, name: str, damage: str) -> None:
    store.publish(document("node: one"), [key("a")])
    store.publish(document("node: two"), [key("b")])
    path = store.directory / name
    good = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        bad = {"cut": good[:-3], "flip": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], "empty": b""}
        path.write_bytes(bad[damage])
    fresh = SnapshotStore(store.directory.parent)
    assert fresh.current() == 1
    assert fresh.load(1).config.node == "one"
    assert fresh.publish(document("node: three"), [key("c")]) >= 2
    assert fresh.load(fresh.current() or 0).config.node == "three"


def test_a_half_written_generation_that_was_never_marked_is_not_preferred(store: SnapshotStore) -> None:
    store.publish(document("node: one"), [key("a")])
    store.publish(document("node: two"), [key("a")])
    (store.directory / "current").write_text("1\n")  # as if the process died between the two renames
    assert SnapshotStore(store.directory.parent).current() == 1


@pytest.mark.parametrize("mark", ["", "x", "99"])
def test_a_damaged_mark_does_not_matter(store: SnapshotStore, mark: str) -> None:
    store.publish(document(), [key("a")])
    (store.directory / "current").write_text(mark)
    assert store.current() == 1


def test_a_snapshot_is_tied_to_its_key_file(store: SnapshotStore) -> None:
    store.publish(document(), [key("a")])
    store.publish(document(), [key("b")])
    (store.directory / "keys-2.index").write_bytes((store.directory / "keys-1.index").read_bytes())
    with pytest.raises(SnapshotUnusable, match="not the file it was made with"):
        store.load(2)


def test_secrets_are_resolved_where_a_snapshot_is_loaded(store: SnapshotStore) -> None:
    text = "admin: {token: '${TOKEN}'}"
    generation = store.publish(document(text, TOKEN="t" * 16), [])
    admin = store.load(generation, {"TOKEN": "u" * 16}).config.admin
    assert admin is not None
    assert admin.token.reveal() == "u" * 16
    assert store.keys(generation).find(bytes(32)) is None
    with pytest.raises(ConfigProblems):
        store.load(generation, {})


def test_files_are_for_their_owner_only(store: SnapshotStore) -> None:
    store.publish(document(), [key("a")])
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.directory.iterdir()} == {0o600}


def test_revocations_reach_every_index_of_the_store(store: SnapshotStore) -> None:
    first = store.load(store.publish(document(), [key("a")]))
    SnapshotStore(store.directory.parent).revocations.add("a", 1)
    assert "a" not in first.keys.revoked
    store.revocations.poll()
    assert "a" in first.keys.revoked
    assert "a" in SnapshotStore(store.directory.parent).load(1).keys.revoked


def test_a_snapshot_of_another_version_is_refused(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.publish(document(), [])
    monkeypatch.setattr(module, "_VERSION", 2)
    with pytest.raises(SnapshotUnusable, match="has version 1"):
        store.load(1)


def test_prices_are_carried_and_kept_by_whatever_changes_something_else(store: SnapshotStore) -> None:
    assert store.prices() == b""
    assert store.load(store.publish(document(), [key("a")])).prices == b""
    assert store.load(store.publish(document(), [key("a")], prices=b"\x00prices")).prices == b"\x00prices"
    assert store.load(store.edit(Overlay().put(key("b")))).prices == b"\x00prices"
    assert store.load(store.publish(document("node: b"), [key("a")])).prices == b"\x00prices"
    assert store.prices() == b"\x00prices"
    assert store.load(store.publish(document(), [key("a")], prices=b"")).prices == b""


def test_other_prices_come_with_the_same_config_and_keys(store: SnapshotStore) -> None:
    store.publish(document("node: a"), [key("a")], prices=b"old")
    edited = store.edit(Overlay().put(key("b")))
    loaded = store.load(store.reprice(edited, b"new"))
    assert (loaded.generation, loaded.config.node, loaded.prices) == (3, "a", b"new")
    assert sorted(record.id for record in loaded.keys) == ["a", "b"]
    assert store.load(edited).prices == b"old"


def test_only_the_newest_generation_gets_other_prices(store: SnapshotStore) -> None:
    with pytest.raises(SnapshotUnusable, match="snapshot 1 is not the newest one that is whole"):
        store.reprice(1, b"new")
    store.publish(document("node: a"), [])
    store.publish(document("node: b"), [])
    with pytest.raises(SnapshotUnusable, match="snapshot 1 is not"):
        store.reprice(1, b"new")
    (store.directory / "2.snapshot").write_bytes(b"")
    with pytest.raises(SnapshotUnusable, match="snapshot 2 is not"):
        store.reprice(2, b"new")
    assert store.current() == 1


def rewritten(store: SnapshotStore, generation: int, content: list[object]) -> None:
    payload = msgspec.msgpack.encode(content)
    path = store.directory / f"{generation}.snapshot"
    path.write_bytes(b"SLUICESN" + hashlib.sha256(payload).digest() + payload)


def content_of(store: SnapshotStore, generation: int) -> list[object]:
    raw = (store.directory / f"{generation}.snapshot").read_bytes()
    content: list[object] = msgspec.msgpack.decode(raw[40:])
    return content


def test_a_file_of_the_build_before_there_were_prices_is_read_and_goes_on(store: SnapshotStore) -> None:
    store.publish(document("node: a"), [key("a")])
    rewritten(store, 1, content_of(store, 1)[:6])
    loaded = SnapshotStore(store.directory.parent).load(1)
    assert (loaded.config.node, loaded.prices) == ("a", b"")
    assert [record.id for record in store.load(store.reprice(1, b"new")).keys] == ["a"]


def test_a_file_of_a_later_build_with_more_in_it_is_read_without_that(store: SnapshotStore) -> None:
    store.publish(document("node: a"), [key("a")], prices=b"new")
    rewritten(store, 1, [*content_of(store, 1), {"more": 1}])
    assert SnapshotStore(store.directory.parent).load(1).prices == b"new"
