"""Every ended exchange is counted once, under names of the config only."""

import pytest

from gateway.config.limits import SHORT_FORMS
from gateway.limiter.slicekeeping import SliceCounts
from gateway.limiter.store import StoreCounts
from gateway.record import Attempt, Ending, Kind, Record, Usage
from gateway.segment import Segment
from gateway.telemetry import recorder as module
from gateway.telemetry.directory import DIRECTORY_WORDS, METRICS, Area
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import (
    MAX_RULES,
    Gauges,
    Journaled,
    Limited,
    Names,
    Recorder,
    resident_bytes,
    rule_names,
)
from gateway.telemetry.scrape import scrape

NAMES = Names(
    routes=frozenset({"default"}),
    models=frozenset({"gpt-4o", "open/*"}),
    targets=frozenset({"a/large", "open/*"}),
    surfaces=frozenset({"chat"}),
    rules=rule_names(["team-tpm", "old"]),
)


class Bench:
    """A recorder in a segment of its own, and the lines a scrape of it shows."""

    def __init__(self) -> None:
        self.segment = Segment.create([METRICS], slots=2)
        self.recorder = Recorder(Metrics(self.segment.slot(METRICS, 1)), 1, NAMES)

    def replaced(self) -> None:
        """The worker is gone, another has its slot."""
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


def test_what_exchanges_cost_is_summed_by_model(bench: Bench) -> None:
    for cost_microusd in (1_250, 0, 30):
        bench.recorder.exchange(record(cost_microusd=cost_microusd), "default", "gpt-4o")
    bench.recorder.exchange(record(cost_microusd=7), "default", "a-caller-s-word")
    assert bench.shown("gateway_cost_microusd_total") == ['{model="gpt-4o"} 1280', '{model="unknown"} 7']


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


def test_a_chain_that_a_thread_syncs_shows(bench: Bench) -> None:
    for by_thread in (False, True):
        bench.recorder.tick(Gauges(journal=Journaled(sync_thread=by_thread)))
        assert bench.shown("gateway_journal_sync_thread") == [f'{{slot="1"}} {int(by_thread)}']


def test_what_a_limiter_says_of_itself_is_counted_once(bench: Bench) -> None:
    refused, shadowed = {"team-tpm": 2, "key.rpm": 1}, {"team-tpm": 4}
    bench.recorder.tick(Gauges(limits=Limited(refused, shadowed, 1, 2, 3, open=5, owed=6)))
    refused["team-tpm"] = 9  # the limiter's own dictionary, which goes on counting
    for _ in range(2):
        bench.recorder.tick(Gauges(limits=Limited(refused, shadowed, 4, 2, 5, open=2, owed=0)))
    assert bench.shown("gateway_limit_refusals_total") == ['{rule="key.rpm"} 1', '{rule="team-tpm"} 9']
    assert bench.shown("gateway_limit_shadowed_total") == ['{rule="team-tpm"} 4']
    assert bench.shown("gateway_limits_degraded_total") == [" 4"]
    assert bench.shown("gateway_limits_unavailable_total") == [" 2"]
    assert bench.shown("gateway_limits_undelivered_total") == [" 5"]
    assert bench.shown("gateway_limit_holds") == [" 2"]
    assert bench.shown("gateway_limit_owed") == [" 0"]


def test_without_a_store_there_is_none_to_be_away(bench: Bench) -> None:
    assert bench.shown("gateway_limit_store") == ['_up{slot="1"} 1']
    bench.recorder.tick(Gauges(limits=Limited()))
    assert bench.shown("gateway_limit_store") == ['_up{slot="1"} 1']


def test_slices_are_counted_once_where_there_are_any(bench: Bench) -> None:
    bench.recorder.tick(Gauges(limits=Limited()))
    assert bench.shown("gateway_limit_slices_total") == []
    counts = SliceCounts(admitted=10, dry=2, exchanges=3)
    for _ in range(2):
        bench.recorder.tick(Gauges(limits=Limited(slices=counts)))
    counts.admitted = 12
    bench.recorder.tick(Gauges(limits=Limited(slices=counts)))
    assert bench.shown("gateway_limit_slices_total") == [
        '{event="admitted"} 12',
        '{event="dry"} 2',
        '{event="exchanges"} 3',
    ]


