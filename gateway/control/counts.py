"""Shows the plain integers that control's parts keep, in control's slot of the metrics and at scrape time.

What counts up is followed into shared memory, so that it goes on where it was when control is replaced; what goes up
and down is read when somebody asks.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gateway.control.keeping import Keeping
from gateway.control.limiting import Limiting
from gateway.control.parts import Parts
from gateway.telemetry import families
from gateway.telemetry.directory import Family
from gateway.telemetry.metrics import Counter, Metrics
from gateway.telemetry.recorder import JournalCounts, Journaled, resident_bytes
from gateway.telemetry.scrape import Reading
from gateway.units import NS_PER_US

if TYPE_CHECKING:
    from collections.abc import Sequence

_US_PER_MS = 1_000


class Counts:
    """The counters of control: `tick` counts what was added since the last one."""

    def __init__(self, metrics: Metrics, slot: int, keeping: Keeping) -> None:
        self._metrics = metrics
        self._keeping = keeping
        self._rss = metrics.gauge(families.WORKER_RSS, slot=str(slot))
        self._journal = JournalCounts(metrics, slot)
        self._limits_ready = metrics.gauge(families.LIMITS_READY)
        self._tallies: dict[tuple[object, ...], Tally] = {}  # of totals that are there once something was counted
        self._followed: list[tuple[Tally, Callable[[], int]]] = []
        self._parts: Parts | None = None

    def follow(self, counter: Counter, total: Callable[[], int]) -> None:
        """Count what this total grows by from now on."""
        self._followed.append((Tally(counter), total))

    def tick(self) -> None:
        """Count what was added since the last tick."""
        self._rss.set(resident_bytes())
        self._limits_ready.set(not self._keeping.unready)
        parts = self._keeping.parts
        if parts is not None:
            if self._parts is None:
                self._parts = parts
                self._follow_parts(parts)
            journal = parts.journal
            self._journal.show(
                Journaled(
                    journal.lines,
                    journal.written_bytes,
                    journal.lost,
                    journal.failures,
                    journal.failing,
                    journal.synced_by_thread,
                )
            )
            if parts.limiting is not None:
                self._show_alerts(parts.limiting)
        for tally, total in self._followed:
            tally.follow(total())

    def _follow_parts(self, parts: Parts) -> None:
        metrics, notary = self._metrics, parts.notary
        self.follow(metrics.counter(families.JOURNAL_MANIFESTS), lambda: notary.manifests)
        self.follow(metrics.counter(families.JOURNAL_SIGN_FAILURES), lambda: notary.failures)
        for runner in parts.runners:
            counter = metrics.counter(families.JOURNAL_POISON, reader=runner.name)
            self.follow(counter, lambda runner=runner: runner.poisoned)  # type: ignore[misc]
        if parts.limiting is not None:
            keeper = parts.limiting.keeper
            self.follow(metrics.counter(families.LIMITS_GIVEN_BACK), lambda: keeper.given_back)
            self.follow(metrics.counter(families.LIMITS_REPEATED), lambda: keeper.repeated)
            self.follow(metrics.counter(families.LIMITS_CORRECTED), lambda: keeper.corrected)

    def _show_alerts(self, limiting: Limiting) -> None:
        alerting = limiting.alerting
        for rule, crossed in alerting.crossed.items():
            self._tally(families.BUDGET_CROSSINGS, rule=rule).follow(crossed)
        for (webhook, result), events in alerting.webhooks.results.items():
            self._tally(families.WEBHOOKS_SENT, webhook=webhook, result=result).follow(events)

    def _tally(self, family: Family, **labels: str) -> "Tally":
        known = (family, *labels.values())
        if known not in self._tallies:
            self._tallies[known] = Tally(self._metrics.counter(family, **labels))
        return self._tallies[known]


class Tally:
    """A counter that follows a total which starts at 0 with the process."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen = 0

    def follow(self, total: int) -> None:
        """Add what the total has grown by."""
        self._counter.add(total - self._seen)
        self._seen = total


def readings(keeping: Keeping) -> "Sequence[Reading]":
    """How the journal is at this moment; nothing where none is kept, or not yet."""
    return () if keeping.parts is None else tuple(_readings(keeping.parts))


def _readings(parts: Parts) -> Iterator[Reading]:
    notary, retention = parts.notary, parts.retention
    for runner in parts.runners:
        yield Reading(families.JOURNAL_LAG, runner.lag_records, (runner.name,))
    yield Reading(families.JOURNAL_SIGNED_AGE, _age_ms(notary.last_signed_us))
    yield Reading(families.JOURNAL_BROKEN, len(notary.broken))
    yield Reading(families.JOURNAL_USED, retention.used_bytes)
    yield Reading(families.JOURNAL_ALARM, int(retention.alarm))
    for anchor in parts.anchoring.scheduled:
        yield Reading(families.ANCHOR_AGE, _age_ms(anchor.last_success_us), (anchor.name,))


def _age_ms(at_us: int) -> int:
    return max(0, time.time_ns() // NS_PER_US - at_us) // _US_PER_MS if at_us else -1
