"""What others took from the bench's cores while something was measured, and that such a measurement is made again.

Whatever the two cores did and none of the bench's own processes (the driver, and all below it), nor a thread of the
kernel, is known to have done, others did: other programs, or interrupts that came while a core was idle. What the
hypervisor kept is told beside. Each is a share of one core.

    taken = time that passed - idle - stolen - spent by our own processes and by the kernel's threads

The kernel's threads are left out since what they do (writing a journal to the disk) is mostly done for a target, so a
measurement would be thrown away for what was measured. Interrupts are part of the time of the process that they came
upon, or are taken off where the kernel accounts for them apart.

A measurement is disturbed when more than MAX_DISTURBANCE was taken and stolen. It is thrown away, the machine waited
for, and made again. Nothing in here can know what was measured: only the disturbance decides, never the result. What
was thrown away is kept for raw.json. The time for it is bounded; when that is over, or the machine does not become
quiet, the least disturbed one counts.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol, TypeVar

from bench.speed import procfs
from bench.speed.procfs import CoreTimes, Spent

MAX_DISTURBANCE: Final = 0.10  # of one core, on both; an idle virtual machine shows 5 to 7 % under load of itself
MAX_TRIES: Final = 3
MAX_WAIT_S: Final = 60.0
QUIET_LOOK_S: Final = 0.5


@dataclass(frozen=True)
class Disturbance:
    """What was taken by others on each of the two cores, and stolen on both, as shares of one core.

    On one core alone it may be below zero, where an own process that is not pinned has come from the other core.
    """

    target_core: float = 0.0
    client_core: float = 0.0
    stolen: float = 0.0

    @property
    def taken(self) -> float:
        """By others, on both cores."""
        return max(0.0, self.target_core + self.client_core)

    @property
    def total(self) -> float:
        """All that was not the bench's."""
        return self.taken + self.stolen

    @property
    def too_much(self) -> bool:
        """Whether a measurement beside it is thrown away."""
        return self.total > MAX_DISTURBANCE

    def summary(self) -> dict[str, float]:
        """For raw.json."""
        return {name: round(share, 4) for name, share in asdict(self).items()}


@dataclass(frozen=True)
class Look:
    """The two cores and our own processes at one moment."""

    at_s: float
    cores: tuple[CoreTimes, CoreTimes]
    own: Spent


class Watch:
    """Looks at the cores at the two ends of a window."""

    def __init__(self, target_core: int, client_core: int, *, with_interrupts: bool) -> None:
        self._cores = (target_core, client_core)
        self._with_interrupts = with_interrupts
        self._looks: list[Look] = []

    def look(self) -> None:
        """One end of the window."""
        cores = (CoreTimes.read(self._cores[0]), CoreTimes.read(self._cores[1]))
        self._looks.append(Look(time.monotonic(), cores, Spent.by(os.getpid())))

    def found(self) -> Disturbance:
        """Between the first and the last look."""
        target, client = (self._taken(place) for place in (0, 1))
        return Disturbance(target, client, sum(self._passed(place).stolen_us for place in (0, 1)) / self._length_us())

    def _length_us(self) -> float:
        return (self._looks[-1].at_s - self._looks[0].at_s) * 1e6

    def _passed(self, place: int) -> CoreTimes:
        first, last = self._looks[0].cores[place], self._looks[-1].cores[place]
        return CoreTimes(
            last.idle_us - first.idle_us,
            last.interrupts_us - first.interrupts_us,
            last.stolen_us - first.stolen_us,
        )

    def _taken(self, place: int) -> float:
        passed = self._passed(place)
        apart = 0 if self._with_interrupts else passed.interrupts_us
        own = self._looks[-1].own.since(self._looks[0].own, self._cores[place])
        return 1 - (passed.idle_us + passed.stolen_us + apart + own) / self._length_us()


class Measured(Protocol):
    """What a measurement gives: what was found, and what others took meanwhile."""

    @property
    def disturbance(self) -> Disturbance:
        """Of its window."""

    def summary(self) -> dict[str, Any]:
        """For raw.json."""


M = TypeVar("M", bound=Measured)


