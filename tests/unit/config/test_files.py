"""A file is the old one or the new one, never something between."""

import stat
from pathlib import Path

import pytest

from gateway.config.files import private_directory, replacing, sync_directory


def test_the_new_content_appears_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failure_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_directory_is_for_its_owner(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert private_directory(made) == made
    sync_directory(made)
