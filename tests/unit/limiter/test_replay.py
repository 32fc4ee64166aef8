"""What a journal comes to: reserved until settled, kept when nobody settles, refilled as time goes on, once for all."""

import json

import pytest
from msgspec import structs

from gateway.limiter.recorded import key_of, slice_mark
from gateway.limiter.replay import (
    FORGOTTEN,
    KEPT_MS,
    Charge,
    Fact,
    Ledger,
    Used,
    What,
    fact_of,
    is_counted,
    part_of,
    subject_of,
)
from gateway.limiter.spec import MAX_AMOUNT, Spec, rate, window
from gateway.record import Kind, Record
from tests.fakes.limit_records import BUDGET, DAY_MS, MINUTE, NOON_MS, YESTERDAY, decision, outcome, told

BEGUN = Record(Kind.CHECKPOINT, "", NOON_MS * 1000, action="segment", detail=json.dumps({"opened_by": "start"}))
BEGAN = Record(Kind.CHECKPOINT, "", NOON_MS * 1000, action="began", detail=json.dumps({"pid": 7}))
USD = ("org-budget|org=a", BUDGET)
TPM = ("tpm|key=k", MINUTE)


def folded(*records: Record, chain: str = "w0") -> Ledger:
    ledger = Ledger()
    fold(ledger, *records, chain=chain)
    return ledger


def fold(ledger: Ledger, *records: Record, chain: str = "w0") -> None:
    for record in records:
        fact = fact_of(record)
        assert fact is not None
        ledger.take(chain, fact)


def used(ledger: Ledger, now_ms: int = NOON_MS) -> dict[str, tuple[int, int, int]]:
    return {found.bucket: (found.used, found.live, found.estimated) for found in ledger.used(now_ms)}


def test_a_hold_is_charged_as_reserved_until_its_outcome() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500}))
    assert used(ledger) == {USD[0]: (500, 500, 0)}
    fold(ledger, outcome("h", NOON_MS, {USD: 120}))
    assert used(ledger) == {USD[0]: (120, 0, 0)}
    assert ledger.holds == {}


def test_a_bucket_that_an_outcome_does_not_name_is_given_back() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500, TPM: 7}), outcome("h", NOON_MS, {USD: 1}))
    assert used(ledger) == {USD[0]: (1, 0, 0)}


def test_an_outcome_may_name_buckets_that_further_attempts_took() -> None:
    other = ("provider-budget|provider=p", BUDGET)
    ledger = folded(decision("h", NOON_MS, {USD: 5}), outcome("h", NOON_MS, {USD: 5, other: 9}))
    assert used(ledger)[other[0]] == (9, 0, 0)


def test_an_outcome_without_a_decision_counts_in_full() -> None:
    assert used(folded(outcome("h", NOON_MS, {USD: 44}))) == {USD[0]: (44, 0, 0)}


@pytest.mark.parametrize("line", [BEGUN, BEGAN])
def test_a_worker_that_died_leaves_an_estimate_which_its_outcome_corrects_once(line: Record) -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500}), decision("g", NOON_MS, {USD: 50}))
    fold(ledger, line, chain="w1")
    assert used(ledger) == {USD[0]: (550, 550, 0)}
    fold(ledger, line)
    assert used(ledger) == {USD[0]: (550, 0, 550)}
    fold(ledger, outcome("h", NOON_MS, {USD: 100}))
    assert used(ledger) == {USD[0]: (150, 0, 50)}


def test_a_decision_that_comes_twice_reserves_once() -> None:
    line = decision("h", NOON_MS, {USD: 500})
    assert used(folded(line, line)) == {USD[0]: (500, 500, 0)}


def test_windows_are_counted_apart_and_end() -> None:
    old = (USD[0], YESTERDAY)
    ledger = folded(
        decision("h", NOON_MS - DAY_MS, {old: 300}),
        decision("g", NOON_MS, {USD: 20}),
        outcome("h", NOON_MS, {old: 250}),
    )
    assert [found.used for found in ledger.used(NOON_MS - DAY_MS)] == [250, 20]
    assert [found.used for found in ledger.used(NOON_MS)] == [20]
    assert list(ledger.used(BUDGET.end_ms)) == []


