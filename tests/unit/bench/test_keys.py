"""The measurement of the key index, on a small one."""

from pathlib import Path

from bench import keys


def test_a_small_index_is_measured_whole(tmp_path: Path) -> None:
    found = keys.measure(50, tmp_path)
    assert min(found[name] for name in ("file_mb", "find_us", "authenticate_first_us", "authenticate_again_us")) > 0
