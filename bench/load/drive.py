"""One run of Locust against one address, and what came of it.

Locust is a program beside the project's own packages: `build/locust/bin/locust` (made by `make bench-load`), the one on
the PATH, or what `--locust` names. Its statistics come back through the file that `bench.locust.kit` writes at the end.
"""

import json
import os
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.load.orders import VARIABLE, Orders
from bench.load.profiles import Profile
from bench.speed import launch
from bench.speed.launch import CannotRun, Process
from bench.speed.targets import ROOT

OWN: Final = ROOT / "build" / "locust" / "bin" / "locust"
PATIENCE_S: Final = 60.0  # beyond the run's length: start, last answers, statistics
SPAWN_S: Final = 2.0
WORKERS_PATIENCE_S: Final = 300.0  # until those of other machines are there
WEB_HOST, WEB_PORT = "127.0.0.1", 8089


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
    return [*words, *_spread(size), *classes]


def web_command(locust: str, profile: Profile, host: str, size: Size) -> list[str]:
    """With Locust's page on loopback, until it is stopped."""
    words = [locust, "-f", str(profile.locustfile), "--host", host, "--class-picker"]
    words += ["--web-host", WEB_HOST, "--web-port", str(WEB_PORT)]
    words += ["--users", str(size.users), "--spawn-rate", f"{max(1.0, size.users / SPAWN_S):g}"]
    return [*words, *_spread(size)]


def _spread(size: Size) -> list[str]:
    """Over which processes; those of this machine speak over loopback, at a port that no other run has."""
    if size.remote_workers:
        wait_s = f"{WORKERS_PATIENCE_S:g}"
        return ["--master", "--expect-workers", str(size.remote_workers), "--expect-workers-max-wait", wait_s]
    if size.workers == 1:
        return []
    port = str(launch.free_port())
    between = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port]
    return [*between, "--processes", str(size.workers)]


def environment(orders: Orders) -> dict[str, str]:
    """With the orders, and the project to import."""
    return {**os.environ, VARIABLE: orders.written(), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def _locust(words: Sequence[str], orders: Orders, folder: Path, core: int) -> Generator[Process, None, None]:
    env = ["env", *(f"{name}={value}" for name, value in environment(orders).items())]
    with launch.started("locust", [*env, *words], core=core, log=folder / "locust.log") as process:
        yield process


def serve(words: Sequence[str], orders: Orders, folder: Path, core: int, ready: Callable[[], None]) -> None:
    """Run Locust with its page until KeyboardInterrupt; `ready` is called once it is there. CannotRun when it ends."""
    if launch.accepts(WEB_PORT):
        raise CannotRun(f"port {WEB_PORT} is taken; is another page of Locust open?")
    with _locust(words, orders, folder, core) as process:
        process.wait_for(f"page on port {WEB_PORT}", lambda: launch.accepts(WEB_PORT))
        ready()
        status = process.popen.wait()
        raise CannotRun(f"locust ended with status {status}:\n{process.tail()}")


def run(words: Sequence[str], orders: Orders, size: Size, folder: Path, core: int) -> Outcome:
    """Run Locust to its end; CannotRun with its last words when it leaves no outcome."""
    written = folder / "outcome.json"
    written.unlink(missing_ok=True)
    with _locust(words, replace(orders, outcome=str(written)), folder, core) as process:
        try:
            process.popen.wait(size.seconds + PATIENCE_S + (WORKERS_PATIENCE_S if size.remote_workers else 0))
        except subprocess.TimeoutExpired:
            raise CannotRun(f"locust did not end:\n{process.tail()}") from None
        if not written.exists():
            raise CannotRun(f"locust left no result (status {process.popen.returncode}):\n{process.tail()}")
        return Outcome.parse(written.read_text())