def test_budgets_are_told_apart_from_rates() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500, TPM: 7}))
    assert [(found.bucket, found.used, found.live) for found in ledger.budgets(NOON_MS)] == [(USD[0], 500, 500)]


def test_a_rate_refills_between_two_lines_and_afterwards() -> None:
    ledger = folded(outcome("h", NOON_MS, {TPM: 1_000}), outcome("g", NOON_MS + 300, {TPM: 500}))
    assert used(ledger, NOON_MS + 300)[TPM[0]] == (1_200, 0, 0)
    assert used(ledger, NOON_MS + 1_000)[TPM[0]] == (500, 0, 0)
    assert used(ledger, NOON_MS + 1_500) == {}


def test_a_refund_that_comes_late_gives_back_no_more_than_there_is() -> None:
    ledger = folded(decision("h", NOON_MS, {TPM: 1_000}), outcome("h", NOON_MS + 800, {TPM: 0}))
    assert used(ledger, NOON_MS + 800) == {}


def test_what_a_record_says_last_is_how_a_bucket_counts() -> None:
    faster = rate(1, 120_000, 60_000)
    ledger = folded(outcome("h", NOON_MS, {TPM: 1_000}), outcome("g", NOON_MS, {("tpm|key=k", faster): 0}))
    assert used(ledger, NOON_MS + 400)["tpm|key=k"][0] == 200


def test_forgetting_changes_no_number() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 5, TPM: 9}), outcome("o", NOON_MS - DAY_MS, {(USD[0], YESTERDAY): 8}))
    fold(ledger, BEGUN)
    ledger.prune(NOON_MS + 1)
    assert used(ledger, NOON_MS + 1) == {USD[0]: (5, 0, 5), TPM[0]: (8, 0, 9)}
    assert len(ledger.accounts) == 2
    ledger.prune(NOON_MS + KEPT_MS)
    assert (ledger.accounts, ledger.holds) == ({}, {})


def test_an_outcome_of_what_was_forgotten_gives_nothing_back() -> None:
    ledger = folded(decision("h", NOON_MS, {TPM: 9}))
    ledger.prune(NOON_MS + 1_000)
    fold(ledger, outcome("h", NOON_MS + 1_000, {}))
    assert ledger.accounts == {}


def test_all_workers_may_be_gone_at_once() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 5}))
    fold(ledger, decision("g", NOON_MS, {USD: 6}), chain="w1")
    ledger.bury()
    assert used(ledger) == {USD[0]: (11, 0, 11)}


def test_what_the_dead_held_is_due_until_they_are_laid_to_rest() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500, TPM: 7}), decision("g", NOON_MS, {USD: 50}))
    fold(ledger, decision("f", NOON_MS, {USD: 1}), chain="w1")
    assert ledger.orphans() == []
    fold(ledger, BEGAN)
    orphans = ledger.orphans()
    assert [(fact.what, fact.hold, fact.at_ms) for fact in orphans] == [
        (What.SETTLED, "h", NOON_MS),
        (What.SETTLED, "g", NOON_MS),
    ]
    assert [(amount.bucket, amount.amount) for amount in orphans[0].amounts] == [(USD[0], 500), (TPM[0], 7)]
    ledger.laid_to_rest(["h", "nobody"])
    fold(ledger, BEGAN)
    assert [fact.hold for fact in ledger.orphans()] == ["g"]
    ledger.disturb()
    assert [fact.hold for fact in ledger.orphans()] == ["h", "g"]
    fold(ledger, outcome("h", NOON_MS, {USD: 1}))
    assert [fact.hold for fact in ledger.orphans()] == ["g"]


def test_what_has_refilled_since_is_not_due() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500, TPM: 7}), BEGAN)
    ledger.prune(NOON_MS + 60_000)
    (orphan,) = ledger.orphans()
    assert [amount.bucket for amount in orphan.amounts] == [USD[0]]


