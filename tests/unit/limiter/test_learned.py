"""What is learned: that evidence outweighs priors, old evidence fades, crowds do not drown the busy, bounds hold."""

import random

import pytest

from gateway.limiter import learned
from gateway.limiter.learned import (
    ABANDONED,
    ANSWER_ROWS,
    COMPLETE,
    LEARNED,
    LEAST_RATIO,
    MAX_SAMPLES,
    MAX_TOKENS,
    MIN_SAMPLES,
    MOST_RATIO,
    PRIOR_RATIO,
    RATIO_ROWS,
    Learned,
)
from gateway.segment import Segment

ORG, MODEL = "acme", "big"


@pytest.fixture
def tables() -> Learned:
    return Learned(memoryview(bytearray(LEARNED.words_shared * 8)).cast("q"))


def saw_text(tables: Learned, ratio: float, requests: int = 100, org: str = ORG, model: str = MODEL) -> None:
    for _ in range(requests):
        tables.saw_text(org, model, int(1000 * ratio), 1000)


def saw_answers(tables: Learned, *lengths: int, org: str = ORG, model: str = MODEL) -> None:
    for tokens in lengths:
        tables.saw_answer(COMPLETE, org, model, tokens)


def p95(tables: Learned, org: str = ORG, model: str = MODEL) -> int | None:
    return tables.p95(COMPLETE, org, model)


# --- bytes a token --------------------------------------------------------------------------------------------------


def test_the_prior_is_four_bytes(tables: Learned) -> None:
    assert tables.bytes_per_token(ORG, MODEL) == PRIOR_RATIO == 4


def test_evidence_outweighs_the_prior(tables: Learned) -> None:
    tables.saw_text(ORG, MODEL, 600, 256)
    assert tables.bytes_per_token(ORG, MODEL) == pytest.approx((2.34 + 4) / 2, abs=0.01)
    saw_text(tables, 2.5)
    assert tables.bytes_per_token(ORG, MODEL) == pytest.approx(2.5, abs=0.01)


@pytest.mark.parametrize("teacher", [ORG, ""])
def test_a_new_pair_begins_with_the_prior_whatever_others_send(teacher: str, tables: Learned) -> None:
    saw_text(tables, 1.5, org=teacher)
    assert tables.bytes_per_token("other", MODEL) == PRIOR_RATIO
    assert tables.bytes_per_token(teacher, "other") == PRIOR_RATIO
    assert tables.bytes_per_token("" if teacher else ORG, MODEL) == PRIOR_RATIO


def test_each_org_has_its_own_language(tables: Learned) -> None:
    for _ in range(100):
        saw_text(tables, 2, requests=1, org="one")
        saw_text(tables, 5, requests=1, org="two")
    assert tables.bytes_per_token("one", MODEL) == pytest.approx(2, abs=0.01)
    assert tables.bytes_per_token("two", MODEL) == pytest.approx(5, abs=0.01)


def test_old_habits_fade(tables: Learned) -> None:
    saw_text(tables, 5, requests=2_000)
    saw_text(tables, 2, requests=500)
    assert tables.bytes_per_token(ORG, MODEL) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(("text_bytes", "bound"), [(1, LEAST_RATIO), (10**9, MOST_RATIO)])
def test_the_ratio_keeps_its_bounds(tables: Learned, text_bytes: int, bound: float) -> None:
    for _ in range(1000):
        tables.saw_text(ORG, MODEL, text_bytes, 10_000)
    assert tables.bytes_per_token(ORG, MODEL) == pytest.approx(bound, abs=0.001)


def test_one_request_is_never_the_whole_truth(tables: Learned) -> None:
    saw_text(tables, 4, requests=200)
    tables.saw_text(ORG, MODEL, 2 * 10**9, 10**9)
    assert tables.bytes_per_token(ORG, MODEL) > 3.5


@pytest.mark.parametrize(("text_bytes", "tokens"), [(0, 10), (10, 0), (-1, 10), (10, -1)])
def test_nothing_teaches_nothing(tables: Learned, text_bytes: int, tokens: int) -> None:
    tables.saw_text(ORG, MODEL, text_bytes, tokens)
    assert tables.bytes_per_token(ORG, MODEL) == PRIOR_RATIO


