"""How long a start takes: from the execution of `gateway serve` to the first 200 of /readyz and a first answer.

Two workers on the target's core, with a state_dir that is fresh, and in turn with one that a gateway has used: journal
and snapshot are there. The files of the program are in the page cache and compiled, as after an update or a crash; the
first start after the machine's own takes longer. /readyz is asked every few milliseconds from the other core.

What it is made of is told as far as it costs nothing to know: when the first worker was forked (before that lie the
interpreter, its imports, configuration, journal and snapshot), and the CPU time of each kind of process. On one core
processes wait for each other, so the parts do not add up to the whole.
"""

import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from bench.speed import launch, native, procfs, workload
from bench.speed.disturbance import Disturbance
from bench.speed.launch import HTTP_OK, CannotRun
from bench.speed.procfs import Reading
from bench.speed.sections import CLIENT_CORE, Bench, Settings, come_to_rest
from bench.speed.targets import Gateway, Place, Running, with_workers

SECTION: Final = "start"
FRESH, USED = "fresh", "used"
STATES: Final = (FRESH, USED)
WORKERS: Final = 2
USED_REQUESTS: Final = 20_000
PROCESSES: Final = ("gw-super", "gw-worker", "gw-control")
LENGTH_S: Final = 1.5  # of one, with its end
USE_S: Final = 5.0
LOOK_EVERY_S: Final = 0.005
ANSWER_PATIENCE_S: Final = 10.0


@dataclass(frozen=True)
class Start:
    """One start: when it was ready and had answered, since its execution; and what it is made of."""

    target: str
    state: str
    repeat: int
    ready_s: float
    answered_s: float
    forked_s: float  # the first worker, to 10 ms
    cpu_us: Mapping[str, int]  # by kind of process, until the answer
    errors: dict[str, int] = field(default_factory=dict)  # what was wrong with the answer
    disturbance: Disturbance = field(default_factory=Disturbance)

    def summary(self) -> dict[str, Any]:
        """For raw.json."""
        return {**vars(self), "disturbance": self.disturbance.summary()}


def expected_s(settings: Settings) -> float:
    """About how long the section takes."""
    return USE_S + settings.repeats * len(STATES) * LENGTH_S


def measure(gateway: Gateway, place: Callable[[str], Place], bench: Bench) -> list[Start]:
    """As many starts of each state as there are repeats, in turn; `place` gives the gateway of a name its place."""
    gateway, used, numbers = with_workers(gateway, WORKERS), place("start-used"), count()
    _use(gateway, used, bench)
    found = []
    for repeat in range(bench.settings.repeats):
        for state in STATES:
            name = f"{SECTION} {repeat + 1}/{bench.settings.repeats} {state}"
            bench.progress.step(name, LENGTH_S)

            def once(state: str = state, repeat: int = repeat) -> Start:
                where = used if state == USED else place(f"start-fresh-{next(numbers)}")
                return _start(gateway, where, bench, state, repeat)

            found.append(bench.again.undisturbed(SECTION, name, once, LENGTH_S))
    return found


def _use(gateway: Gateway, place: Place, bench: Bench) -> None:
    """Leave a state_dir behind as a gateway does that was asked for a while."""
    bench.progress.step(f"{SECTION}: {USED_REQUESTS:,} requests before", USE_S)
    work = workload.plain()
    words = ("--requests", str(USED_REQUESTS), "--connections", str(bench.settings.connections), *work.checks)
    with gateway.running(place) as running:
        body, headers = work.write(bench.folder), running.headers
        load = native.load(running.port, words, body=body, headers=headers, core=CLIENT_CORE, length_s=USE_S)
        come_to_rest(running)
    if load.errors:
        raise CannotRun(f"{SECTION}: wrong answers before the first one: {load.errors}")


def _start(gateway: Gateway, place: Place, bench: Bench, state: str, repeat: int) -> Start:
    watch = bench.again.watch()
    place.folder.mkdir(parents=True, exist_ok=True)
    watch.look()
    with gateway.starting(place) as (process, running), procfs.pinned(CLIENT_CORE):
        process.wait_for("200 from /readyz", lambda: launch.answers(running.port, "/readyz"), every_s=LOOK_EVERY_S)
        ready_s = time.monotonic() - process.begun_s
        errors = first_answer(running)
        answered_s = time.monotonic() - process.begun_s
        reading = running.reading()
        watch.look()
    forked_s, cpu_us = parts(reading, process.pid)
    return Start(gateway.name, state, repeat, ready_s, answered_s, forked_s, cpu_us, errors, watch.found())


def first_answer(running: Running) -> dict[str, int]:
    """Ask once, as a caller would; what was wrong with the answer, nothing where it was right."""
    connection = http.client.HTTPConnection(running.address, running.port, timeout=ANSWER_PATIENCE_S)
    headers = dict(header.split(": ", 1) for header in running.headers)
    try:
        connection.request("POST", native.CHAT_PATH, workload.plain().body(), headers)
        answer = connection.getresponse()
        length = len(answer.read())
    except (OSError, http.client.HTTPException) as error:
        return {type(error).__name__: 1}
    finally:
        connection.close()
    if answer.status != HTTP_OK:
        return {f"status {answer.status}": 1}
    return {} if length == workload.ANSWER_BYTES else {"short_body": 1}


def parts(reading: Reading, root: int) -> tuple[float, dict[str, int]]:
    """Seconds until the first worker was forked, and CPU time by kind of process."""
    processes = reading.processes
    cpu_us = {
        kind: sum(process.cpu_us for process in processes.values() if process.name.startswith(kind))
        for kind in PROCESSES
    }
    workers = [process.born_us for process in processes.values() if process.name.startswith("gw-worker")]
    forked_us = min(workers) - processes[root].born_us if workers and root in processes else 0
    return forked_us / 1e6, cpu_us
