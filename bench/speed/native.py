"""The two C programs: built when stale, started, and their words turned into values."""

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.speed import launch
from bench.speed.histogram import Histogram
from bench.speed.launch import LOOPBACK, CannotRun

NATIVE: Final = Path(__file__).parent.parent / "native"
UPSTREAM: Final = NATIVE / "build" / "upstream"
LOAD: Final = NATIVE / "build" / "load"
CHAT_PATH: Final = "/v1/chat/completions"
MARGIN_S: Final = 90.0  # beyond its own length: connecting, draining, a busy machine


def build() -> None:
    """Make both programs; CannotRun with the compiler's words, or with what to install where it could not be."""
    launch.ensure("make:make", "cc:gcc", "/usr/include/stdio.h:libc6-dev", "setpriv:util-linux", "taskset:util-linux")
    made = subprocess.run(  # noqa: S603 - our own Makefile
        ["make", "-C", str(NATIVE), "--silent"],  # noqa: S607 - the make on PATH
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise CannotRun(f"the native programs do not build:\n{made.stderr}")


@contextmanager
def upstream(core: int, log: Path, address: str = LOOPBACK.address) -> Generator[int, None, None]:
    """A running upstream; its port."""
    with launch.started("upstream", [str(UPSTREAM), "--host", address], core=core, log=log) as process:
        process.wait_for("`listening PORT`", lambda: process.log.read_text().endswith("\n"))
        yield int(process.log.read_text().split()[1])


@dataclass(frozen=True)
class LoadResult:
    """What one run of the load generator saw in its window."""

    seconds: float
    ok: int
    rps: float
    events: int
    terminated: int
    held: int
    errors: dict[str, int]
    latency: Histogram
    ttft: Histogram
    lag: Histogram
    lateness: Histogram
    notes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, notes: Sequence[str] = ()) -> "LoadResult":
        """From the generator's JSON; errors that did not happen are left out."""
        printed = json.loads(text)
        return cls(
            seconds=printed["seconds"],
            ok=printed["ok"],
            rps=printed["rps"],
            events=printed["events"],
            terminated=printed["terminated"],
            held=printed["held"],
            errors={kind: count for kind, count in printed["errors"].items() if count},
            latency=Histogram.parse(printed["latency"]),
            ttft=Histogram.parse(printed["ttft"]),
            lag=Histogram.parse(printed["lag"]),
            lateness=Histogram.parse(printed["lateness"]),
            notes=tuple(notes),
        )

    def summary(self) -> dict[str, object]:
        """For raw.json."""
        distributions = {"latency": self.latency, "ttft": self.ttft, "lag": self.lag, "lateness": self.lateness}
        return {
            "seconds": self.seconds,
            "ok": self.ok,
            "rps": self.rps,
            "events": self.events,
            "terminated": self.terminated,
            "held": self.held,
            "errors": self.errors,
            "notes": self.notes,
            **{name: histogram.summary() for name, histogram in distributions.items() if histogram.total},
        }


def ignore(_: str) -> None:
    """For a run in which no moment matters."""


def load(
    port: int,
    arguments: Sequence[str],
    *,
    body: Path,
    headers: Sequence[str] = (),
    core: int,
    length_s: float,
    on_moment: Callable[[str], None] = ignore,
    address: str = LOOPBACK.address,
) -> LoadResult:
    """Drive a port and return what was seen.

    `on_moment` is called with "measuring", "held" and "measured" as they come, so that CPU time can be read over just
    that window. CannotRun if the generator gives up or takes far longer than `length_s`.
    """
    command = ["setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", str(core), str(LOAD)]
    command += [address, str(port), CHAT_PATH, "--body", str(body), *arguments]
    for header in headers:
        command += ["--header", header]
    output = body.with_suffix(".out")  # a file: the JSON may be larger than a pipe while we still read stderr
    with output.open("wb") as stdout:
        process = subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, start_new_session=True
        )
    try:
        notes = _follow(process, time.monotonic() + length_s + MARGIN_S, on_moment)
        if process.wait(MARGIN_S):
            raise CannotRun(f"load on port {port} ended with status {process.returncode}: {'; '.join(notes)}")
    except subprocess.TimeoutExpired:
        raise CannotRun(f"load on port {port} did not end") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
    return LoadResult.parse(output.read_text(), notes)


def _follow(process: "subprocess.Popen[bytes]", deadline: float, on_moment: Callable[[str], None]) -> list[str]:
    """Read stderr to its end; moments are passed on, other lines are returned."""
    notes: list[str] = []
    for line in _lines(process, deadline):
        moment = line.split(" ")[0]
        if moment in {"measuring", "held", "measured"}:
            on_moment(moment)
        else:
            notes.append(line)
    return notes


def _lines(process: "subprocess.Popen[bytes]", deadline: float) -> Generator[str, None, None]:
    if process.stderr is None:
        raise CannotRun("load was started without a pipe")
    descriptor, pending = process.stderr.fileno(), b""
    while time.monotonic() < deadline:
        ready, _, _ = select.select([descriptor], [], [], 1.0)
        if not ready:
            continue
        chunk = os.read(descriptor, 4096)
        if not chunk:
            return
        *whole, pending = (pending + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    raise CannotRun("load did not end in time")
