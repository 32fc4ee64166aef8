"""An upgrade to another layout loses no count, however often and in whatever state the copy runs."""

from gateway.segment import Segment
from gateway.telemetry.directory import METRICS, Family, Kind
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.scrape import scrape
from gateway.telemetry.transfer import import_counters

SEEN = Family("seen_total", Kind.COUNTER, "Seen.", ("who",))
OPEN = Family("open", Kind.GAUGE, "Open.")
TOOK = Family("took_seconds", Kind.HISTOGRAM, "Took.", (), (10, 100))


def shown(segment: Segment, start: str) -> list[str]:
    return [line for line in scrape(segment, live=range(segment.slots)).splitlines() if line.startswith(start)]


def test_sums_survive_into_a_segment_of_fewer_slots_while_old_workers_still_count() -> None:
    old, new = Segment.create([METRICS], slots=4), Segment.create([METRICS], slots=2)
    draining = [Metrics(old.slot(METRICS, slot)) for slot in range(4)]
    for metrics in draining:
        metrics.counter(SEEN, who="ann").add(10)
        metrics.gauge(OPEN).set(3)
        metrics.histogram(TOOK).observe_us(50)
    import_counters(old, new)
    Metrics(new.slot(METRICS, 0)).counter(SEEN, who="ann").add(5)
    assert shown(new, "seen_total") == ['seen_total{who="ann"} 45']
    draining[3].counter(SEEN, who="ann").add(1)
    draining[3].counter(SEEN, who="bob").add(2)
    import_counters(old, new)
    import_counters(old, new)
    assert shown(new, "seen_total") == ['seen_total{who="ann"} 46', 'seen_total{who="bob"} 2']
    assert shown(new, "took_seconds_count") == ["took_seconds_count 4"]
    assert shown(new, "took_seconds_sum") == ["took_seconds_sum 0.0002"]
    assert shown(new, "open") == []


def test_a_second_upgrade_carries_what_the_first_had_carried() -> None:
    segments = [Segment.create([METRICS], slots=1) for _ in range(3)]
    for segment in segments:
        Metrics(segment.slot(METRICS, 0)).counter(SEEN, who="ann").add(1)
    import_counters(segments[0], segments[1])
    import_counters(segments[1], segments[2])
    assert shown(segments[2], "seen_total") == ['seen_total{who="ann"} 3']
