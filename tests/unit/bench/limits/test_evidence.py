"""The bounds of the proof, as rows: what is too much, what is too little, what is only a doubt."""

import pytest

from bench.limits import evidence
from bench.limits.evidence import Admitted, Broken, Look, Rate, Seen, Standing
from bench.load.judge import Finding

RATE = Rate(capacity=60, per_s=10)


def admitted(at_s: float, tokens: int = 100, took_s: float = 0.0) -> Admitted:
    return Admitted(at_s, at_s, at_s + took_s, tokens)


def seen(count: int, *, until_s: float = 10.0, refused_s: float = 10.0, tokens: int = 100) -> Seen:
    """The first at once, the last then, the others between them."""
    moments = [until_s * number / max(1, count - 1) for number in range(count)]
    return Seen(admitted=[admitted(at_s, tokens) for at_s in moments], refused=5, last_refusal_sent_s=refused_s)


def holding(found: list[Finding]) -> list[bool]:
    return [finding.holds for finding in found]


# 60 at once and 10 a second for 10 s: 160, and at a refusal less than one is left


@pytest.mark.parametrize(
    ("count", "holds"),
    [
        (161, [False, True, True]),  # the clock's millisecond is not a request
        (160, [True, True, True]),
        (159, [True, True, True]),
        (158, [True, False, True]),
    ],
)
def test_requests_are_bounded_from_both_sides(count: int, holds: list[bool]) -> None:
    assert holding(evidence.requests_within(seen(count), RATE)) == holds


def test_a_request_that_broke_off_may_have_been_charged() -> None:
    short = seen(157)
    short.broken = [Broken(5.0, 5.1), Broken(6.0, 6.1)]
    most, least, _ = evidence.requests_within(short, RATE)
    assert least.holds
    assert least.seen == "157, and 2 that may have been"
    assert most.seen == "157"


def test_what_was_given_back_for_certain_is_not_admitted_again_and_what_was_guessed_may_not_be() -> None:
    assert holding(evidence.requests_within(seen(150), RATE, given_back=10)) == [True, True, True]
    assert holding(evidence.requests_within(seen(148), RATE, given_back=10)) == [True, False, True]
    assert holding(evidence.requests_within(seen(161), RATE, given_back=10)) == [False, True, True]


def test_one_whose_answer_had_begun_was_admitted() -> None:
    found = seen(160)
    found.broken = [Broken(5.0, 6.0, begun_s=5.1)]
    assert holding(evidence.requests_within(found, RATE)) == [False, True, True]


@pytest.mark.parametrize(("at_s", "least"), [(9.9, True), (3.0, False)])
def test_an_answer_that_limits_were_away_is_a_doubt_for_a_while(at_s: float, least: bool) -> None:
    short = seen(158)
    short.unavailable_s = [at_s]
    assert evidence.requests_within(short, RATE)[1].holds is least


def test_bounds_far_apart_prove_nothing() -> None:
    assert holding(evidence.requests_within(seen(160, refused_s=8.0), RATE)) == [True, True, False]


def test_a_charge_is_made_between_the_request_and_the_head_of_its_answer() -> None:
    slow = Seen(admitted=[Admitted(0.0, 0.4, 5.0, 1), Admitted(0.1, 0.2, 5.0, 1)])
    assert slow.first_s == (0.0, 0.2)


def test_the_first_charge_may_be_one_that_was_given_back() -> None:
    found = seen(161)
    assert not evidence.requests_within(found, RATE)[0].holds
    found.admitted = [Admitted(a.sent_s + 5, a.begun_s + 5, a.done_s + 5, a.tokens) for a in found.admitted]
    found.asked_s = 4.9  # a tenth of a second before
    assert evidence.requests_within(found, RATE)[0].holds


@pytest.mark.parametrize("nothing", [Seen(), Seen(admitted=[admitted(0)]), Seen(last_refusal_sent_s=3.0)])
def test_without_admissions_and_refusals_nothing_is_proved(nothing: Seen) -> None:
    assert holding(evidence.requests_within(nothing, RATE)) == [False]


# ---- tokens


