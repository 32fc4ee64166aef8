"""Edits over a key file behave like a dict of keys."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.keyfile import KeyFile, build
from gateway.config.keyindex import KeyIndex, Overlay, merged
from gateway.config.keys import KeyRecord, digest


def key(name: str, org: str = "") -> KeyRecord:
    return KeyRecord(digest(name.encode()), name, org)


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
EDITS = st.lists(st.tuples(st.sampled_from(["put", "remove"]), NAMES, st.text(max_size=2)))


@given(st.sets(NAMES), EDITS)
def test_an_overlay_is_a_dict_laid_over_a_file(base: set[str], edits: list[tuple[str, str, str]]) -> None:
    expected = dict.fromkeys(base, "")
    overlay = Overlay()
    for action, name, org in edits:
        if action == "put":
            overlay, expected[name] = overlay.put(key(name, org)), org
        else:
            overlay = overlay.remove(key(name).digest)
            expected.pop(name, None)
    with TemporaryDirectory() as directory:
        build(Path(directory) / "k", (key(name) for name in sorted(base)))
        index = KeyIndex(KeyFile(Path(directory) / "k"), overlay)
        for name in "abcde":
            found = index.find(key(name).digest)
            assert (None if found is None else found.org) == expected.get(name)
        assert sorted(record.id for record in index) == sorted(expected)


def test_a_changed_secret_takes_the_old_one_away(tmp_path: Path) -> None:
    build(tmp_path / "k", [key("old")])
    index = KeyIndex(KeyFile(tmp_path / "k"), Overlay().put(key("new"), replaces=key("old").digest))
    assert index.find(key("old").digest) is None
    assert index.find(key("new").digest) is not None


def test_changing_a_secret_back_leaves_one_of_them() -> None:
    there = Overlay().put(key("new"), replaces=key("old").digest)
    back = there.put(key("old"), replaces=key("new").digest)
    assert [record.id for record in back.added] == ["old"]
    assert back.removed == (key("new").digest,)


def test_what_is_edited_is_marked_and_carried_over_and_the_rest_is_the_configs() -> None:
    edited = Overlay().put(key("made")).put(key("shadowed")).added
    others = [key("gone from the config"), *edited, KeyRecord(key("x").digest, "twin", edited=True)]
    config = [key("shadowed", "acme"), KeyRecord(key("y").digest, "twin")]
    assert [(record.id, record.org) for record in merged(config, others)] == [
        ("shadowed", "acme"),
        ("twin", ""),
        ("made", ""),
    ]


def test_revoked_is_the_live_set(tmp_path: Path) -> None:
    build(tmp_path / "k", [])
    revoked: set[str] = set()
    index = KeyIndex(KeyFile(tmp_path / "k"), Overlay(), revoked)
    revoked.add("a")
    assert "a" in index.revoked
