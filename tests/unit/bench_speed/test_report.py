"""The report says first whether the run is void, keeps earlier results, and leaves raw data that can be read again."""

import json
from dataclasses import replace
from pathlib import Path

from bench.speed import report
from bench.speed.disturbance import Disturbance, Thrown
from bench.speed.histogram import Histogram
from bench.speed.memory import MemoryResult, Moment
from bench.speed.report import Result
from bench.speed.sections import Sample, Settings
from bench.speed.start import FRESH, USED, Start
from tests.unit.bench_speed.samples import repeats, sample

CONDITIONS = {"date": "2026-01-02 03:04 UTC", "command": "python -m bench.speed --quick", "nginx": "1.22.1"}


def result(samples: list[Sample], memory: list[MemoryResult] | None = None) -> Result:
    return Result(CONDITIONS, Settings(subject="gateway"), samples, memory or [], rate=None)


def steady() -> list[Sample]:
    return [
        *repeats("json", "direct", [200, 200]),
        *repeats("json", "nginx", [100, 102]),
        *repeats("json", "gateway", [60, 62]),
    ]


def test_a_steady_run_says_its_goals_and_conditions() -> None:
    text = report.markdown(result(steady()))
    assert "void" not in text
    assert "| plain requests, rate beside nginx | ≥ 0.4 × nginx | 0.60 (0.60 – 0.61) | **met** |" in text
    assert "| gateway | 61 (60 – 62) | 0.60 (0.60 – 0.61) |" in text
    assert "python -m bench.speed --quick" in text


def test_a_void_run_says_so_before_any_figure() -> None:
    text = report.markdown(result([*steady(), sample("json", "nginx", rps=150, repeat=2)]))
    assert text.index("The run is void for json") < text.index("| goal |")
    assert "**void**" in text


def test_what_was_thrown_away_is_told_with_why_and_kept_in_the_raw_data(tmp_path: Path) -> None:
    thrown = [Thrown("json", Disturbance(share), sample("json", "gateway").summary()) for share in (0.12, 0.5)]
    told = replace(result(steady()), thrown=thrown)
    assert (
        "- 2 measurements beside the 6 that count were thrown away, since others took more than 10% of a core "
        "meanwhile: 2 of json (12%–50%). Their figures are in raw.json." in report.markdown(told)
    )
    assert "- Beside each of the 6 measurements others took at most 0% of a core." in report.markdown(told)
    report.write(told, tmp_path)
    kept = json.loads((tmp_path / "raw.json").read_text())["thrown"]
    assert [(one["section"], one["disturbance"]["target_core"]) for one in kept] == [("json", 0.12), ("json", 0.5)]


def test_what_counts_although_it_was_disturbed_is_named() -> None:
    noticed = report.markdown(result([*steady(), sample("json", "nginx", rps=100, repeat=2, others=0.2)]))
    assert "1 of the 7 measurements count although others took more than 10% of a core" in noticed
    assert "1 of json (20%)" in noticed


def test_wrong_answers_are_named_with_their_target() -> None:
    text = report.markdown(result([*steady(), sample("json", "gateway", rps=60, repeat=2, errors=3)]))
    assert "Wrong or missing answers: gateway 3." in text
    assert "**missed; 3 wrong answers**" in text


def test_wrong_answers_are_not_thrown_away_with_the_measurement() -> None:
    found = sample("json", "gateway", rps=60, errors=3).summary()
    text = report.markdown(replace(result(steady()), thrown=[Thrown("json", Disturbance(0.5), found)]))
    assert "Wrong or missing answers: gateway 3." in text
    assert "**missed; 3 wrong answers**" in text


def test_sections_that_did_not_run_have_no_table() -> None:
    text = report.markdown(result(steady()))
    assert "## Latency at half load" not in text
    assert "## Memory" not in text
    assert "## TLS" not in text


def test_latency_is_shown_with_whose_the_core_was() -> None:
    told = [
        replace(
            sample("latency", "gateway", rps=1000, repeat=n),
            cpu_us={7: busy, 8: 100_000},
            disturbance=Disturbance(0.05),
        )
        for n, busy in enumerate((300_000, 320_000, 400_000))
    ]
    text = report.markdown(result(told))
    assert text.index("| target | p50 ms |") < text.index("Whose the target's core was") < text.index("## Conditions")
    assert "| gateway | 32% (30% – 40%) | 10% (10% – 10%) | 5% (5% – 5%) | 53% (45% – 55%) |" in text


