"""The gateway on core 0, upstream and callers on core 1, and a reading after every step.

Between two steps all callers have gone, so readings are of the same state: connections are made anew with each step.
The journal may take MAX_JOURNAL: what is above it goes once the control process has read and signed it. Should that not
happen in time, the run ends before the disk is full.
"""

import os
import shutil
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.memory.inside import sitecustomize
from bench.memory.judge import Reading
from bench.speed import native, procfs, workload
from bench.speed.launch import CannotRun, Host
from bench.speed.progress import Progress
from bench.speed.sections import CLIENT_CORE, TARGET_CORE
from bench.speed.targets import Limited, Place, Running

CONNECTIONS: Final = 64
LONGEST_STEP: Final = 50_000  # requests; three to six seconds
LEAST_STEPS: Final = 20
EXPECTED_RPS: Final = 12_000  # until it is known better; for the progress line
STEP_PATIENCE_S: Final = 60.0
MAX_JOURNAL: Final = "1GB"
LEAST_FREE_BYTES: Final = 3_000_000_000
LEFT_FREE_BYTES: Final = 1_000_000_000
INSIDE: Final = Path(sitecustomize.__file__).parent


@dataclass
class Driven:
    """What a run found: readings, wrong answers by kind, how long it took."""

    readings: list[Reading] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def wrong(self) -> int:
        """All answers that failed the load generator's checks."""
        return sum(self.errors.values())


def step_of(requests: int) -> int:
    """So many requests at a time: enough steps for a line in a short run, readings every few seconds in a long one."""
    return max(1, min(LONGEST_STEP, requests // LEAST_STEPS))


def require_room(folder: Path, least: int = LEAST_FREE_BYTES) -> None:
    """CannotRun where the disk may become full."""
    free = shutil.disk_usage(folder).free
    if free < least:
        raise CannotRun(
            f"{folder} has {free / 1e9:.1f} GB free; the journal needs {least / 1e9:.0f} GB there (TMPDIR says where)"
        )


@contextmanager
def gateway(upstream: int, folder: Path) -> Generator[Running, None, None]:
    """One worker with limits, a small journal, and collections counted in `folder`."""
    counts = folder / "collections"
    counts.mkdir()
    path = os.pathsep.join(filter(None, (str(INSIDE), os.environ.get("PYTHONPATH"))))
    enter = ("env", f"PYTHONPATH={path}", f"{sitecustomize.FOLDER_NAME}={counts}")
    place = Place(TARGET_CORE, upstream, folder / "gateway", procfs.raise_descriptor_limit(), Host(enter=enter))
    with Limited(extra={"journal": {"max_bytes": MAX_JOURNAL}}).running(place) as running:
        yield running


class Drive:
    """One run on a running gateway."""

    def __init__(self, running: Running, requests: int, folder: Path, progress: Progress) -> None:
        self._running, self._requests, self._folder, self._progress = running, requests, folder, progress
        self.driven = Driven()
        self._began = time.monotonic()

    def run(self) -> Driven:
        """All the requests; a reading after each step."""
        sent, step = 0, step_of(self._requests)
        while sent < self._requests:
            require_room(self._folder, LEFT_FREE_BYTES)
            count = min(step, self._requests - sent)
            self._progress.step(self._line(sent), count / EXPECTED_RPS)
            self._send(count)
            sent += count
            self.driven.readings.append(self._read(sent))
        self.driven.seconds = self._passed_s()
        return self.driven

    def _line(self, sent: int) -> str:
        last = self.driven.readings[-1] if self.driven.readings else None
        told = f", worker {last.rss_kb / 1024:.1f} MB, state {last.state_bytes / 1e9:.2f} GB" if last else ""
        return f"{sent:,} of {self._requests:,} requests{told}"

    def _send(self, count: int) -> None:
        work = workload.plain()
        load = native.load(
            self._running.port,
            ["--requests", str(count), "--connections", str(CONNECTIONS), *work.checks],
            body=work.write(self._folder),
            headers=self._running.headers,
            core=CLIENT_CORE,
            length_s=STEP_PATIENCE_S,
        )
        for kind, times in load.errors.items():
            self.driven.errors[kind] = self.driven.errors.get(kind, 0) + times
        for note in load.notes:
            self._progress.note(note)

    def _read(self, sent: int) -> Reading:
        found = self._running.reading()
        worker, control = found.called("worker"), found.called("control")
        if worker is None or control is None:
            raise CannotRun("the gateway lost a process")
        return Reading(
            requests=sent,
            at_s=self._passed_s(),
            rss_kb=worker.rss_kb,
            pss_kb=procfs.pss_kb(worker.pid),
            descriptors=worker.descriptors,
            collections=collections(self._folder / "collections" / str(worker.pid)),
            control_rss_kb=control.rss_kb,
            state_bytes=size_of(self._folder / "gateway" / "state"),
        )

    def _passed_s(self) -> float:
        return round(time.monotonic() - self._began, 3)


def collections(path: Path) -> tuple[int, int, int]:
    """Of each generation, as a process has counted them; none while it has no file."""
    data = path.read_bytes() if path.exists() else bytes(sitecustomize.BYTES)
    young, middle, old = struct.unpack(f"{sitecustomize.GENERATIONS}Q", data)
    return young, middle, old


def size_of(folder: Path) -> int:
    """Bytes of all files in and below it; those that go meanwhile do not count."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(directory, name).stat().st_size
    return total