def test_more_pairs_than_rows(tables: Learned) -> None:
    saw_text(tables, 2, requests=200)
    for number in range(3 * RATIO_ROWS):
        tables.saw_text(f"org-{number}", "other", 4_000, 1_000)
        if number % 100 == 0:
            saw_text(tables, 2, requests=1)
    assert tables.bytes_per_token(ORG, MODEL) == pytest.approx(2, abs=0.05)  # the busy one was not drowned
    assert all(1 <= tables.bytes_per_token(f"org-{n}", "other") <= MOST_RATIO for n in range(100))
    assert len(tables._spots) <= learned._REMEMBERED


def test_a_passer_by_takes_no_place_of_the_busy(tables: Learned) -> None:
    for at in range(RATIO_ROWS):
        tables._put(at, 1 + at, 10_000, 30_000)
    tables.saw_text("", MODEL, 2_000, 1_000)
    assert tables.bytes_per_token("", MODEL) == PRIOR_RATIO
    assert [word >> learned._TAG_AT for word in tables._ratios.tolist()] == list(range(1, RATIO_ROWS + 1))


def test_a_row_that_has_moved_is_found_again(tables: Learned) -> None:
    saw_text(tables, 2, requests=100)
    saw_answers(tables, *[100] * MIN_SAMPLES)
    known = tables.bytes_per_token(ORG, MODEL), p95(tables)
    first = Learned(memoryview(bytearray(LEARNED.words_shared * 8)).cast("q"))
    assert (first.bytes_per_token(ORG, MODEL), p95(first)) == (PRIOR_RATIO, None)
    (ratio,) = (at for at, word in enumerate(tables._ratios.tolist()) if word)
    first._ratios[ratio], first._ratios[(ratio + 1) % RATIO_ROWS] = 1 << learned._TAG_AT, tables._ratios[ratio]
    row = next(at for at in range(0, len(tables._answers), learned._ANSWER_WORDS) if tables._answers[at])
    after = (row + learned._ANSWER_WORDS) % len(tables._answers)
    first._answers[row] = 1
    for word in range(learned._ANSWER_WORDS):
        first._answers[after + word] = tables._answers[row + word]
    assert (first.bytes_per_token(ORG, MODEL), p95(first)) == known
    first._ratios[(ratio + 1) % RATIO_ROWS] = first._answers[after] = 1 << learned._TAG_AT
    assert (first.bytes_per_token(ORG, MODEL), p95(first)) == (PRIOR_RATIO, None), "another has its place"


def test_of_two_rows_of_a_pair_the_one_that_grows_is_read(tables: Learned) -> None:
    """Two workers that claim a row at once can come to this; everybody adds to the first of them."""
    saw_text(tables, 2, requests=100)
    saw_answers(tables, *[100] * MIN_SAMPLES)
    spots = {name[0]: spot for name, spot in tables._spots.items()}
    ratio, answers = spots["r"], spots[COMPLETE]
    second, after = (ratio.home + 1) % RATIO_ROWS, (answers.home + 1) % ANSWER_ROWS * learned._ANSWER_WORDS
    tables._ratios[second] = ratio.tag << learned._TAG_AT | 40_000 << learned._TOKEN_BITS | 10_000
    tables._answers[after] = answers.tag
    ratio.at, answers.at = ratio.home + 1, answers.home + 1
    assert tables.bytes_per_token(ORG, MODEL) == pytest.approx(4, abs=0.1)
    assert p95(tables) is None
    saw_text(tables, 2, requests=1)
    saw_answers(tables, 100)
    assert tables.bytes_per_token(ORG, MODEL) == pytest.approx(2, abs=0.1)
    assert p95(tables) == 103


def test_a_newcomer_gets_a_place_in_a_full_table(tables: Learned) -> None:
    for at in range(RATIO_ROWS):
        tables._put(at, 1 + at, 1_000, 8_000)
    for _ in range(40):
        tables.saw_text(ORG, MODEL, 2_000, 1_000)
    assert tables.bytes_per_token(ORG, MODEL) < 2.2


# --- lengths --------------------------------------------------------------------------------------------------------


