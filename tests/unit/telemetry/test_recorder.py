"""Every ended exchange is counted once, under names of the config only."""

import pytest

from gateway.record import Attempt, Ending, Kind, Record, Usage
from gateway.segment import Segment
from gateway.telemetry import recorder as module
from gateway.telemetry.directory import METRICS
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Gauges, Journaled, Names, Recorder, resident_bytes
from gateway.telemetry.scrape import scrape

NAMES = Names(
    routes=frozenset({"default"}),
    models=frozenset({"gpt-4o", "open/*"}),
    targets=frozenset({"a/large", "open/*"}),
    surfaces=frozenset({"chat"}),
)


class Bench:
    """A recorder in a segment of its own, and the lines a scrape of it shows."""

    def __init__(self) -> None:
        self.segment = Segment.create([METRICS], slots=2)
        self.recorder = Recorder(Metrics(self.segment.slot(METRICS, 1)), 1, NAMES)

    def shown(self, family: str) -> list[str]:
        page = scrape(self.segment, live={1})
        return [line.removeprefix(family) for line in page.splitlines() if line.startswith(family)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def record(ending: Ending = Ending.COMPLETE, status: int = 200, **fields: object) -> Record:
    values: dict[str, object] = {"surface": "chat", "status": status, "ending": ending.value, **fields}
    return Record(Kind.OUTCOME, "x", 0, **values)  # type: ignore[arg-type]


def test_a_complete_exchange_counts_everywhere_it_should(bench: Bench) -> None:
    done = record(
        attempts=(Attempt("a/large", "upstream_reset"), Attempt("a/large", "ok")),
        usage=Usage(input_tokens=7, output_tokens=11),
        duration_us=30_000,
        overhead_us=120,
        first_content_us=20_000,
    )
    bench.recorder.exchange(done, "default", "gpt-4o")
    bench.recorder.exchange(done, "default", "gpt-4o")
    assert bench.shown("gateway_requests_total") == ['{route="default",model="gpt-4o",surface="chat",code="200"} 2']
    assert bench.shown("gateway_request_seconds_sum") == ['{model="gpt-4o"} 0.06']
    assert bench.shown("gateway_overhead_seconds_sum") == ['{route="default"} 0.00024']
    assert bench.shown('gateway_overhead_seconds_bucket{route="default",le="0.0001"}') == [" 0"]
    assert bench.shown('gateway_overhead_seconds_bucket{route="default",le="0.0002"}') == [" 2"]
    assert bench.shown("gateway_time_to_first_token_seconds_count") == ['{model="gpt-4o"} 2']
    assert bench.shown("gateway_tokens_total") == [
        '{model="gpt-4o",direction="input"} 14',
        '{model="gpt-4o",direction="output"} 22',
    ]
    assert bench.shown("gateway_attempts_total") == [
        '{target="a/large",cause="ok"} 2',
        '{target="a/large",cause="upstream_reset"} 2',
    ]


def test_an_answer_without_content_or_usage_has_no_first_token(bench: Bench) -> None:
    bench.recorder.exchange(record(), "default", "gpt-4o")
    assert bench.shown("gateway_time_to_first_token_seconds_count") == ['{model="gpt-4o"} 0']
    assert bench.shown("gateway_tokens_total{model=") == [
        '"gpt-4o",direction="input"} 0',
        '"gpt-4o",direction="output"} 0',
    ]


@pytest.mark.parametrize(
    ("ending", "family", "labels"),
    [
        (Ending.TRUNCATED, "gateway_streams_truncated_total", '{model="gpt-4o"}'),
        (Ending.ABANDONED, "gateway_abandoned_total", '{model="gpt-4o"}'),
        (Ending.REFUSED, "gateway_refusals_total", '{reason="invalid_api_key"}'),
    ],
)
def test_other_endings_have_their_counter(bench: Bench, ending: Ending, family: str, labels: str) -> None:
    for _ in range(2):
        bench.recorder.exchange(record(ending, 401, error="invalid_api_key"), "default", "gpt-4o")
    assert bench.shown(family) == [f"{labels} 2"]


def test_a_failed_exchange_shows_in_its_status(bench: Bench) -> None:
    bench.recorder.exchange(record(Ending.FAILED, 502, error="upstream_reset"), "default", "gpt-4o")
    assert bench.shown("gateway_refusals_total") == []
    assert bench.shown("gateway_requests_total") == ['{route="default",model="gpt-4o",surface="chat",code="502"} 1']


def test_names_the_config_does_not_know_are_unknown(bench: Bench) -> None:
    odd = record(attempts=(Attempt("open/what-a-caller-chose", "ok"), Attempt("b/x", "ok")), surface="nowhere")
    bench.recorder.exchange(odd, "", "a-caller-s-word")
    assert bench.shown("gateway_requests_total") == ['{route="unknown",model="unknown",surface="unknown",code="200"} 1']
    assert bench.shown("gateway_attempts_total") == [
        '{target="open/*",cause="ok"} 1',
        '{target="unknown",cause="ok"} 1',
    ]


def test_names_chosen_by_callers_take_no_memory_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 10)
    for number in range(25):
        bench.recorder.exchange(record(attempts=(Attempt(f"open/{number}", "ok"),)), "default", f"m{number}")
    assert len(bench.recorder._attempts) <= 10
    assert len(bench.recorder._kept) <= 10
    assert bench.shown("gateway_attempts_total") == ['{target="open/*",cause="ok"} 25']


