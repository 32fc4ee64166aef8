"""Anchoring: the newest manifest is shown elsewhere, by schedule and on demand.

Models one clock an anchor. Every `every_s` the newest manifest is put there if it is another one than last time; what
fails is tried again after a pause that doubles, up to PAUSE_MAX_S, and is logged, counted and told as `problem`. An
anchor that hangs holds up nobody but itself: each works in a thread of its own, one call at a time. A start is as good
a moment as any, so the first manifest after it is anchored at once.

Invariant: nothing here delays signing, and no failure of an anchor stops it: what is not anchored stays signed. Left
out: what anchored manifests prove (`journal/verify.py`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gateway.config.schema import Anchor as AnchorSettings
from gateway.config.schema import Config
from gateway.journal.anchor.base import Anchor, AnchorFailed
from gateway.journal.anchor.registry import anchor_of
from gateway.journal.manifest import BadManifest, last_line, parse
from gateway.tasks import spawn
from gateway.units import NS_PER_US

TICK_S: Final = 1.0
PAUSE_S: Final = 5.0
PAUSE_MAX_S: Final = 300.0
_log: Final = logging.getLogger("gateway.control")


class Result(NamedTuple):
    """What came of one anchor: `where` the manifest is now, or why it is not, as `problem`."""

    anchor: str
    n: int
    where: str
    problem: str = ""


class NothingSigned(Exception):
    """There is no manifest to anchor; the message says what to do."""


def anchor_now(config: Config, journal: Path) -> list[Result]:
    """Put the newest manifest at every anchor that is configured, one after the other; blocks.

    Raises NothingSigned, and OSError or BadManifest where the newest manifest cannot be read.
    """
    line = last_line(journal)
    if line is None:
        raise NothingSigned(f"{journal} holds no manifest: one is signed a second after `gateway serve` has started")
    manifest, results = parse(line), list[Result]()
    for settings in config.journal.anchors:
        anchor = anchor_of(settings)
        try:
            results.append(Result(anchor.name, manifest.n, anchor.put(line, manifest.n, manifest.node)))
        except AnchorFailed as error:
            results.append(Result(anchor.name, manifest.n, "", str(error)))
    return results


class Scheduled:
    """One anchor, when it is due, and how it has fared. `last_n`: the manifest that lies there, -1 for none yet."""

    def __init__(
        self,
        journal: Path,
        settings: AnchorSettings,
        anchor: Anchor,
        clock_us: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        self.settings: Final = settings
        self.name: Final = anchor.name
        self.busy = False
        self._journal, self._anchor = journal, anchor
        self._clock_us, self._monotonic_s = clock_us, monotonic_s
        self._due_s = float("-inf")
        self._pause_s = PAUSE_S
        self.last_n = -1
        self.where = ""
        self.problem = ""
        # for metrics
        self.anchored = 0
        self.failures = 0
        self.last_success_us = 0

    def due(self) -> bool:
        """Whether it is time, and nothing is under way."""
        return not self.busy and self._monotonic_s() >= self._due_s

    def turn(self) -> None:
        """Put the newest manifest there, if it is a new one; blocks. Raises nothing."""
        try:
            self._put_newest()
        except (AnchorFailed, BadManifest, OSError) as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a defect of a library must not end the schedule
            _log.exception("anchor %s", self.name)
            self._failed(f"internal error: {type(error).__name__}")

    def _put_newest(self) -> None:
        line = last_line(self._journal)
        if line is None:
            return  # a moment after the first start
        manifest = parse(line)
        if manifest.n != self.last_n:
            self.where = self._anchor.put(line, manifest.n, manifest.node)
            self.last_n = manifest.n
            self.anchored += 1
            self.last_success_us = self._clock_us()
            if self.problem:
                _log.warning("anchor %s works again: %s", self.name, self.where)
        self.problem, self._pause_s = "", PAUSE_S
        self._due_s = self._monotonic_s() + self.settings.every_s

    def _failed(self, problem: str) -> None:
        self.failures += 1
        self.problem = problem
        self._due_s = self._monotonic_s() + self._pause_s
        _log.error("anchor %s: %s; it is tried again in %g s", self.name, problem, self._pause_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)


class Anchoring:
    """The schedule of all anchors; `scheduled` is what metrics and views read."""

    def __init__(
        self,
        journal: Path,
        settings: Sequence[AnchorSettings],
        clock_us: Callable[[], int] = lambda: time.time_ns() // NS_PER_US,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._clock_us, self._monotonic_s = clock_us, monotonic_s
        self.scheduled: tuple[Scheduled, ...] = ()
        self.adopt(settings)

    def adopt(self, settings: Sequence[AnchorSettings]) -> None:
        """Follow a reload; an anchor whose settings are as before keeps its schedule."""
        kept = list(self.scheduled)
        self.scheduled = tuple(_taken(kept, each) or self._scheduled(each) for each in settings)

    def tick(self) -> None:
        """Start what is due, each in a thread; on the loop."""
        for each in self.scheduled:
            if each.due():
                each.busy = True
                spawn(_off_loop(each), name=f"anchor {each.name}")

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)

    def _scheduled(self, settings: AnchorSettings) -> Scheduled:
        return Scheduled(self._journal, settings, anchor_of(settings), self._clock_us, self._monotonic_s)


async def _off_loop(each: Scheduled) -> None:
    try:
        await asyncio.to_thread(each.turn)
    finally:
        each.busy = False


def _taken(kept: list[Scheduled], settings: AnchorSettings) -> Scheduled | None:
    """Take the one with these settings out of the list, if there is one."""
    for at, each in enumerate(kept):
        if each.settings == settings:
            return kept.pop(at)
    return None
