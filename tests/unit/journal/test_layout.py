"""Names on the disk are part of the format; the node's id is made once."""

from pathlib import Path

import pytest

from gateway.journal import layout
from gateway.journal.layout import NoJournal


def test_names() -> None:
    state = Path("/s")
    assert layout.segment_path(layout.journal_of(state), "w0", 12) == Path("/s/journal/w0/0000000012.jsonl")
    assert (layout.sealing_of(state), layout.signing_of(state)) == (Path("/s/sealing"), Path("/s/signing"))
    assert layout.worker_chain(3) == "w3"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("w0", True), ("w17", True), ("control", True), ("w01", False), ("manifests", False), ("w", False)],
)
def test_which_directories_are_chains(name: str, expected: bool) -> None:
    assert layout.is_chain(name) is expected


def test_chains_and_segments_come_in_order(tmp_path: Path) -> None:
    for chain in ("control", "w10", "w2", "manifests", "w0"):
        (tmp_path / chain).mkdir()
    (tmp_path / "w1").write_text("no directory")
    for name in ("0000000010.jsonl", "0000000002.jsonl", "lock", "3.jsonl", "0000000004.jsonl.gz"):
        (tmp_path / "w0" / name).touch()
        (tmp_path / "manifests" / name).touch()
    assert layout.chains(tmp_path) == ["w0", "w2", "w10", "control"]
    assert layout.segments(tmp_path, "w0") == [2, 10]
    assert layout.segments(tmp_path, "w9") == []
    assert [path.name for path in layout.manifest_files(tmp_path)] == ["0000000002.jsonl", "0000000010.jsonl"]
    assert layout.manifest_files(tmp_path / "w2") == []


def test_a_node_keeps_its_id_and_no_two_share_one(tmp_path: Path) -> None:
    first = layout.ensure_node(tmp_path / "a" / "journal")
    assert layout.ensure_node(tmp_path / "a" / "journal") == layout.node_id(tmp_path / "a" / "journal") == first
    assert layout.ensure_node(tmp_path / "b" / "journal") != first


@pytest.mark.parametrize("left", ["w0/0000000001.jsonl", "control/0000000007.jsonl", "manifests/0000000001.jsonl"])
def test_no_id_is_made_for_a_journal_that_has_lost_its_own(tmp_path: Path, left: str) -> None:
    (tmp_path / left).parent.mkdir()
    (tmp_path / left).touch()
    with pytest.raises(NoJournal, match=r"node\.json is missing, and a journal is there"):
        layout.ensure_node(tmp_path)
    assert not (tmp_path / "node.json").exists()


def test_empty_directories_are_no_journal(tmp_path: Path) -> None:
    for name in ("w0", "manifests", "control"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    assert layout.ensure_node(tmp_path) == layout.node_id(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"node": 7}', '{"node": "ann"}', "\udcff"])
def test_a_damaged_node_file_is_never_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(NoJournal, match=r"node\.json"):
        layout.ensure_node(tmp_path)
    assert path.read_bytes() == content.encode(errors="surrogateescape")


def test_a_directory_without_a_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoJournal, match="holds no journal"):
        layout.node_id(tmp_path)
