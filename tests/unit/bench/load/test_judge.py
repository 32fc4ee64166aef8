"""Findings: what was added, what was wrong, whether the load was brought, whether memory stayed flat."""

from typing import Any, cast

import pytest

from bench.load import judge
from bench.load.books import Books
from bench.load.drive import Entry, Outcome, Size
from bench.load.judge import Finding
from bench.load.profiles import BY_NAME
from bench.load.stage import Sim, Watched

SIZE = Size(rate=10, users=10, seconds=12)


def entry(p99_ms: float, name: str = "chat", kind: str = "POST", count: int = 100, failures: int = 0) -> Entry:
    return Entry(kind, name, count, failures, p99_ms / 2, p99_ms, p99_ms, 10)


def judged(before: Outcome | None, after: Outcome, profile: str = "chat") -> dict[str, Finding]:
    return {finding.what: finding for finding in judge.judge(BY_NAME[profile], SIZE, before, after)}


@pytest.mark.parametrize(("p99_ms", "holds"), [(69, True), (70, False), (-29, True), (-31, False)])
def test_what_is_added_is_the_difference(p99_ms: float, holds: bool) -> None:
    found = judged(Outcome([entry(20)], {}), Outcome([entry(p99_ms)], {}))["p99 added, chat"]
    assert found.holds is holds
    assert ("disturbed" in found.seen) is (p99_ms < -30)


def test_entries_that_only_one_run_has_are_not_judged() -> None:
    found = judged(Outcome([entry(20)], {}), Outcome([entry(20), entry(900, "flood")], {}))
    assert "p99 added, flood" not in found


def test_without_a_run_to_compare_with_latencies_are_told_and_not_judged() -> None:
    found = judged(None, Outcome([entry(900)], {}))["p99, chat"]
    assert (found.seen, found.word, found.holds) == ("900 ms (p50 450)", "not judged", True)
    assert judge.markdown([found]).endswith("| p99, chat | 900 ms (p50 450) | – | **not judged** |")


def test_wrong_answers_fail_in_either_run() -> None:
    wrong = Outcome([entry(20, failures=3)], {"chat: no token came": 2, "chat: status 500": 1})
    found = judged(Outcome([entry(20)], {}), wrong)["refused, broken or wrong answers"]
    assert (found.holds, found.seen) == (False, "3 of 100, most often: chat: no token came")
    assert not judged(wrong, Outcome([entry(20)], {}))["the same, in the run to compare with"].holds


def test_a_run_without_a_request_proves_nothing() -> None:
    assert not judged(None, Outcome([], {}))["refused, broken or wrong answers"].holds


@pytest.mark.parametrize(("count", "holds"), [(100, True), (61, True), (59, False)])
def test_a_load_that_was_not_brought_proves_nothing(count: int, holds: bool) -> None:
    after = Outcome([entry(20, count=count), entry(20, kind="TTFT", count=1000)], {})
    assert judged(None, after)["requests a second"].holds is holds


def looks(*rss_mb: float, descriptors: int = 20) -> list[Watched]:
    return [Watched(n, int(mb * 1024), descriptors) for n, mb in enumerate(rss_mb)]


def test_memory_may_grow_at_first_and_then_no_more() -> None:
    assert all(finding.holds for finding in judge.flat(looks(50, 60, 70, *[80] * 9)))
    growing = judge.flat(looks(*[50 + n for n in range(40)]))
    assert [finding.holds for finding in growing] == [False, True]
    leaking = [Watched(n, 50_000, 20 + n * 2) for n in range(60)]
    assert [finding.holds for finding in judge.flat(leaking)] == [True, False]
    assert not judge.flat(looks(50))[0].holds


def at_quota(admitted: int, refused: int = 300, waited: int = 5, p99_ms: float = 20) -> list[bool]:
    entries = [
        entry(p99_ms, "at quota", count=admitted),
        entry(p99_ms, "at quota refused", count=refused),
        entry(p99_ms, "patient refused", count=waited),
    ]
    return [finding.holds for finding in judge.at_quota(SIZE, Outcome(entries, {}))]


@pytest.mark.parametrize(("admitted", "holds"), [(89, False), (90, True), (140, True), (141, False)])
def test_a_key_at_its_quota_gets_what_it_may(admitted: int, holds: bool) -> None:
    # ten a second for ten seconds, twenty at once, and two seconds of doubt
    assert at_quota(admitted) == [holds, True, True, True]


def test_refusals_must_be_there_fast_and_worth_waiting_for() -> None:
    assert at_quota(100, refused=0) == [True, False, True, True]
    assert at_quota(100, p99_ms=50) == [True, True, False, True]
    assert at_quota(100, waited=0) == [True, True, True, False]


class Seen:
    def __init__(self, *statuses: int) -> None:
        self.statuses = statuses

    def seen(self) -> list[dict[str, Any]]:
        return [{"status": status} for status in self.statuses]


@pytest.mark.parametrize(
    ("written", "missed"),
    [
        (Books(20_000, 0, 100), []),
        (Books(20_000, 0, 140), []),  # those of the first seconds are recorded, and not in the statistics
        (Books(0, 0, 100), ["micro-USD in the key's budget"]),
        (Books(20_000, 1, 100), ["slots still taken in the end"]),
        (Books(20_000, 0, 99), ["exchanges in the journal"]),
    ],
)
def test_a_governed_gateway_has_counted_and_recorded(written: Books, missed: list[str]) -> None:
    found = judge.governed(Outcome([entry(20)], {}), written)
    assert [finding.what for finding in found if not finding.holds] == missed


@pytest.mark.parametrize(
    ("first", "spare", "holds"),
    [
        (Seen(200), Seen(200), [True, True]),
        (Seen(503), Seen(200), [True, False]),
        (Seen(200), Seen(), [False, True]),
    ],
)
def test_a_healed_provider_is_asked_again(first: Seen, spare: Seen, holds: list[bool]) -> None:
    sims = cast("tuple[Sim, Sim]", (first, spare))
    assert [finding.holds for finding in judge.healed(sims)] == holds


def test_the_table_says_what_holds() -> None:
    text = judge.markdown([Finding("a", "1", "< 2", holds=True), Finding("b", "3", "< 2", holds=False)])
    assert text.splitlines()[2:] == ["| a | 1 | < 2 | **holds** |", "| b | 3 | < 2 | **missed** |"]
