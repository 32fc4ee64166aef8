"""The measurement of the key index, on a small one."""

import signal
from pathlib import Path

import pytest

from bench import keys


def test_a_small_index_is_measured_whole(tmp_path: Path) -> None:
    found = keys.measure(50, tmp_path)
    assert min(found[name] for name in ("file_mb", "find_us", "authenticate_first_us", "authenticate_again_us")) > 0


def test_each_size_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys.main(["--keys", "20", "40"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("keys  file_mb")
    assert [row.split()[0] for row in rows] == ["20", "40"]


def test_a_size_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        keys.main(["--keys", "0"])
    assert ended.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_readers_end_with_their_block(tmp_path: Path) -> None:
    with keys.reading(tmp_path / "absent", 1) as reader:
        reader.send_signal(signal.SIGSTOP)
    assert reader.returncode == -signal.SIGKILL