def test_a_store_s_calls_and_outages_are_counted_once(bench: Bench) -> None:
    counts = StoreCounts(answered=10, late=1, refused=2, unasked=3, reloads=4, dials=5, lost=1)
    bench.recorder.tick(Gauges(limits=Limited(store=counts, store_up=False, store_outages=1)))
    assert bench.shown("gateway_limit_store_up") == ['{slot="1"} 0']
    counts.answered += 5
    counts.dials += 1
    for _ in range(2):
        bench.recorder.tick(Gauges(limits=Limited(store=counts, store_outages=2)))
    assert bench.shown("gateway_limit_store") == [
        '_calls_total{result="answered"} 15',
        '_calls_total{result="late"} 1',
        '_calls_total{result="refused"} 2',
        '_calls_total{result="unasked"} 3',
        "_dials_total 6",
        "_lost_total 1",
        "_outages_total 2",
        "_reloads_total 4",
        '_up{slot="1"} 1',
    ]


def test_a_worker_s_successor_counts_on_and_does_not_say_that_the_store_is_away(bench: Bench) -> None:
    before = Limited({"team-tpm": 2}, degraded=3, open=4, store=StoreCounts(lost=1), store_up=False, store_outages=1)
    bench.recorder.tick(Gauges(limits=before))
    bench.replaced()
    assert bench.shown("gateway_limit_holds") == [" 0"]
    assert bench.shown("gateway_limit_store_up") == ['{slot="1"} 1']
    bench.recorder.tick(Gauges(limits=Limited({"team-tpm": 1}, degraded=1, store=StoreCounts(lost=1))))
    assert bench.shown("gateway_limit_refusals_total") == ['{rule="team-tpm"} 3']
    assert bench.shown("gateway_limits_degraded_total") == [" 4"]
    assert bench.shown("gateway_limit_store_lost_total") == [" 2"]
    assert bench.shown("gateway_limit_store_outages_total") == [" 1"]


def test_a_rule_that_is_removed_keeps_its_series_and_one_that_is_added_has_its_own(bench: Bench) -> None:
    bench.recorder.tick(Gauges(limits=Limited({"old": 1, "new": 1})))
    bench.recorder.renamed(Names(rules=rule_names(["new"])))
    bench.recorder.tick(Gauges(limits=Limited({"old": 3, "new": 5})))
    assert bench.shown("gateway_limit_refusals_total") == ['{rule="new"} 4', '{rule="old"} 3', '{rule="unknown"} 1']


def test_short_forms_have_series_and_of_many_rules_the_first_ones() -> None:
    names = rule_names(f"rule-{number}" for number in range(20_000))
    assert {f"{whose}.{form}" for whose in ("key", "team") for form in SHORT_FORMS} < names
    assert {"rule-0", f"rule-{MAX_RULES - 1}"} < names
    assert f"rule-{MAX_RULES}" not in names
    assert len(names) == MAX_RULES + 2 * len(SHORT_FORMS)


def test_a_limit_for_each_of_20_000_keys_leaves_room_for_everything_else(bench: Bench) -> None:
    rules = [f"{number:05d}".ljust(64, "x") for number in range(20_000)]
    bench.recorder.renamed(Names(rules=rule_names(rules)))
    totals = dict.fromkeys(rules, 1)
    bench.recorder.tick(Gauges(limits=Limited(totals, totals)))
    assert len(bench.shown("gateway_limit_refusals_total")) == MAX_RULES + 1
    assert bench.shown('gateway_limit_refusals_total{rule="unknown"}') == [f" {20_000 - MAX_RULES}"]
    assert bench.shown("gateway_metric_series_dropped_total") == [" 0"]
    assert Area(bench.segment.slot(METRICS, 1)).used_words < DIRECTORY_WORDS / 4