def test_too_few_answers_say_nothing(tables: Learned) -> None:
    saw_answers(tables, *[100] * (MIN_SAMPLES - 1))
    assert p95(tables) is None
    saw_answers(tables, 100)
    assert p95(tables) is not None


@pytest.mark.parametrize("seed", range(5))
def test_the_percentile_is_at_most_an_eighth_above_the_exact_one(tables: Learned, seed: int) -> None:
    lengths = [int(random.Random(seed + n).lognormvariate(5.5, 1.2)) for n in range(1024)]
    saw_answers(tables, *lengths)
    exact = sorted(lengths)[972]
    found = p95(tables)
    assert found is not None
    assert exact <= found <= exact * 1.125 + 1


@pytest.mark.parametrize(("tokens", "found"), [(-5, 1), (0, 1), (1, 1), (7, 7), (8, 8), (15, 15), (16, 17)])
def test_short_answers(tables: Learned, tokens: int, found: int) -> None:
    saw_answers(tables, *[tokens] * MIN_SAMPLES)
    assert p95(tables) == found


def test_answers_without_end(tables: Learned) -> None:
    saw_answers(tables, *[10**15] * MIN_SAMPLES)
    assert p95(tables) == MAX_TOKENS


@pytest.mark.parametrize("talker", [ORG, ""])
def test_how_long_an_orgs_answers_are_says_nothing_of_anothers(talker: str, tables: Learned) -> None:
    saw_answers(tables, *[120_000] * 60, org=talker)
    assert p95(tables, org="terse") is None
    assert p95(tables, org="" if talker else ORG) is None
    saw_answers(tables, *[10] * 50, org="terse")
    assert p95(tables, org="terse") == 10
    assert p95(tables, org=talker, model="other") is None


def test_abandoned_answers_are_kept_apart(tables: Learned) -> None:
    saw_answers(tables, *[1_000] * 60)
    assert tables.p95(ABANDONED, ORG, MODEL) is None


def test_long_answers_fade(tables: Learned) -> None:
    saw_answers(tables, *[10_000] * MAX_SAMPLES)
    saw_answers(tables, *[10] * (8 * MAX_SAMPLES))
    assert p95(tables) == 10


def test_more_models_than_rows(tables: Learned) -> None:
    saw_answers(tables, *[300] * 200)
    for number in range(2 * ANSWER_ROWS):
        saw_answers(tables, 5, 5, org="", model=f"m-{number}")
        if number % 20 == 0:
            saw_answers(tables, 300)
    assert p95(tables) == 319
    saw_answers(tables, *[5] * 200, org="", model="newcomer")
    assert p95(tables, org="", model="newcomer") == 5


def test_every_length_has_its_bucket() -> None:
    lengths = [*range(5_000), *(2**n + d for n in range(12, 20) for d in (-1, 0, 1)), MAX_TOKENS]
    for tokens in lengths:
        bucket = learned._bucket(tokens)
        assert 0 <= bucket < learned._BUCKETS
        assert tokens <= learned._longest(bucket) <= tokens * 1.125 + 1
        assert tokens == 0 or bucket == 0 or learned._longest(bucket - 1) < tokens


# --- shared memory --------------------------------------------------------------------------------------------------


def test_processes_share_what_they_learn() -> None:
    segment = Segment.create([LEARNED], slots=1)
    one, other = (Learned(Segment(segment.fd).shared(LEARNED)) for _ in range(2))
    saw_text(one, 3)
    saw_answers(one, *[9] * MIN_SAMPLES)
    assert other.bytes_per_token(ORG, MODEL) == one.bytes_per_token(ORG, MODEL)
    assert p95(other) == p95(one) == 9


def test_rubbish_in_memory_is_read_within_bounds() -> None:
    rubbish = random.Random(7).randbytes(LEARNED.words_shared * 8)
    tables = Learned(memoryview(bytearray(rubbish)).cast("q"))
    for number in range(300):
        saw_text(tables, 3, requests=1, org=f"o{number}")
        saw_answers(tables, 10, org=f"o{number}")
        assert 0 < tables.bytes_per_token(f"o{number}", MODEL) < 2**21
        assert (p95(tables, org=f"o{number}") or 1) <= MAX_TOKENS + 1