OTHER = ("other|key=k", BUDGET)
GONE = Record(Kind.ADMIN, "", (NOON_MS + 5) * 1000, action=FORGOTTEN, subject="org-budget", actor="gateway")


def test_what_is_forgotten_counts_no_more_and_the_rest_does() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500, OTHER: 7}), outcome("o", NOON_MS, {USD: 1, OTHER: 2}), GONE)
    assert used(ledger) == {OTHER[0]: (9, 7, 0)}
    fold(ledger, outcome("h", NOON_MS + 900, {USD: 600, OTHER: 3}))
    assert used(ledger) == {OTHER[0]: (5, 0, 0)}
    fold(ledger, decision("g", NOON_MS + 6, {USD: 40}), outcome("g", NOON_MS + 6, {USD: 30}))
    assert used(ledger) == {USD[0]: (30, 0, 0), OTHER[0]: (5, 0, 0)}
    fold(ledger, GONE)
    assert used(ledger)[USD[0]] == (30, 0, 0)  # once


def test_it_is_the_same_in_whichever_order_chains_are_read() -> None:
    lines = [decision("h", NOON_MS, {USD: 500}), outcome("h", NOON_MS + 9, {USD: 600}), outcome("o", NOON_MS, {USD: 1})]
    for place in range(len(lines) + 1):
        ledger = folded(*lines[:place], GONE, *lines[place:])
        assert (used(ledger), ledger.holds) == ({}, {})


def test_what_was_charged_of_it_all_the_same_is_stirred() -> None:
    late = [
        decision("late", NOON_MS, {USD: 5}),
        outcome("reserved before", NOON_MS + 9, {USD: 5}),
        decision("after", NOON_MS + 6, {USD: 5}),
    ]
    for line in late:
        ledger = folded(decision("reserved before", NOON_MS, {USD: 5, OTHER: 1}), GONE)
        assert ledger.stirred == set()
        fold(ledger, line, decision("other", NOON_MS + 6, {OTHER: 5}))
        assert {key.bucket for key in ledger.stirred} == {USD[0]}


def test_a_short_form_is_forgotten_by_its_buckets() -> None:
    mine, yours = ("key.usd_per_month|key=me", BUDGET), ("key.usd_per_month|key=you", BUDGET)
    ledger = folded(outcome("o", NOON_MS, {mine: 1, yours: 2}))
    fold(ledger, structs.replace(GONE, subject="key.usd_per_month", detail=json.dumps({"buckets": [mine[0]]})))
    assert used(ledger) == {yours[0]: (2, 0, 0)}
    assert [subject_of(name) for name in (mine[0], OTHER[0], "whole")] == [mine[0], "other", "whole"]


def test_a_detail_too_deep_to_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="its detail cannot be read"):
        fact_of(structs.replace(GONE, detail='{"x":' + "[" * 50_000))


def test_what_began_after_the_last_was_forgotten_is_charged_as_ever() -> None:
    ledger = folded(GONE, decision("h", NOON_MS + 6, {USD: 5}), outcome("h", NOON_MS + 7, {USD: 4}))
    assert ({key.bucket for key in ledger.stirred}, used(ledger)) == ({USD[0]}, {USD[0]: (4, 0, 0)})
    ledger.stirred.clear()
    fold(ledger, outcome("o", NOON_MS + 8, {USD: 1}))
    assert (ledger.stirred, used(ledger)) == (set(), {USD[0]: (5, 0, 0)})


def test_what_is_forgotten_is_not_settled_again() -> None:
    ledger = folded(decision("h", NOON_MS, {USD: 500, OTHER: 7}))
    fact, later = fact_of(outcome("o", NOON_MS, {USD: 1, OTHER: 2})), fact_of(outcome("o", NOON_MS + 6, {USD: 1}))
    assert fact is not None
    assert later is not None
    assert ledger.remembered(fact) is fact
    fold(ledger, GONE, BEGAN)
    assert [amount.bucket for amount in ledger.remembered(fact).amounts] == [OTHER[0]]
    assert ledger.remembered(later) == later
    (orphan,) = ledger.orphans()
    assert [amount.bucket for amount in orphan.amounts] == [OTHER[0]]