def test_a_new_snapshot_s_names_count_from_then_on(bench: Bench) -> None:
    bench.recorder.exchange(record(), "default", "new")
    bench.recorder.renamed(Names(routes=frozenset({"default"}), models=frozenset({"new"})))
    bench.recorder.exchange(record(), "default", "new")
    assert [line.partition(",surface")[0] for line in bench.shown("gateway_requests_total")] == [
        '{route="default",model="new"',
        '{route="default",model="unknown"',
    ]


def test_a_tick_shows_the_gauges_of_now(bench: Bench) -> None:
    bench.recorder.tick(Gauges(open_streams=3, connections=9, upstream={"a": (2, 5)}, log_lines_dropped=4))
    bench.recorder.tick(Gauges(open_streams=1, connections=8, upstream={"b": (1, 0)}, log_lines_dropped=6))
    assert bench.shown("gateway_open_streams") == [" 1"]
    assert bench.shown("gateway_connections") == [" 8"]
    assert bench.shown("gateway_upstream_connections") == [
        '{provider="a",state="busy"} 0',
        '{provider="a",state="idle"} 0',
        '{provider="b",state="busy"} 1',
        '{provider="b",state="idle"} 0',
    ]
    assert bench.shown("gateway_log_lines_dropped_total") == [" 6"]
    (rss,) = bench.shown("gateway_worker_rss_bytes")
    assert rss.startswith('{slot="1"} ')
    assert resident_bytes() > 1_000_000


def test_what_a_chain_says_of_itself_is_counted_once(bench: Bench) -> None:
    for journal in (Journaled(3, 900, 1, 1, failing=True), Journaled(5, 1500, 1, 1), Journaled(5, 1500, 1, 1)):
        bench.recorder.tick(Gauges(journal=journal))
    assert bench.shown("gateway_journal_lines_total") == [" 5"]
    assert bench.shown("gateway_journal_bytes_total") == [" 1500"]
    assert bench.shown("gateway_journal_lost_records_total") == [" 1"]
    assert bench.shown("gateway_journal_failures_total") == [" 1"]
    assert bench.shown("gateway_journal_failing") == ['{slot="1"} 0']


def test_a_chain_that_cannot_be_written_shows(bench: Bench) -> None:
    bench.recorder.tick(Gauges(journal=Journaled(failing=True)))
    assert bench.shown("gateway_journal_failing") == ['{slot="1"} 1']