def test_memory_shows_each_moment() -> None:
    memory = MemoryResult("gateway", 100, 100, [Moment("before streams", 2048, 9), Moment("streams open", 4048, 209)])
    text = report.markdown(result(steady(), [memory]))
    assert "| before streams | 2.0 | 9 |" in text
    assert "100 streams held open: 20.0 KB each." in text


def test_tls_shows_kept_and_new_connections_beside_nginx_and_what_a_stream_takes() -> None:
    samples = [
        *(one for name, us in (("nginx", 20), ("gateway", 50)) for one in repeats("tls", name, [80, 90], cpu_us=us)),
        *(one for name, us in (("nginx", 400), ("gateway", 600)) for one in repeats("tls-new", name, [9], cpu_us=us)),
    ]
    readings = {"before streams": 2048, "streams open": 7048, "streams closed": 3072}
    readings |= {"small answers carried": 1024, "large answers carried": 5120}
    moments = [Moment(when, kb, 9) for when, kb in readings.items()]
    told = replace(result(samples), tls_memory=[MemoryResult("gateway", 100, 100, moments)])
    text = report.markdown(told)
    assert "| gateway | kept | 50.0 | 50.0 | 2.50 | 85 (80 – 90) | 0.20 / 0.20 |" in text
    assert "| gateway | new | 600.0 | 600.0 | 1.50 | 9 | 0.20 / 0.20 |" in text
    assert "| gateway | 100 | 50.0 | 2.0 | 6.9 | 3.0 |" in text
    assert "| gateway | 1.0 | 5.0 |" in text
    assert "| memory per open idle stream, TLS on both sides | ≤ 100 KB | 50.00 | **met** |" in text


def test_tls_of_streams_that_were_not_open_shows_no_figure() -> None:
    text = report.markdown(replace(result(steady()), tls_memory=[MemoryResult("gateway", 100)]))
    assert "| gateway | 0 | – | – | – | – |" in text


def test_raw_data_has_every_sample_with_its_distribution(tmp_path: Path) -> None:
    report.write(result(steady()), tmp_path / "new")
    raw = json.loads((tmp_path / "new" / "raw.json").read_text())
    assert [(sample["target"], sample["repeat"]) for sample in raw["samples"]] == [
        (target, repeat) for target in ("direct", "nginx", "gateway") for repeat in (0, 1)
    ]
    latency = raw["samples"][0]["load"]["latency"]
    assert Histogram(dict(latency["buckets"]), latency["count"], 0, 200_000).quantile_us(0.5) == latency["p50_us"]
    assert (tmp_path / "new" / "report.md").read_text().startswith("# Speed beside nginx: gateway, 2026-01-02")


def test_an_earlier_result_is_kept(tmp_path: Path) -> None:
    base = tmp_path / "2026-01-02-cpu"
    folders = []
    for _ in range(3):
        folders.append(report.fresh_folder(base))
        folders[-1].mkdir()
    assert [folder.name for folder in folders] == ["2026-01-02-cpu", "2026-01-02-cpu-2", "2026-01-02-cpu-3"]


def test_who_answered_nothing_has_no_cost() -> None:
    text = report.markdown(result([*steady(), *repeats("json", "limited", [0, 0])]))
    assert "| limited | 0 | 0.00 | – | – |" in text


def test_a_start_is_told_by_state_with_what_it_is_made_of() -> None:
    cpu_us = {"gw-super": 500_000, "gw-worker": 20_000, "gw-control": 150_000}
    starts = [
        Start("gateway", state, repeat, seconds, seconds + 0.01, 0.4, cpu_us)
        for state, times in ((FRESH, (0.8, 0.9)), (USED, (0.6,)))
        for repeat, seconds in enumerate(times)
    ]
    text = report.markdown(replace(result(steady()), starts=starts))
    assert "| fresh | 0.85 (0.80 – 0.90) | 0.86 (0.81 – 0.91) | 0.40 | 0.50 | 0.02 | 0.15 |" in text
    assert "| used | 0.60 | 0.61 | 0.40 | 0.50 | 0.02 | 0.15 |" in text
    assert "| start to the first answer, state_dir fresh | ≤ 1 s | 0.86 (0.81 – 0.91) | **met** |" in text


def test_two_workers_stand_beside_one_of_the_same_repeat() -> None:
    samples = [
        *repeats("workers-1", "gateway", [50, 100], cpu_us=100),
        *repeats("workers-2", "gateway", [90, 180], cpu_us=104),
    ]
    text = report.markdown(result(samples))
    assert "| 2 | 135 (90 – 180) | 1.80 | 104.0 | 104.0 | 1.04 | 0.20 / 0.20 |" in text
    assert "| CPU a request with two workers beside one | ≤ 1.1 × one | 1.04 | **met** |" in text
