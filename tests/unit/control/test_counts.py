"""Control's counters go on where they were when it is replaced, and its gauges are read when somebody asks."""

from types import SimpleNamespace
from typing import cast

import pytest

from gateway.control.counts import Counts, Tally, readings
from gateway.control.keeping import Keeping, Parts
from gateway.segment import Segment
from gateway.telemetry import families
from gateway.telemetry.directory import METRICS
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.scrape import counted, scrape

SLOT = 3


@pytest.fixture
def segment() -> Segment:
    return Segment.create([METRICS], slots=4)


def parts() -> Parts:
    """As much of the parts as is counted."""
    made = SimpleNamespace(
        journal=SimpleNamespace(lines=4, written_bytes=900, lost=1, failures=2, failing=True),
        notary=SimpleNamespace(manifests=5, failures=1, last_signed_us=0, broken={"w0": "why"}),
        readers=SimpleNamespace(runners=(SimpleNamespace(name="usage", poisoned=3, lag_records=7),)),
        retention=SimpleNamespace(used_bytes=123, alarm=True),
        anchoring=SimpleNamespace(scheduled=(SimpleNamespace(name="file:/a", last_success_us=1),)),
    )
    return cast("Parts", made)


def test_what_the_parts_count_is_followed_from_the_moment_they_are_there(segment: Segment) -> None:
    keeping = Keeping(lambda: None)
    counts = Counts(Metrics(segment.slot(METRICS, SLOT)), SLOT, keeping)
    counts.tick()
    keeping.parts = parts()
    counts.tick()
    counts.tick()
    assert counted(segment, families.JOURNAL_LINES) == {(): 4}
    assert counted(segment, families.JOURNAL_MANIFESTS) == {(): 5}
    assert counted(segment, families.JOURNAL_SIGN_FAILURES) == {(): 1}
    assert counted(segment, families.JOURNAL_POISON) == {("usage",): 3}
    assert f'gateway_journal_failing{{slot="{SLOT}"}} 1' in scrape(segment, live={SLOT})


def test_a_control_that_takes_over_counts_on(segment: Segment) -> None:
    for _ in range(2):
        keeping = Keeping(lambda: None)
        keeping.parts = parts()
        Counts(Metrics(segment.slot(METRICS, SLOT)), SLOT, keeping).tick()
    assert counted(segment, families.JOURNAL_MANIFESTS) == {(): 10}


def test_how_the_journal_is_at_this_moment() -> None:
    keeping = Keeping(lambda: None)
    assert readings(keeping) == ()
    keeping.parts = parts()
    told = {reading.family.name: (reading.value, reading.values) for reading in readings(keeping)}
    assert told["gateway_journal_lag_records"] == (7, ("usage",))
    assert told["gateway_journal_signed_age_ms"] == (-1, ())
    assert told["gateway_journal_broken_chains"] == (1, ())
    assert told["gateway_journal_used_bytes"] == (123, ())
    assert told["gateway_journal_alarm"] == (1, ())
    assert told["gateway_journal_anchor_age_ms"][0] > 0


def test_a_tally_adds_what_is_new(segment: Segment) -> None:
    total = [3]
    counter = Metrics(segment.slot(METRICS, 0)).counter(families.ADMIN_REFUSALS)
    tally = Tally(counter, lambda: total[0])
    tally.follow()
    tally.follow()
    total[0] = 5
    tally.follow()
    assert counted(segment, families.ADMIN_REFUSALS) == {(): 5}
