"""Lines are appended, each whole and once, whatever a line before it looks like."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.config.schema import Anchor as AnchorSettings
from gateway.journal.anchor.base import AnchorFailed
from gateway.journal.anchor.file import FileAnchor
from tests.fakes.manifest_heads import NODE, head

DAY = datetime(2026, 11, 21, 23, 59, tzinfo=UTC)


def anchor(path: Path, now: datetime = DAY) -> FileAnchor:
    return FileAnchor(AnchorSettings(kind="file", path=str(path)), lambda: now)


def test_a_file_a_day_and_a_line_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    where = [anchor(path).put(head(n), n, NODE) for n in (7, 9)]
    where.append(anchor(path, DAY.replace(day=22)).put(head(12), 12, NODE))
    folder = path / NODE
    assert where == [str(folder / "2026-11-21.jsonl")] * 2 + [str(folder / "2026-11-22.jsonl")]
    assert (folder / "2026-11-21.jsonl").read_bytes() == head(7) + b"\n" + head(9) + b"\n"
    assert (folder / "2026-11-22.jsonl").read_bytes() == head(12) + b"\n"


def test_the_same_manifest_again_is_not_written_again(tmp_path: Path) -> None:
    (where,) = {anchor(tmp_path).put(head(n), n, NODE) for n in (7, 7, 8, 8, 7)}
    assert Path(where).read_bytes().split(b"\n") == [head(7), head(8), head(7), b""]


def test_a_line_that_ends_like_it_is_not_it(tmp_path: Path) -> None:
    (tmp_path / NODE).mkdir()
    path = tmp_path / NODE / "2026-11-21.jsonl"
    path.write_bytes(b"x" + head() + b"\n")
    anchor(tmp_path).put(head(), 7, NODE)
    assert path.read_bytes() == b"x" + head() + b"\n" + head() + b"\n"


def test_a_torn_line_is_followed_by_a_whole_one(tmp_path: Path) -> None:
    whole = head(7) + b"\n"
    (tmp_path / NODE).mkdir()
    path = tmp_path / NODE / "2026-11-21.jsonl"
    for cut in (1, 100, len(whole) - 1):
        path.write_bytes(head(6) + b"\n" + whole[:cut])
        anchor(tmp_path).put(head(7), 7, NODE)
        assert path.read_bytes().splitlines()[-1] == head(7)
        assert anchor(tmp_path).check(head(7), 7, NODE) == str(path)


def test_what_lies_there_is_found_and_what_does_not_is_not(tmp_path: Path) -> None:
    for n in range(4):
        anchor(tmp_path, DAY.replace(day=20 + n // 2)).put(head(n), n, NODE)
    assert anchor(tmp_path).check(head(1), 1, NODE).endswith("2026-11-20.jsonl")
    assert anchor(tmp_path).check(head(2), 2, NODE).endswith("2026-11-21.jsonl")
    for other in (head(5), head(1, at_us=1)):
        with pytest.raises(AnchorFailed, match="is in no file there as it was given"):
            anchor(tmp_path).check(other, 1, NODE)
    with pytest.raises(AnchorFailed, match="is in no file"):
        anchor(tmp_path / "none").check(head(1), 1, NODE)


def test_a_disk_that_takes_only_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
        with pytest.raises(AnchorFailed, match=f"manifest 7 cannot be written: only 10 of {len(head()) + 1} bytes"):
            anchor(tmp_path).put(head(), 7, NODE)
    path = Path(anchor(tmp_path).put(head(), 7, NODE))
    assert path.read_bytes() == head()[:10] + b"\n" + head() + b"\n"


def test_what_is_not_synced_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(AnchorFailed, match="No space left on device"):
            anchor(tmp_path).put(head(), 7, NODE)
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", synced.append)
    anchor(tmp_path).put(head(), 7, NODE)
    assert synced  # also when the line was there already


def test_a_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file")
    with pytest.raises(AnchorFailed, match=r"audit/.*2026-11-21\.jsonl: manifest 7 cannot be written: Not a directory"):
        anchor(tmp_path / "audit").put(head(), 7, NODE)
