"""tools/venv.sh chooses the Python that everything runs on: new enough, with pip, and the quickest of its version."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
FAKE = """#!/bin/sh
case "$*" in
  *"-m venv"*) mkdir -p "$3" && echo {name} >"$3/made-by" ;;
  *process_time*) echo {us} ;;
  *ensurepip*) exit 0 ;;
  *print*) echo {version} ;;
  *version_info*) exit {old} ;;
esac
"""


class Python(NamedTuple):
    """One that is found: what it says of itself. The version is none that the machine may have."""

    us: int
    version: str = "3.99"
    old: int = 0


def made_by(tmp_path: Path, pythons: dict[str, Python], **env: str) -> tuple[int, str, str]:
    """The exit code, which Python made the environment, and what was said."""
    for name, python in pythons.items():
        fake = tmp_path / name
        fake.write_text(FAKE.format(name=name, **python._asdict()))
        fake.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools" / "venv.sh", tmp_path / "made"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    made = tmp_path / "made" / "made-by"
    return done.returncode, made.read_text().strip() if made.exists() else "", done.stderr


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3.11": Python(500), "python3": Python(500)}, "python3.11"),
        ({"python3.11": Python(500), "python3": Python(460)}, "python3.11"),  # no difference that is sure
        ({"python3.11": Python(500), "python3": Python(340)}, "python3"),
        ({"python3.11": Python(500), "python3": Python(100, "3.98")}, "python3.11"),  # another version
    ],
)
def test_the_quickest_one_of_the_first_version_that_is_new_enough_is_taken(
    tmp_path: Path, pythons: dict[str, Python], chosen: str
) -> None:
    assert made_by(tmp_path, pythons) == (0, chosen, "")


def test_one_that_was_asked_for_is_taken_however_slow(tmp_path: Path) -> None:
    pythons = {"python3.11": Python(100), "mine": Python(900)}
    assert made_by(tmp_path, pythons, PYTHON="mine") == (0, "mine", "")


def test_one_that_was_asked_for_and_is_too_old_is_refused(tmp_path: Path) -> None:
    code, made, said = made_by(tmp_path, {"mine": Python(100, old=1)}, PYTHON="mine")
    assert (code, made) == (1, "")
    assert "needs Python 3.11 or newer, and mine was found" in said


def test_an_environment_that_works_is_kept(tmp_path: Path) -> None:
    python = tmp_path / "made" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    before = python.stat().st_ino
    assert made_by(tmp_path, {"python3.11": Python(100)}) == (0, "", "")
    assert python.stat().st_ino == before
