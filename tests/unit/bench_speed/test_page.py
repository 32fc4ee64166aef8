"""The page says what the report says, with its charts, and needs nothing from elsewhere."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.speed import page, report
from bench.speed.histogram import Histogram
from bench.speed.memory import MemoryResult, Moment
from bench.speed.report import Result
from bench.speed.sections import Sample, Settings
from tests.unit.bench_speed.samples import repeats, sample

CONDITIONS = {"date": "2026-01-02 03:04 UTC", "command": "python -m bench.speed", "machine": "<CPU> & core"}
VOID_TAGS = {"meta", "br"}


def at_rate(target: str, rate: float, latency_ms: float) -> Sample:
    return replace(sample("sweep", target, rps=rate, latency_ms=latency_ms), rate=rate)


def streams(target: str) -> Sample:
    one = sample("sse-paced", target)
    return replace(one, load=replace(one.load, ttft=one.load.latency, lag=one.load.latency))


def whole() -> Result:
    samples = [
        *(one for name in ("direct", "nginx", "gateway") for one in repeats("json", name, [300, 301])),
        *(streams(name) for name in ("direct", "nginx", "gateway")),
        *(one for name in ("direct", "gateway") for one in repeats("latency", name, [50, 50], latency_ms=0.7)),
        *(one for number in (1, 2) for one in repeats(f"workers-{number}", "gateway", [100 * number, 101 * number])),
        *(at_rate(name, rate, rate / 100) for name in ("direct", "gateway") for rate in (10.0, 90.0)),
    ]
    moments = [Moment("idle", 1, 1, 0.0), Moment("1,000 connections", 60_000, 9, 5.0)]
    return Result(CONDITIONS, Settings(subject="gateway"), samples, [MemoryResult("gateway", 1, 1, moments)], rate=50)


class Balance(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    text = page.page(whole())
    Balance(text)
    assert not re.search(r"<script|<link|<img|https?://|url\(|@import|\bsrc=|\bhref=", text)
    assert "&lt;CPU&gt; &amp; core" in text


def test_it_has_a_chart_where_there_are_figures() -> None:
    text = page.page(whole())
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == [
        "Requests a second on one core",
        "Time to first token",
        "Lag between chunks",
        "Latency, all repeats together",
        "Added latency against load, p99",
        "Resident memory of the worker over the section",
        "Requests a second against workers",
    ]
    assert "<figure>" not in page.page(Result(CONDITIONS, Settings(), [], []))


def test_it_says_what_the_report_says() -> None:
    said = re.sub(r"[\s|*#-]+", "", re.sub(r"\|(---\|)+", "", report.markdown(whole())))
    shown = re.sub(r"<figure>.*?</figure>", "", page.page(whole()).partition("<body>")[2], flags=re.DOTALL)
    plain = re.sub(r"<[^>]+>", "", shown).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert re.sub(r"[\s|*#-]+", "", plain.replace("&#x27;", "'")) == said


def test_added_latency_is_taken_at_the_same_rate_and_has_the_half_load_among_it() -> None:
    result = whole()
    circles = re.findall(r"<title>gateway: ([\d.]+), (-?[\d.]+)</title>", page.page(result))
    assert [(float(rate), float(added)) for rate, added in circles if float(rate) >= 10] == [(10, 0), (50, 0), (90, 0)]


def test_a_distribution_is_cumulative_and_ends_with_its_maximum() -> None:
    found = Histogram()
    for ns in range(1000, 3_000_000, 1000):
        found.add(ns)
    points = page.cumulative(found)
    assert len(points) <= page.MAX_POINTS + 1
    assert points == sorted(points)
    assert points[0][0] == 0
    assert points[-1][1] == pytest.approx(2.999)


def test_a_stored_result_gets_its_page_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.write(whole(), tmp_path)
    assert page.main([str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert page.main([str(tmp_path / "absent")]) == 2
    assert "absent/raw.json" in capsys.readouterr().err
