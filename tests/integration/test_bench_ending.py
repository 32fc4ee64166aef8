"""Programs of the bench that are stopped in the middle end at once, in a line, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MARK = "BENCH_ENDING_TEST"
PROGRAMS = {  # words; what is printed when it is under way, and what it would print long after
    "bench.journal": ([], "… append", "… sign"),
    "bench.keys": (["--keys", "10", "1000000"], "\n  10 ", "\n1000000 "),
    "bench.limits": (["cost"], "… shared memory, repeat 1", "… shared memory, repeat 3"),
}


def left_by(mark: str) -> Iterator[int]:
    """Processes that were started with this mark in their environment."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}\0".encode() in (process / "environ").read_bytes():
                yield int(process.name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", PROGRAMS)
def test_what_is_stopped_leaves_nothing_behind(module: str, number: signal.Signals, tmp_path: Path) -> None:
    words, under_way, long_after = PROGRAMS[module]
    folder, log = tmp_path / "temporary", tmp_path / "log"
    folder.mkdir()
    env = {**os.environ, "TMPDIR": str(folder), MARK: str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words], env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while under_way not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number, log.read_text()
    finally:
        left = list(left_by(str(tmp_path)))
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert not left
    said = log.read_text()
    assert (under_way in said, long_after in said, "Traceback" in said) == (True, False, False)
    assert not list(folder.iterdir())


def test_a_process_that_stays_would_be_seen(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: str(tmp_path)})
    try:
        assert list(left_by(str(tmp_path))) == [process.pid]
    finally:
        process.kill()
        process.wait()
