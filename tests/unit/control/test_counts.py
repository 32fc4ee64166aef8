"""Control's counters go on where they were when it is replaced, and its gauges are read when somebody asks."""

from types import SimpleNamespace
from typing import cast

import pytest

from gateway.control.counts import Counts, Tally, readings
from gateway.control.keeping import Keeping
from gateway.control.parts import Parts
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
    alerting = SimpleNamespace(
        crossed={"spend": 2}, webhooks=SimpleNamespace(results={("ops", "sent"): 2, ("ops", "given_up"): 0})
    )
    keeper = SimpleNamespace(given_back=1, repeated=6, corrected=8)
    made = SimpleNamespace(
        journal=SimpleNamespace(lines=4, written_bytes=900, lost=1, failures=2, failing=True, synced_by_thread=True),
        notary=SimpleNamespace(manifests=5, failures=1, last_signed_us=0, broken={"w0": "why"}),
        runners=(SimpleNamespace(name="usage", poisoned=3, lag_records=7),),
        limiting=SimpleNamespace(reason="", keeper=keeper, alerting=alerting),
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
    assert f'gateway_journal_sync_thread{{slot="{SLOT}"}} 1' in scrape(segment, live={SLOT})


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


def test_what_limits_count(segment: Segment) -> None:
    keeping = Keeping(lambda: None)
    counts = Counts(Metrics(segment.slot(METRICS, SLOT)), SLOT, keeping)
    keeping.parts = parts()
    for _ in range(2):
        counts.tick()
    limiting = keeping.parts.limiting
    assert limiting is not None
    cast("dict[str, int]", limiting.alerting.crossed)["other"] = 1
    cast("dict[tuple[str, str], int]", limiting.alerting.webhooks.results)["ops", "sent"] = 3
    counts.tick()
    assert counted(segment, families.LIMITS_GIVEN_BACK) == {(): 1}
    assert counted(segment, families.LIMITS_REPEATED) == {(): 6}
    assert counted(segment, families.LIMITS_CORRECTED) == {(): 8}
    assert counted(segment, families.BUDGET_CROSSINGS) == {("spend",): 2, ("other",): 1}
    assert counted(segment, families.WEBHOOKS_SENT) == {("ops", "sent"): 3, ("ops", "given_up"): 0}


@pytest.mark.parametrize(("why", "ready"), [("", 1), ("being read", 0)])
def test_whether_limits_count_what_was_used(segment: Segment, why: str, ready: int) -> None:
    keeping = cast("Keeping", SimpleNamespace(unready=why, parts=None))
    Counts(Metrics(segment.slot(METRICS, SLOT)), SLOT, keeping).tick()
    assert f"gateway_limits_ready {ready}\n" in scrape(segment, live={SLOT})


def test_a_tally_adds_what_is_new(segment: Segment) -> None:
    tally = Tally(Metrics(segment.slot(METRICS, 0)).counter(families.ADMIN_REFUSALS))
    for total in (3, 3, 5):
        tally.follow(total)
    assert counted(segment, families.ADMIN_REFUSALS) == {(): 5}