def test_that_it_was_forgotten_is_known_for_longer_than_lines_count() -> None:
    ledger = folded(GONE)
    ledger.prune(NOON_MS + 32 * DAY_MS)
    assert ledger.forgotten == {"org-budget": NOON_MS + 5}
    ledger.prune(NOON_MS + 34 * DAY_MS)
    assert ledger.forgotten == {}


@pytest.mark.parametrize(
    "record",
    [
        Record(Kind.DECISION, "x", 1, decision="allow"),
        Record(Kind.DECISION, "x", 1, decision="refuse", hold_id="h"),
        Record(Kind.OUTCOME, "x", 1, settled_amounts=told({USD: 1})),
        Record(Kind.ADMIN, "", 1, action="config.reload"),
        Record(Kind.CHECKPOINT, "", 1, action="repaired"),
        Record(Kind.CHECKPOINT, "", 1, action="segment", detail='{"opened_by":"size"}'),
    ],
)
def test_most_lines_say_nothing_about_limits(record: Record) -> None:
    assert fact_of(record) is None


def test_a_line_that_cannot_be_right_is_refused() -> None:
    with pytest.raises(ValueError, match="amount"):
        fact_of(outcome("h", 1, {USD: -1}))
    with pytest.raises(ValueError, match="does not end"):
        fact_of(Record(Kind.OUTCOME, "x", 1, hold_id="h", settled_amounts={"bare": 1}))


def test_a_fact_is_what_the_line_said() -> None:
    assert fact_of(BEGUN) == Fact(What.BEGAN, NOON_MS)
    fact = fact_of(outcome("h", NOON_MS, {USD: 3}))
    assert fact is not None
    assert (fact.what, fact.at_ms, fact.hold) == (What.SETTLED, NOON_MS, "h")
    (amount,) = fact.amounts
    assert (amount.bucket, amount.amount) == (USD[0], 3)
    spec: Spec = amount.spec
    assert list(folded(outcome("h", NOON_MS, {USD: 3})).used(NOON_MS)) == [Used(USD[0], spec, 3)]


@pytest.mark.parametrize(
    ("verdict", "counted"),
    [(slice_mark("now"), True), (slice_mark("before"), False), ("store", False), ("", False), ("team-tpm", False)],
)
def test_what_was_settled_in_slices_of_a_memory_is_counted_while_it_lasts(verdict: str, *, counted: bool) -> None:
    fact = fact_of(structs.replace(outcome("h", NOON_MS, {USD: 3}), limits_verdict=verdict))
    assert fact is not None
    assert is_counted(fact, "now") is counted
    assert used(folded(structs.replace(outcome("h", NOON_MS, {USD: 3}), limits_verdict=verdict))) == {USD[0]: (3, 0, 0)}


def test_where_nodes_share_a_rate_each_relies_on_its_part_of_the_refill() -> None:
    ledger = Ledger()
    ledger.nodes = 3
    spec = rate(MAX_AMOUNT, 60, 20_000)
    for number in range(60):  # a third of what the limit refills, each second of a minute
        ledger.take("w0", Fact(What.SETTLED, number * 1_000, f"h{number}", (Charge(key_of("b", spec), spec, 1),)))
    (used,) = ledger.used(59_500)
    assert (used.used, used.more) == (0, 1)
    ledger.prune(59_500)
    assert len(ledger.accounts) == 1
    ledger.prune(61_000)
    assert ledger.accounts == {}


def test_a_part_is_of_a_rate_alone() -> None:
    budget = window(100, 1, 2)
    assert part_of(budget, 3) is budget
    assert part_of(MINUTE, 1) is MINUTE
    assert part_of(rate(5, 5, 1_000), 3).amount == 2
