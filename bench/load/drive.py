"""One run of Locust against one address, and what came of it.

Locust is a program beside the project's own packages: `build/locust/bin/locust` (made by `make bench-load`), the one on
the PATH, or what `--locust` names. Its statistics come back through the file that `bench.locust.kit` writes at the end.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.load.orders import VARIABLE, Orders
from bench.load.profiles import Profile
from bench.speed import launch
from bench.speed.launch import CannotRun
from bench.speed.targets import ROOT

OWN: Final = ROOT / "build" / "locust" / "bin" / "locust"
PATIENCE_S: Final = 60.0  # beyond the run's length: start, last answers, statistics
SPAWN_S: Final = 2.0


@dataclass(frozen=True)
class Entry:
    """One line of the statistics: a kind (POST, TTFT, GAP), a name, and times in ms."""

    kind: str
    name: str
    count: int
    failures: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    rps: float

    @property
    def label(self) -> str:
        """As it is told: plain requests by their name alone."""
        return self.name if self.kind == "POST" else f"{self.name} {self.kind}"


@dataclass(frozen=True)
class Outcome:
    """All entries of a run, and what was wrong with answers, by words and how often."""

    entries: Sequence[Entry]
    problems: Mapping[str, int]

    @classmethod
    def parse(cls, text: str) -> "Outcome":
        """What `kit.write_outcome` wrote."""
        printed: Mapping[str, Any] = json.loads(text)
        entries = [Entry(**entry) for entry in printed["entries"]]
        return cls(sorted(entries, key=lambda entry: (entry.name, entry.kind)), dict(printed["problems"]))

    def entry(self, like: Entry) -> Entry | None:
        """The entry of the same kind and name."""
        return next((e for e in self.entries if (e.kind, e.name) == (like.kind, like.name)), None)

    @property
    def requests(self) -> int:
        """Real requests, without the entries that are made of the same ones."""
        return sum(entry.count for entry in self.entries if entry.kind == "POST")

    @property
    def failures(self) -> int:
        """Answers that were refused, broken or wrong."""
        return sum(entry.failures for entry in self.entries)


@dataclass(frozen=True)
class Size:
    """How much: all users' requests a second, for how long, and by how many processes of Locust."""

    rate: float
    users: int
    seconds: float
    workers: int = 1
    remote_workers: int = 0

    @property
    def counted_s(self) -> float:
        """The part that the statistics are of: what users see while they are still arriving is dropped."""
        return self.seconds - SPAWN_S


def program(given: str | None) -> str:
    """Where Locust is; CannotRun says how to get it."""
    for candidate in (given, str(OWN), "locust"):
        if candidate and (found := launch.program(candidate)):
            return found
        if given:
            break
    raise CannotRun(
        f"locust is missing{f' at {given}' if given else ''}: `make bench-load` installs it into build/locust"
    )


def command(locust: str, profile: Profile, host: str, size: Size, classes: Sequence[str] = ()) -> list[str]:
    """Headless, for the given time."""
    words = [locust, "-f", str(profile.locustfile), "--host", host, "--headless", "--only-summary", "--reset-stats"]
    words += ["--users", str(size.users), "--spawn-rate", f"{max(1.0, size.users / SPAWN_S):g}"]
    words += ["--run-time", f"{size.seconds:g}s", "--stop-timeout", "30", "--exit-code-on-error", "0"]
    if size.remote_workers:
        words += ["--master", "--expect-workers", str(size.remote_workers)]
    elif size.workers > 1:
        words += ["--processes", str(size.workers)]
    return [*words, *classes]


def web_command(locust: str, profile: Profile, host: str, size: Size) -> list[str]:
    """With Locust's page on loopback, until Ctrl-C."""
    words = [locust, "-f", str(profile.locustfile), "--host", host, "--web-host", "127.0.0.1", "--class-picker"]
    words += ["--users", str(size.users), "--spawn-rate", f"{max(1.0, size.users / SPAWN_S):g}"]
    return [*words, "--processes", str(size.workers)] if size.workers > 1 else words


def environment(orders: Orders) -> dict[str, str]:
    """With the orders, and the project to import."""
    return {**os.environ, VARIABLE: orders.written(), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(words: Sequence[str], orders: Orders, size: Size, folder: Path, core: int) -> Outcome:
    """Run Locust to its end; CannotRun with its last words when it leaves no outcome."""
    written = folder / "outcome.json"
    written.unlink(missing_ok=True)
    env = ["env", *(f"{name}={value}" for name, value in environment(replace(orders, outcome=str(written))).items())]
    with launch.started("locust", [*env, *words], core=core, log=folder / "locust.log") as process:
        try:
            process.popen.wait(size.seconds + PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"locust did not end:\n{process.tail()}") from None
        if not written.exists():
            raise CannotRun(f"locust left no result (status {process.popen.returncode}):\n{process.tail()}")
        return Outcome.parse(written.read_text())
