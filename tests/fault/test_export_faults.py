"""Kill an export at the Nth thing it does to the disk, for every N: no record is missing, none is torn, order holds.

A kill is an exception that nothing handles, after which everything is made anew. A power cut also takes back what was
written to the exported file and not synced. Faults are errors of the same calls, which the export must outlive.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.config.schema import Export
from gateway.control.readers.export import ExportReader
from gateway.control.readers.runner import Limits, Runner, Source
from gateway.control.sinks.file import FileSink
from gateway.record import Kind, Record
from tests.fakes.written_journal import NODE, WrittenJournal

CALLS = ("open", "write", "fsync", "ftruncate", "rename", "replace")
MOST_CALLS = 400
BATCH = Limits(records=4, first_wait_s=0, longest_wait_s=0)
ROTATE_BYTES = 3_000


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Disk:
    """Counts what is done to the disk, and ends the process, or fails, at the nth."""

    def __init__(self, nth: int, effect: Callable[[], BaseException]) -> None:
        self.left = nth
        self._effect = effect
        self.synced: dict[int, int] = {}  # by inode: how much of a file would survive a power cut

    @property
    def hit(self) -> bool:
        return self.left <= 0

    def __call__(self, real: Callable[..., Any], *given: Any, **more: Any) -> object:
        self.left -= 1
        if self.left == 0:
            raise self._effect()
        if self.left < 0 and isinstance(self._effect(), Killed):
            raise Killed
        done: object = real(*given, **more)
        if real is REAL["fsync"]:
            found = os.fstat(given[0])
            self.synced[found.st_ino] = found.st_size
        return done


REAL: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in CALLS}


@contextmanager
def playing(disk: Disk) -> Iterator[Disk]:
    with ExitStack() as stack:
        for name in CALLS:
            real = REAL[name]
            stack.enter_context(
                mock.patch.object(os, name, lambda *given, real=real, **more: disk(real, *given, **more))
            )
        yield disk


@pytest.fixture
def journal(tmp_path: Path) -> WrittenJournal:
    made = WrittenJournal(tmp_path / "state")
    for name, segments in (("w0", 3), ("control", 1)):
        for number in range(segments):
            made.chain(name).segment(number, *(Record(Kind.OUTCOME, f"x{n}", n, org="o" * n) for n in range(1, 7)))
    return made


class Process:
    """An export in a process of its own."""

    def __init__(self, journal: WrittenJournal) -> None:
        self.path = journal.state_dir.parent / "out.jsonl"
        self.sink = FileSink(self.path, ROTATE_BYTES)
        settings = Export(name="siem", kind="file", path=str(self.path))
        self.reader = ExportReader(settings, self.sink, journal.path, NODE, journal.state_dir, lambda _: None)
        source = Source(journal.path, NODE, journal.signed, journal.heads)
        self.runner = Runner(self.reader, source, journal.state_dir, BATCH)

    def run(self, rounds: int = 50) -> None:
        """Until nothing is left to export."""
        for _ in range(rounds):
            self.runner.step()
            if not self.runner.failing and self.runner.lag_records == 0:
                return
        raise AssertionError("it never came to the end")

    def die(self) -> None:
        """What the kernel does: the file is closed as it is, which frees its lock."""
        fd, self.sink._fd = self.sink._fd, -1
        if fd >= 0:
            os.close(fd)


def files_of(path: Path) -> list[Path]:
    """Where the records went, in the order they were written."""
    return [*sorted(path.parent.glob(f"{path.name}.*")), *([path] if path.exists() else [])]


def check(journal: WrittenJournal, path: Path) -> list[str]:
    """Every record is there, in whole lines, in the order of its chain; the ids with their repeats."""
    content = b"".join(found.read_bytes() for found in files_of(path))
    ids = [json.loads(line)["id"] for line in content.splitlines()]
    assert content.endswith(b"\n")
    for name, chain in journal.chains.items():
        first_seen = [int(found.split("/")[3]) for found in dict.fromkeys(ids) if found.split("/")[1] == name]
        assert first_seen == list(range(chain.seq + 1)), name
    return ids


def cut_power(path: Path, disk: Disk) -> None:
    """Take back what was never synced."""
    for found in files_of(path):
        state = found.stat()
        os.truncate(found, min(state.st_size, disk.synced.get(state.st_ino, 0)))


def test_without_faults_nothing_is_repeated(journal: WrittenJournal) -> None:
    process = Process(journal)
    process.run()
    ids = check(journal, process.path)
    assert len(ids) == len(set(ids))
    assert len(files_of(process.path)) > 2, "rotation is part of the scene"


@pytest.mark.parametrize("power", ["kill", "power cut"])
def test_killed_at_any_step(journal: WrittenJournal, power: str) -> None:
    for nth in range(1, MOST_CALLS):
        process = Process(journal)
        for leftover in [*files_of(process.path), process.reader.path]:
            leftover.unlink(missing_ok=True)
        with playing(Disk(nth, Killed)) as disk:
            try:
                process.run()
            except Killed:
                process.die()
        if power == "power cut":
            cut_power(process.path, disk)
        if not disk.hit:
            break
        second = Process(journal)
        second.run()
        check(journal, second.path)
        second.sink.close()
    else:
        raise AssertionError("there were more steps than this test takes")
    assert nth > 20


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_any_step_is_outlived(journal: WrittenJournal, error: int) -> None:
    for nth in range(1, MOST_CALLS):
        process = Process(journal)
        for leftover in [*files_of(process.path), process.reader.path]:
            leftover.unlink(missing_ok=True)
        with playing(Disk(nth, lambda: OSError(error, os.strerror(error)))) as disk:
            process.run()
        check(journal, process.path)
        process.sink.close()
        if not disk.hit:
            break
        assert process.runner.failures <= 1
    else:
        raise AssertionError("there were more steps than this test takes")
    assert nth > 20


def test_the_cursor_never_stands_beyond_what_is_synced(journal: WrittenJournal) -> None:
    """At every step: what the cursor file says is exported survives a power cut."""
    process = Process(journal)
    with playing(Disk(10**6, Killed)) as disk:
        while process.runner.lag_records or not process.runner.records:
            process.runner.step()
            state = process.path.stat()
            assert disk.synced[state.st_ino] == state.st_size
