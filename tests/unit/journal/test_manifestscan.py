"""The stack of manifests as it was at one moment, from any number on, whatever is wrong with some of them."""

from pathlib import Path

import pytest

from gateway.journal import manifestscan
from gateway.journal.manifest import digest_of
from gateway.journal.manifestscan import BadCheckpoint, Checkpoint, ManifestScan, read_checkpoint
from tests.fakes.a_journal import AJournal


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    """Nine manifests in three files."""
    made = AJournal(tmp_path / "state")
    for _ in range(3):
        for _ in range(3):
            made.write("w0")
            made.sign()
        made.roll_manifests()
    return made


def never(_seconds: float) -> None:
    """Wait for no writer: there is none."""


def test_all_in_order(made: AJournal) -> None:
    scan = ManifestScan(made.journal)
    assert list(scan.lines()) == [line + b"\n" for line in made.manifests]
    assert scan.newest is not None
    assert (scan.newest.manifest.n, scan.newest.line, scan.torn) == (8, made.manifests[8], 0)


@pytest.mark.parametrize(("n", "first"), [(0, 0), (1, 0), (2, 0), (3, 3), (5, 3), (6, 6), (8, 6), (99, 6)])
def test_from_a_number_on_other_files_are_not_read(made: AJournal, n: int, first: int) -> None:
    scan = ManifestScan(made.journal)
    lines = list(scan.lines(n))
    assert lines == [line + b"\n" for line in made.manifests[first:]]
    assert scan.size_bytes(n) == sum(map(len, lines))


def test_a_file_that_begins_with_rubbish_hides_no_other(made: AJournal) -> None:
    path = made.manifest_path(2)
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    assert next(ManifestScan(made.journal).lines(2)) == made.manifests[0] + b"\n"


def test_none_at_all(tmp_path: Path) -> None:
    scan = ManifestScan(tmp_path)
    assert (scan.newest, scan.torn, scan.size_bytes(), list(scan.lines()), list(scan.lines(7))) == (None, 0, 0, [], [])


def test_a_torn_end_is_left_out_and_counted(made: AJournal) -> None:
    path = made.manifest_path(3)
    path.write_bytes(path.read_bytes()[:-10])
    waited: list[float] = []
    scan = ManifestScan(made.journal, waited.append)
    assert scan.torn == len(made.manifests[8]) - 9
    assert len(list(scan.lines())) == 8
    assert scan.newest is not None
    assert scan.newest.manifest.n == 7
    assert 0.3 < sum(waited) < 3


def test_a_torn_file_of_its_own(made: AJournal) -> None:
    made.manifest_path(4).write_bytes(b'{"v":1')
    scan = ManifestScan(made.journal, never)
    assert scan.torn == 6
    assert scan.newest is not None
    assert scan.newest.manifest.n == 8


def test_the_newest_that_can_be_read(made: AJournal) -> None:
    path = made.manifest_path(3)
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    newest = ManifestScan(made.journal).newest
    assert newest is not None
    assert newest.manifest.n == 8


def test_a_line_without_end_comes_in_pieces(made: AJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifestscan, "MAX_LINE_BYTES", 700)
    path = made.manifest_path(2)
    path.write_bytes(b"x" * 2000 + b"\n")
    lines = [line for line in ManifestScan(made.journal).lines() if line.startswith(b"x")]
    assert list(map(len, lines)) == [700, 700, 601]


def test_what_comes_later_is_not_read(made: AJournal) -> None:
    scan = ManifestScan(made.journal)
    made.sign()
    assert len(list(scan.lines())) == 9


@pytest.mark.parametrize("n", [0, 4, 8])
def test_one_is_found_by_number_and_by_hash(made: AJournal, n: int) -> None:
    scan = ManifestScan(made.journal)
    line = made.manifests[n]
    assert scan.find(Checkpoint(n=n)) == line
    assert scan.find(Checkpoint(digest=digest_of(line))) == line


def test_one_that_is_not_there(made: AJournal) -> None:
    scan = ManifestScan(made.journal)
    assert scan.find(Checkpoint(n=9)) == b""
    assert scan.find(Checkpoint(digest="0" * 64)) == b""


# --- what a checkpoint may be ---------------------------------------------------------------------------------------


def test_a_checkpoint_by_number_hash_or_file(made: AJournal, tmp_path: Path) -> None:
    assert read_checkpoint("12") == Checkpoint(n=12)
    assert read_checkpoint("ab" * 32) == Checkpoint(digest="ab" * 32)
    file = tmp_path / "anchor.json"
    file.write_bytes(made.manifests[2] + b"\n" + made.manifests[3] + b"\n\n" + made.manifests[4][:90])
    assert read_checkpoint(str(file)) == Checkpoint(n=3, line=made.manifests[3])


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"hello"])
def test_a_file_without_a_manifest(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "anchor.json"
    file.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="no line is a manifest"):
        read_checkpoint(str(file))


def test_what_is_no_checkpoint() -> None:
    with pytest.raises(BadCheckpoint, match=r"No such file.*give a file that an anchor wrote"):
        read_checkpoint("/nowhere/at/all")


def test_a_checkpoint_is_called_by_what_is_known_of_it() -> None:
    assert Checkpoint(n=1200).name == "manifest 1,200"
    assert "ab" * 32 in Checkpoint(digest="ab" * 32).name