@dataclass(frozen=True)
class Thrown:
    """One that was thrown away: its section, what others took, and what it found, for whoever doubts the choice."""

    section: str
    disturbance: Disturbance
    found: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """For raw.json."""
        return {"section": self.section, "disturbance": self.disturbance.summary(), "found": self.found}

    @property
    def errors(self) -> Mapping[str, int]:
        """Wrong answers by kind."""
        errors: Mapping[str, int] = self.found.get("load", self.found).get("errors", {})
        return errors


@dataclass
class Again:
    """Makes measurements, and those that were disturbed again, as long as there is time to spare."""

    spare_s: float
    watch: Callable[[], Watch]
    note: Callable[[str], None]
    thrown: list[Thrown] = field(default_factory=list)
    sleep: Callable[[float], None] = time.sleep

    def undisturbed(self, section: str, name: str, measure: Callable[[], M], length_s: float) -> M:
        """The first that was not disturbed; the least disturbed one when tries or time to spare are used up."""
        tries = [measure()]
        while tries[-1].disturbance.too_much and len(tries) < MAX_TRIES and self.spare_s >= length_s:
            self.note(f"{name}: {told(tries[-1].disturbance)}; made again when the machine is quiet")
            if not self._quiet_in_time(length_s):
                self.note(f"{name}: the machine did not become quiet")
                break
            tries.append(measure())
        chosen = min(tries, key=lambda found: found.disturbance.total)
        thrown = (found for found in tries if found is not chosen)
        self.thrown += [Thrown(section, found.disturbance, found.summary()) for found in thrown]
        return chosen

    def _quiet_in_time(self, length_s: float) -> bool:
        """Wait for a quiet machine; that, and one more measurement if it is quiet, comes off the time to spare."""
        looks = 1 + int(min(MAX_WAIT_S, self.spare_s - length_s) / QUIET_LOOK_S)
        quiet = any(self._quiet() for _ in range(looks))
        self.spare_s -= length_s if quiet else 0.0
        return quiet

    def _quiet(self) -> bool:
        watch = self.watch()
        self.spare_s -= QUIET_LOOK_S
        watch.look()
        self.sleep(QUIET_LOOK_S)
        watch.look()
        return not watch.found().too_much


def told(disturbance: Disturbance) -> str:
    """In words."""
    stolen = f", and {disturbance.stolen:.0%} were stolen" if disturbance.stolen > MAX_DISTURBANCE / 10 else ""
    return f"others took {disturbance.taken:.0%} of a core{stolen}"


def watching(target_core: int, client_core: int) -> Callable[[], Watch]:
    """Makes watches of these cores; finds out once how this kernel accounts for interrupts."""
    with_interrupts = procfs.processes_have_interrupts()
    return lambda: Watch(target_core, client_core, with_interrupts=with_interrupts)


def report(kept: Iterable[tuple[str, Disturbance]], thrown: Sequence[Thrown]) -> list[str]:
    """Lines for a report: of what counts (section and disturbance of each), and of what was thrown away."""
    shares = list(kept)
    disturbed = [(section, disturbance) for section, disturbance in shares if disturbance.too_much]
    lines = []
    if thrown:
        parts = _by_section((one.section, one.disturbance) for one in thrown)
        lines.append(
            f"{len(thrown)} measurements beside the {len(shares)} that count were thrown away, since others took more "
            f"than {MAX_DISTURBANCE:.0%} of a core meanwhile: {parts}. Their figures are in raw.json."
        )
    if disturbed:
        lines.append(
            f"{len(disturbed)} of the {len(shares)} measurements count although others took more than "
            f"{MAX_DISTURBANCE:.0%} of a core, and could not be made again in time: {_by_section(disturbed)}."
        )
    elif shares:
        worst = max(disturbance.total for _, disturbance in shares)
        lines.append(f"Beside each of the {len(shares)} measurements others took at most {worst:.0%} of a core.")
    return lines


def _by_section(found: Iterable[tuple[str, Disturbance]]) -> str:
    """How many of each section, and how much was taken."""
    sections: dict[str, list[float]] = {}
    for section, disturbance in found:
        sections.setdefault(section, []).append(disturbance.total)
    return ", ".join(
        f"{len(shares)} of {section} (" + "–".join(f"{share:.0%}" for share in sorted({min(shares), max(shares)})) + ")"
        for section, shares in sections.items()
    )