@pytest.mark.parametrize(
    ("tokens", "holds"),
    [(1_000, True), (1_019, True), (981, True), (1_025, False), (975, False)],
)
def test_tokens_are_used_at_the_rate_of_the_limit(tokens: int, holds: bool) -> None:
    found = seen(1_001, until_s=100.0, tokens=tokens)
    (finding,) = evidence.tokens_at_rate(found, Rate(20_000, 10_000), end_s=100.0)
    assert finding.holds is holds


def test_the_burst_at_the_beginning_is_not_the_rate() -> None:
    found = seen(1_001, until_s=100.0, tokens=1_000)
    found.admitted += [admitted(0.5, tokens=200_000)]
    (finding,) = evidence.tokens_at_rate(found, Rate(20_000, 10_000), end_s=100.0)
    assert finding.holds


def test_no_tokens_are_no_proof() -> None:
    assert holding(evidence.tokens_at_rate(Seen(), RATE, end_s=10.0)) == [False]


# ---- how buckets stand


@pytest.mark.parametrize(
    ("level", "doubt", "holds"),
    [
        (20.0, 0, True),  # 60 + 10 × 12 s - 160
        (21.5, 0, True),  # one, and the time in which it was asked
        (21.6, 0, False),
        (18.4, 0, False),
        (15.0, 5, True),
        (26.0, 5, False),  # a doubt takes, it never gives
    ],
)
def test_a_level_is_what_came_less_what_was_used(level: float, doubt: float, holds: bool) -> None:
    found = evidence.level_accounted(seen(160), RATE, Standing(60, level, at_s=12.0), used=160, doubt=doubt)
    assert found.holds is holds


def test_a_bucket_is_never_fuller_than_full() -> None:
    assert evidence.level_accounted(seen(160), RATE, Standing(60, 60, at_s=60.0), used=160).holds
    assert not evidence.level_accounted(seen(160), RATE, Standing(60, 57, at_s=60.0), used=160).holds


@pytest.mark.parametrize(("used", "holds"), [(999, False), (1_000, True), (1_120, True), (1_121, False)])
def test_a_budget_counts_what_callers_were_told_and_at_most_what_was_reserved_besides(used: int, holds: bool) -> None:
    found = seen(10)
    found.broken = [Broken(1.0, 1.1)]
    assert evidence.budget_accounted(used, found, reserved=120).holds is holds


@pytest.mark.parametrize(
    ("in_flight", "waited_s", "holds"), [(0, 0.3, True), (0, 12.1, False), (1, 30.0, False), (0, 12.0, True)]
)
def test_slots_come_back(in_flight: float, waited_s: float, holds: bool) -> None:
    assert evidence.slots_free(in_flight, waited_s).holds is holds


# ---- answers and kills


def test_a_wrong_answer_is_named() -> None:
    found = Seen()
    assert evidence.answers_right(found).holds
    found.wrong.update({"status 500: b''": 2, "a 429 without retry-after-ms": 1})
    finding = evidence.answers_right(found)
    assert not finding.holds
    assert finding.seen == "3, most often: status 500: b''"


def test_where_nothing_is_killed_nothing_breaks() -> None:
    found = Seen()
    assert holding(evidence.undisturbed(found)) == [True]
    found.broken = [Broken(1.0, 1.1)]
    assert holding(evidence.undisturbed(found)) == [False]


def test_the_longest_pause_is_between_two_or_at_an_end() -> None:
    assert evidence.longest_pause_s([1.0, 2.0, 5.0, 30.0], 1.5, 8.0) == 3.0
    assert evidence.longest_pause_s([], 1.0, 4.0) == 3.0


def test_slots_leak_until_the_last_look_that_sees_more_than_noise() -> None:
    looks = [Look(9.0, 40, 0), Look(11.0, 20, 12), Look(14.0, 16, 12), Look(16.0, 15, 12)]
    assert evidence.leaked_until_s(looks, 10.0, noise=3) == 4.0
    assert evidence.leaked_until_s([], 10.0, noise=3) == 0.0


def test_what_was_seen_is_written_whole() -> None:
    found = seen(2)
    found.refusals.add(1_000_000)
    found.broken = [Broken(1.0, 1.1)]
    written = found.summary()
    assert written["admitted"] == [[0.0, 0.0, 0.0, 100, 0], [10.0, 10.0, 10.0, 100, 0]]
    assert written["refusals"]["count"] == 1
    assert written["broken"] == [{"sent_s": 1.0, "lost_s": 1.1, "begun_s": None}]
