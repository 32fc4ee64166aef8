"""The page is what Prometheus and OpenMetrics readers accept, summed over slots and consistent in itself."""

import re

import pytest

from gateway.segment import Segment
from gateway.telemetry.directory import METRICS, Area, Family, Kind
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.scrape import Reading, scrape, wants_openmetrics

SEEN = Family("seen_total", Kind.COUNTER, 'Seen "here"\nor \\ there.', ("who",))
OPEN = Family("open", Kind.GAUGE, "Open.")
TOOK = Family("took_seconds", Kind.HISTOGRAM, "Took.", ("how",), (1_000, 2_500_000))


def segment() -> Segment:
    return Segment.create([METRICS], slots=3)


def lines(page: str, start: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith(start)]


def test_counters_are_summed_over_all_slots_and_gauges_over_the_living() -> None:
    shared = segment()
    for slot in range(3):
        metrics = Metrics(shared.slot(METRICS, slot))
        metrics.counter(SEEN, who="ann").add(slot + 1)
        metrics.gauge(OPEN).set(10)
    page = scrape(shared, live={0, 2})
    assert lines(page, "seen_total") == ['seen_total{who="ann"} 6']
    assert lines(page, "open") == ["open 20"]


def test_histograms_are_cumulative_in_seconds_and_count_what_they_show() -> None:
    shared = segment()
    for slot in range(2):
        histogram = Metrics(shared.slot(METRICS, slot)).histogram(TOOK, how="well")
        for us in (900, 1_000, 2_000_000, 9_000_000):
            histogram.observe_us(us)
    assert lines(scrape(shared, live=()), "took_seconds") == [
        'took_seconds_bucket{how="well",le="0.001"} 4',
        'took_seconds_bucket{how="well",le="2.5"} 6',
        'took_seconds_bucket{how="well",le="+Inf"} 8',
        'took_seconds_sum{how="well"} 22.0038',
        'took_seconds_count{how="well"} 8',
    ]


def test_bounds_two_builds_disagree_on_are_left_out() -> None:
    shared = segment()
    other = Family("took_seconds", Kind.HISTOGRAM, "Took.", ("how",), (1_000, 5_000))
    Metrics(shared.slot(METRICS, 0)).histogram(TOOK, how="well").observe_us(2_000)
    Metrics(shared.slot(METRICS, 1)).histogram(other, how="well").observe_us(2_000)
    assert lines(scrape(shared, live=()), "took_seconds_bucket") == [
        'took_seconds_bucket{how="well",le="0.001"} 0',
        'took_seconds_bucket{how="well",le="+Inf"} 2',
    ]


def test_prometheus_text() -> None:
    shared = segment()
    Metrics(shared.slot(METRICS, 0)).counter(SEEN, who='a"n\\n\n').add()
    assert scrape(shared, live=()) == (
        "# HELP gateway_metric_series_dropped_total Series that found no room in shared memory and are not shown.\n"
        "# TYPE gateway_metric_series_dropped_total counter\n"
        "gateway_metric_series_dropped_total 0\n"
        '# HELP seen_total Seen "here"\\nor \\\\ there.\n'
        "# TYPE seen_total counter\n"
        'seen_total{who="a\\"n\\\\n\\n"} 1\n'
    )


def test_openmetrics_names_counters_without_total_and_ends() -> None:
    shared = segment()
    Metrics(shared.slot(METRICS, 0)).counter(SEEN, who="ann").add()
    page = scrape(shared, live=(), openmetrics=True)
    assert lines(page, "# TYPE seen") == ["# TYPE seen counter"]
    assert lines(page, "# HELP seen") == ['# HELP seen Seen \\"here\\"\\nor \\\\ there.']
    assert lines(page, "seen") == ['seen_total{who="ann"} 1']
    assert page.endswith("\n# EOF\n")


def test_readings_are_shown_beside_what_was_counted() -> None:
    state = Family("workers", Kind.GAUGE, "Workers.", ("state",))
    readings = [Reading(state, 2, ("ready",)), Reading(state, 1, ("draining",)), Reading(OPEN, 5)]
    page = scrape(segment(), live=(), readings=readings)
    assert lines(page, "workers") == ['workers{state="draining"} 1', 'workers{state="ready"} 2']
    assert lines(page, "open") == ["open 5"]


def test_every_line_has_the_form_of_the_format() -> None:
    shared = segment()
    metrics = Metrics(shared.slot(METRICS, 0))
    metrics.counter(SEEN, who="ann {,} =").add()
    metrics.histogram(TOOK, how="é").observe_us(3)
    sample = re.compile(r'[a-z_]+(\{[a-z]+="([^"\\]|\\.)*"(,[a-z]+="([^"\\]|\\.)*")*\})? -?[0-9][0-9.e+-]*')
    for line in scrape(shared, live=()).splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line


def test_a_damaged_slot_does_not_hide_the_others() -> None:
    shared = segment()
    for slot in range(2):
        Metrics(shared.slot(METRICS, slot)).counter(SEEN, who="ann").add()
    words = shared.slot(METRICS, 0)
    words[8] = -3
    assert Area(words).read() == ([], [], 0)
    assert lines(scrape(shared, live=()), "seen_total") == ['seen_total{who="ann"} 1']


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.6, text/plain;version=0.0.4;q=0.5, */*;q=0.1", True),
        ("application/openmetrics-text; q=0.3, text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)
def test_the_format_follows_accept(accept: str, openmetrics: bool) -> None:
    assert wants_openmetrics(accept) is openmetrics
