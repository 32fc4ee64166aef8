"""Estimates under any history, and under writers who race and die: within bounds, and never half of anything."""

import multiprocessing
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.asked import Asked
from gateway.dialects.media import Kind, Media
from gateway.limiter.estimate import MAX_TOKENS, Estimator, Weights
from gateway.limiter.learned import COMPLETE, LEARNED, LEAST_RATIO, MOST_RATIO, RATIO_ROWS, Learned
from gateway.record import Usage
from gateway.segment import Segment

SIZE = st.one_of(st.integers(-10, 10), st.integers(0, 100_000), st.integers(0, 10**16))
MEDIA = st.builds(Media, st.sampled_from(Kind), width=SIZE, height=SIZE, ms=SIZE, pages=SIZE)
ASKED = st.builds(
    Asked,
    text_bytes=st.integers(0, 10**9),
    messages=st.integers(0, 1000),
    tokens=st.integers(0, 10**9),
    media=st.lists(MEDIA, max_size=2).map(tuple),
    max_output=st.none() | st.integers(0, 10**16),
    n=st.integers(1, 10**16),
    whole=st.booleans(),
)
USAGE = st.builds(Usage, input_tokens=SIZE, output_tokens=SIZE)
ORG = st.sampled_from(["", "a", "b"])
RACERS = 3
SAMPLES = 2_000
PATIENCE_S = 30
RACED_RATIO = 3
RACED_LENGTHS = (10, 15)


def nothing(_media: Media) -> int:
    return 0


def fresh() -> Learned:
    return Learned(memoryview(bytearray(LEARNED.words_shared * 8)).cast("q"))


@given(st.lists(st.tuples(ORG, ASKED, USAGE), max_size=80), ASKED, ORG)
def test_any_history_leaves_estimates_within_bounds(
    history: list[tuple[str, Asked, Usage]], asked: Asked, org: str
) -> None:
    learned = fresh()
    estimator = Estimator(learned, {"m": Weights(nothing)})
    for whose, before, usage in history:
        estimator.learn(whose, "m", before, usage)
        estimator.learn_abandoned(whose, "m", usage.output_tokens)
    assert LEAST_RATIO - 0.01 <= learned.bytes_per_token(org, "m") <= MOST_RATIO
    assert 0 <= estimator.prompt(org, "m", asked) <= MAX_TOKENS
    assert 0 <= estimator.output("m", asked.max_output, 1024, asked.n, org=org) <= MAX_TOKENS
    assert 0 <= estimator.metered(org, "m", asked.text_bytes) <= MAX_TOKENS
    assert 1 <= (estimator.abandoned(org, "m") or 1) <= MAX_TOKENS


@given(st.floats(1.6, 7.9), st.integers(50, 100_000))
def test_a_steady_language_is_learned_within_a_percent(ratio: float, tokens: int) -> None:
    learned = fresh()
    for _ in range(256 * 100 // tokens + 1):
        learned.saw_text("o", "m", int(tokens * ratio), tokens)
    assert learned.bytes_per_token("o", "m") == pytest.approx(ratio, rel=0.03)


@given(st.lists(st.integers(0, 2**20 - 1), min_size=50, max_size=400))
def test_nineteen_of_twenty_answers_stay_within_the_percentile(lengths: list[int]) -> None:
    learned = fresh()
    for tokens in lengths:
        learned.saw_answer(COMPLETE, "", "m", tokens)
    known = lengths if len(lengths) <= 64 else lengths[: len(lengths) // 16 * 16]  # when it was last looked for
    found = learned.p95(COMPLETE, "", "m")
    assert found is not None
    assert sum(tokens <= found for tokens in known) >= 0.95 * len(known)


def race(fd: int, seed: int, samples: int) -> None:
    """Teach many pairs the same two facts, as fast as it goes."""
    learned = Learned(Segment(fd).shared(LEARNED))
    for n in range(samples):
        org = f"org-{(n * 7 + seed) % 40}"
        learned.saw_text(org, "m", RACED_RATIO * (300 + n % 50), 300 + n % 50)
        learned.saw_answer(COMPLETE, org, "m", RACED_LENGTHS[n % 2])


def check_race(fd: int) -> None:
    learned = Learned(Segment(fd).shared(LEARNED))
    for org in (f"org-{n}" for n in range(40)):
        assert learned.bytes_per_token(org, "m") == pytest.approx(RACED_RATIO, abs=0.02)
        assert learned.p95(COMPLETE, org, "m") in RACED_LENGTHS


def test_writers_who_race_leave_no_half_rows() -> None:
    segment = Segment.create([LEARNED], slots=1)
    fork = multiprocessing.get_context("fork")
    racers = [fork.Process(target=race, args=(segment.fd, seed, SAMPLES)) for seed in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(PATIENCE_S)
        assert racer.exitcode == 0
    check_race(segment.fd)


def test_writers_who_are_killed_leave_no_half_rows() -> None:
    segment = Segment.create([LEARNED], slots=1)
    fork = multiprocessing.get_context("fork")
    for kill in range(8):
        racer = fork.Process(target=race, args=(segment.fd, kill, 10**9))
        before = segment.shared(LEARNED)[:RATIO_ROWS].tolist()
        racer.start()
        deadline = time.monotonic() + PATIENCE_S
        while segment.shared(LEARNED)[:RATIO_ROWS].tolist() == before and time.monotonic() < deadline:
            time.sleep(0.001 * kill)  # it is in the midst of it, at another moment each time
        assert racer.pid is not None
        os.kill(racer.pid, signal.SIGKILL)
        racer.join(PATIENCE_S)
        assert racer.exitcode == -signal.SIGKILL
    race(segment.fd, 0, SAMPLES)
    check_race(segment.fd)
