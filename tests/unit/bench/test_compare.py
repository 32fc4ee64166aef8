"""Better and worse are said only where the bands part, the machine stood still and enough was measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import compare
from bench.compare import Comparison, Good, Row, Word
from bench.speed import report
from bench.speed.disturbance import Disturbance
from bench.speed.memory import MemoryResult, Moment
from bench.speed.report import Result
from bench.speed.sections import Sample, Settings
from bench.speed.start import FRESH, Start
from bench.speed.verdict import Range
from tests.unit.bench_speed.samples import repeats

CONDITIONS = {"date": "2026-01-02 03:04 UTC", "machine": "CPU, 2 cores", "gateway": "1.0"}
STEADY = (100, 101, 99, 100, 100)


def result(
    gateway: Sequence[float] = (50, 51, 49, 50, 50),
    nginx: Sequence[float] = STEADY,
    machine: str = "CPU, 2 cores",
    rate: float = 25,
    latency_ms: float = 0.5,
    memory: Sequence[MemoryResult] = (),
) -> Result:
    samples: list[Sample] = [
        *repeats("json", "direct", [value * 3 for value in nginx]),
        *repeats("json", "nginx", nginx),
        *repeats("json", "gateway", gateway),
        *repeats("latency", "direct", [rate] * 5, latency_ms=0.2),
        *repeats("latency", "gateway", [rate] * 5, latency_ms=latency_ms),
    ]
    return Result({**CONDITIONS, "machine": machine}, Settings(subject="gateway"), samples, memory, rate)


def row(a: Result, b: Result, name: str, target: str = "gateway") -> Row:
    return next(row for row in Comparison(a, b).rows() if (row.target, row.name) == (target, name))


@pytest.mark.parametrize(
    ("a", "b", "good", "word"),
    [
        (Range(100, 99, 101), Range(110, 109, 111), Good.MORE, Word.BETTER),
        (Range(100, 99, 101), Range(110, 109, 111), Good.LESS, Word.WORSE),
        (Range(100, 99, 101), Range(90, 89, 91), Good.MORE, Word.WORSE),
        (Range(100, 90, 110), Range(115, 109, 120), Good.MORE, Word.CANNOT_TELL),  # the bands touch
        (Range(100, 99.9, 100.1), Range(101, 100.9, 101.1), Good.MORE, Word.CANNOT_TELL),  # real, but nothing
    ],
)
def test_the_bands_decide(a: Range, b: Range, good: Good, word: Word) -> None:
    assert compare.judge(a, b, good)[0] is word


def test_the_same_result_twice_says_nothing() -> None:
    assert {row.word for row in Comparison(result(), result()).rows()} == {Word.CANNOT_TELL}


def test_a_slower_gateway_is_worse_in_rate_and_ratio() -> None:
    slower = result([40, 41, 39, 40, 40])
    assert row(result(), slower, "plain: rate").word is Word.WORSE
    ratio = row(result(), slower, "plain: rate beside nginx")
    assert (ratio.word, round(ratio.change, 2)) == (Word.WORSE, -0.2)
    assert row(slower, result(), "plain: rate").word is Word.BETTER


def test_two_repeats_decide_nothing() -> None:
    few = result([40, 40])
    assert row(result(), few, "plain: rate").because == "2 repeats; 4 are needed"


def test_a_void_section_decides_nothing() -> None:
    wild = result([40, 41, 39, 40, 40], nginx=(100, 130, 100, 100, 100))
    assert row(result(), wild, "plain: rate").because == "void"


def test_where_nginx_moved_only_ratios_are_judged() -> None:
    slow_machine = result([25, 25, 25, 25, 25], nginx=[value / 2 for value in STEADY])
    assert row(result(), slow_machine, "plain: rate").because == "nginx moved as well"
    assert row(result(), slow_machine, "plain: rate beside nginx").because == "the bands overlap"
    assert row(result(), slow_machine, "plain: rate", "nginx").word is Word.WORSE  # which is how one sees it moved


def test_another_machine_leaves_only_ratios() -> None:
    other = result([40, 41, 39, 40, 40], machine="another")
    assert row(result(), other, "plain: rate").because == "another machine"
    assert row(result(), other, "plain: rate beside nginx").word is Word.WORSE


def test_latency_is_compared_only_at_the_same_rate() -> None:
    assert row(result(), result(latency_ms=0.9), "latency: p99 added").word is Word.WORSE
    faster = result(latency_ms=0.9, rate=30)
    assert row(result(), faster, "latency: p99 added").because == "at 25 and 30 requests/s"


def test_memory_is_measured_once_and_given_a_band() -> None:
    def held(rss_kb: int) -> list[MemoryResult]:
        moments = [Moment("idle", 40_000, 9), Moment("before streams", 50_000, 9), Moment("streams open", rss_kb, 209)]
        return [MemoryResult("gateway", 1000, 1000, moments)]

    heavier = row(result(memory=held(70_000)), result(memory=held(80_000)), "memory: KB a stream")
    assert (heavier.word, heavier.because) == (Word.WORSE, "measured once")
    same = row(result(memory=held(70_000)), result(memory=held(70_500)), "memory: KB a stream")
    assert same.word is Word.CANNOT_TELL


def test_tls_is_compared_by_cost_and_by_what_a_stream_takes() -> None:
    def secured(kb: int, cpu_us: float) -> Result:
        samples = [*repeats("tls", "nginx", STEADY, cpu_us=20), *repeats("tls", "gateway", STEADY, cpu_us=cpu_us)]
        moments = [Moment("before streams", 50_000, 20), Moment("streams open", 50_000 + 10 * kb, 30)]
        return replace(result(), samples=samples, tls_memory=[MemoryResult("gateway", 10, 10, moments)])

    a, b = secured(80, 40), secured(95, 60)
    for name in ("TLS: CPU a request", "TLS: CPU beside nginx", "TLS: KB a stream"):
        assert row(a, b, name).word is Word.WORSE
        assert row(a, a, name).word is Word.CANNOT_TELL


def test_what_only_one_result_has_is_left_out() -> None:
    alone = result()
    without = replace(alone, samples=[sample for sample in alone.samples if sample.target != "nginx"])
    assert "plain: rate beside nginx" not in {row.name for row in Comparison(alone, without).rows()}


def written(folder: Path, found: Result) -> str:
    report.write(found, folder)
    return str(folder)


def test_the_command_prints_a_table_and_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a", result()), written(tmp_path / "b", result([40, 41, 39, 40, 40]))
    assert compare.main([a, b]) == compare.WORSE
    assert "| gateway | plain: rate | 1/s | 50 (49 – 51) | 40 (39 – 41) | -20% | **worse** |" in capsys.readouterr().out
    assert compare.main([b, a]) == compare.NOTHING_WORSE
    assert compare.main([a, str(tmp_path)]) == compare.NO_RESULT
    assert "raw.json" in capsys.readouterr().err


def test_in_a_word_the_subject_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = written(tmp_path / "a", result()), written(tmp_path / "b", result([40, 41, 39, 40, 40]))
    compare.main([a, b])
    said = capsys.readouterr().out
    assert "- gateway (the subject): better 0, worse 2, cannot tell 3\n- direct: " in said
    assert "- limited: nothing to compare, a does not have it" in said


def test_without_two_results_those_that_there_are_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    assert compare.main([]) == compare.NO_RESULT
    assert "none yet" in capsys.readouterr().err
    written(tmp_path / "2026-01-02-cpu", result())
    (tmp_path / "2026-01-02-cpu-memory").mkdir()
    (tmp_path / "2026-01-02-cpu-memory" / "raw.json").write_text("{}")
    assert compare.main(["2026-01-02-cpu"]) == compare.NO_RESULT
    assert capsys.readouterr().err.endswith("A=earlier B=later; there are\n  2026-01-02-cpu\n")


def test_a_result_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2026-01-02-cpu").mkdir()
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    assert compare.folder("2026-01-02-cpu") == tmp_path / "2026-01-02-cpu"
    assert compare.folder("elsewhere") == Path("elsewhere")


def grown(two_us: float, answered_s: float, nginx_us: float = 10, others: float = 0.0) -> Result:
    samples = [
        *repeats("json", "nginx", STEADY, cpu_us=nginx_us),
        *repeats("workers-1", "gateway", STEADY, cpu_us=100),
        *repeats("workers-2", "gateway", STEADY, cpu_us=two_us),
    ]
    starts = [
        Start("gateway", FRESH, repeat, 0.5, answered_s, 0.4, {}, disturbance=Disturbance(others))
        for repeat in range(5)
    ]
    return replace(result(), samples=samples, starts=starts)


def test_workers_and_starts_are_compared_where_nginx_stood_still() -> None:
    a, b = grown(104, 0.6), grown(120, 0.9)
    for name in ("two workers: CPU a request", "start: first answer, state_dir fresh"):
        assert row(a, b, name).word is Word.WORSE
        assert row(a, a, name).word is Word.CANNOT_TELL
        moved = row(a, grown(120, 0.9, nginx_us=15), name)
        assert (moved.word, moved.because) == (Word.CANNOT_TELL, "nginx moved as well")
    beside = "two workers: CPU a request beside one"
    assert row(a, grown(120, 0.9, nginx_us=15), beside).word is Word.WORSE


def test_a_start_beside_others_says_nothing() -> None:
    void = row(grown(104, 0.6), grown(104, 0.9, others=0.5), "start: first answer, state_dir fresh")
    assert (void.word, void.because) == (Word.CANNOT_TELL, "void")
