"""Kill real processes while they write, sync, roll and repair a real journal; nothing they were promised is missing."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.fakes.journal_writer import Writer, checked, ids
from tests.fakes.killed_writer import A_TURN, given
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KILLS = 20
STEPS = 80  # an opening that repairs takes about 20 calls of the disk, the rest are writes, syncs and rolls
TORN = b'{"seq":12,"kind":"outc'


class Writers:
    """The processes that write to one journal, one after the other."""

    def __init__(self, journal: Path, syncs: str) -> None:
        self.journal = journal
        journal.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.killed_writer", str(journal), syncs],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.first = 0
        self.promised: set[str] = set()

    def kill(self, when: str, number: int) -> None:
        """Let one write until it is killed, and hear what it was promised."""
        _pipe(self.process.stdin).write(f"{when} {number} {self.first}\n")
        for line in _pipe(self.process.stdout):
            what, *numbers = line.split()
            if what == "killed":
                break
            assert what in {"written", "synced"}, line
            self.promised.add(numbers[0])
        self.first += 1_000_000

    def check(self) -> None:
        """Open it, which repairs it, and check everything."""
        Writer(given(self.journal)).close()
        found = ids(self.journal)
        assert [int(each) for each in found] == sorted({int(each) for each in found})
        assert self.promised <= set(found)
        assert [path.name for path in (self.journal / "w0").glob("torn-*.new")] == []

    def close(self) -> None:
        _pipe(self.process.stdin).close()
        _pipe(self.process.stdout).close()
        self.process.kill()
        self.process.wait()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@pytest.fixture(params=["kernel", "thread"])
def writers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Writers]:
    writers = Writers(tmp_path / "journal", request.param)
    yield writers
    writers.close()


def test_killed_at_random_moments(writers: Writers) -> None:
    """From their birth on, and again and again while they write, until they have written much and rolled often."""
    dice, end_s = random.Random(3), time.monotonic() + PATIENCE_S
    for _ in range(KILLS):
        writers.kill("random", dice.randrange(5, 150))
        writers.check()
    while len(writers.promised) <= KILLS * A_TURN or rolled(writers) <= KILLS:
        assert time.monotonic() < end_s, "they do not come to write"
        writers.kill("writing", dice.randrange(5, 150))
        writers.check()


def rolled(writers: Writers) -> int:
    return sum(record.get("action") == "segment" for record in checked(writers.journal))


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_step(writers: Writers, when: str) -> None:
    writers.kill("random", 30)
    for number in range(1, STEPS):
        writers.check()
        with max((writers.journal / "w0").glob("*.jsonl")).open("ab") as last:
            last.write(TORN)
        writers.kill(when, number)
        if number % 7 == 0:
            writers.kill(when, number // 2 + 1)  # and again, while that is repaired
    writers.check()
    repaired = [record for record in checked(writers.journal) if record.get("action") == "repaired"]
    assert len(repaired) >= STEPS - 1
