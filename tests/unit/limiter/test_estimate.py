"""Estimates: what is counted, what is learned from what, and that no number of a caller's is too large."""

from types import SimpleNamespace

import pytest

from gateway.dialects import measure
from gateway.dialects.asked import UNREAD, Asked
from gateway.dialects.media import Kind, Media
from gateway.limiter import estimate
from gateway.limiter.estimate import (
    ANSWER_TOKENS,
    LEARN_ALWAYS,
    LEARN_EVERY,
    MAX_TOKENS,
    MESSAGE_TOKENS,
    OUTPUT_PRIOR,
    Estimator,
    Weights,
)
from gateway.limiter.learned import LEARNED, MIN_SAMPLES, Learned
from gateway.limiter.spec import MAX_AMOUNT, MILLI
from gateway.limiter.tokens import MAX_INLINE_BYTES, Tokenizer
from gateway.record import Usage, UsageSource

FRAMING = MESSAGE_TOKENS + ANSWER_TOKENS
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "one two three"}]}'


def by_words(text: str, *, add_special_tokens: bool) -> SimpleNamespace:
    """A token a word, said as the package says it."""
    return SimpleNamespace(ids=[0] * add_special_tokens + [1 for _ in text.split()])


WORDS = Tokenizer(SimpleNamespace(encode=by_words))


@pytest.fixture
def estimator() -> Estimator:
    tables = Learned(memoryview(bytearray(LEARNED.words_shared * 8)).cast("q"))

    def by_pixels(media: Media) -> int:
        return media.width * media.height

    return Estimator(tables, {"m": Weights(by_pixels), "exact": Weights(by_pixels, WORDS)})


def teach(estimator: Estimator, asked: Asked, usage: Usage, times: int = 100, org: str = "o") -> None:
    for _ in range(times):
        estimator.learn(org, "m", asked, usage)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (Asked(), 0),
        (UNREAD, 0),
        (Asked(400), 100),
        (Asked(401), 101),
        (Asked(400, messages=1), 100 + FRAMING),
        (Asked(400, messages=3), 100 + 3 * MESSAGE_TOKENS + ANSWER_TOKENS),
        (Asked(tokens=17), 17),
        (Asked(400, media=(Media(Kind.IMAGE, 10, 20), Media(Kind.IMAGE, 1, 1))), 100 + 200 + 1),
    ],
)
def test_a_prompt_is_text_and_media_and_framing(estimator: Estimator, asked: Asked, tokens: int) -> None:
    assert estimator.prompt("o", "m", asked) == tokens


@pytest.mark.parametrize(
    ("asked_max", "n", "tokens"), [(None, 1, OUTPUT_PRIOR), (None, 3, 3 * OUTPUT_PRIOR), (0, 5, 0), (70, 2, 140)]
)
def test_an_answer_is_as_long_as_allowed_or_as_the_prior(
    estimator: Estimator, asked_max: int | None, n: int, tokens: int
) -> None:
    assert estimator.output("m", asked_max, n=n) == tokens


def test_the_models_own_prior(estimator: Estimator) -> None:
    assert estimator.output("m", None, 300) == 300


def test_learned_lengths_replace_the_prior_but_not_the_callers_limit(estimator: Estimator) -> None:
    teach(estimator, Asked(), Usage(output_tokens=40), times=MIN_SAMPLES - 1)
    assert estimator.output("m", None, org="o") == OUTPUT_PRIOR
    teach(estimator, Asked(), Usage(output_tokens=40), times=1)
    assert estimator.output("m", None, org="o") == 43
    assert estimator.output("m", None, org="other") == estimator.output("m", None) == OUTPUT_PRIOR
    assert estimator.output("m", None, n=2, org="o") == 86
    assert estimator.output("m", 7, org="o") == 7


def test_a_settled_ratio_replaces_the_prior(estimator: Estimator) -> None:
    teach(estimator, Asked(3_000, messages=2), Usage(input_tokens=1_500 + 2 * MESSAGE_TOKENS + ANSWER_TOKENS))
    assert estimator.prompt("o", "m", Asked(3_000)) == pytest.approx(1_500, abs=2)


def test_token_ids_say_nothing_about_bytes(estimator: Estimator) -> None:
    teach(estimator, Asked(4_000, tokens=500), Usage(input_tokens=1_500))
    assert estimator.prompt("o", "m", Asked(4_000)) == 1_000


@pytest.mark.parametrize(
    ("asked", "usage"),
    [
        (Asked(4_000, whole=False), Usage(input_tokens=4_000)),
        (UNREAD, Usage(input_tokens=4_000)),
        (Asked(4_000), Usage(input_tokens=4_000, source=UsageSource.METERED)),
        (Asked(4_000), Usage(input_tokens=4_000, source=UsageSource.ESTIMATED)),
        (Asked(), Usage(input_tokens=4_000)),
        (Asked(4_000), Usage()),
    ],
)
def test_what_says_nothing_about_text_teaches_nothing(estimator: Estimator, asked: Asked, usage: Usage) -> None:
    teach(estimator, asked, usage)
    assert estimator.prompt("o", "m", Asked(4_000)) == 1_000


@pytest.mark.parametrize(
    ("asked", "usage"),
    [
        (Asked(max_output=10), Usage(output_tokens=10)),  # cut by the caller, who will say it again
        (Asked(), Usage(output_tokens=10, source=UsageSource.METERED)),
    ],
)
def test_what_was_cut_teaches_no_length(estimator: Estimator, asked: Asked, usage: Usage) -> None:
    teach(estimator, asked, usage)
    assert estimator.output("m", None, org="o") == OUTPUT_PRIOR


def test_several_answers_are_several_lengths(estimator: Estimator) -> None:
    teach(estimator, Asked(n=4), Usage(output_tokens=28))
    assert estimator.output("m", None, org="o") == 7


def test_a_stream_that_was_cut_is_metered_by_the_ratio(estimator: Estimator) -> None:
    assert estimator.metered("o", "m", 401) == 101
    assert estimator.metered("o", "m", 0) == 0
    teach(estimator, Asked(3_000), Usage(input_tokens=1_500))
    assert estimator.metered("o", "m", 400) == pytest.approx(200, abs=1)


def test_abandoned_answers_are_remembered_apart(estimator: Estimator) -> None:
    assert estimator.abandoned("o", "m") is None
    for _ in range(MIN_SAMPLES):
        estimator.learn_abandoned("o", "m", 12)
    assert estimator.abandoned("o", "m") == 12
    assert estimator.abandoned("other", "m") is None, "what one org does is not another's to pay"
    assert estimator.output("m", None, org="o") == OUTPUT_PRIOR


def test_where_much_is_known_some_requests_teach(estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    lessons: list[str] = []
    monkeypatch.setattr(estimator._learned, "saw_text", lambda org, *_: lessons.append(org))
    teach(estimator, Asked(10), Usage(input_tokens=5), times=LEARN_ALWAYS + 10 * LEARN_EVERY)
    assert len(lessons) == LEARN_ALWAYS + 10
    teach(estimator, Asked(10), Usage(input_tokens=5), times=3, org="new")
    assert lessons[-3:] == ["new"] * 3


def test_what_was_taught_is_remembered_for_so_many_orgs(estimator: Estimator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_REMEMBERED", 10)
    for number in range(100):
        teach(estimator, Asked(10), Usage(input_tokens=5), times=2, org=f"org-{number}")
    assert len(estimator._taught) <= 10


# --- exact counts ---------------------------------------------------------------------------------------------------


def test_a_short_text_is_counted_exactly_where_the_model_names_a_tokenizer(estimator: Estimator) -> None:
    asked = measure.read("chat.completions", BODY)
    assert estimator.prompt("o", "exact", asked, "chat.completions", BODY) == 3 + FRAMING
    assert estimator.prompt("o", "m", asked, "chat.completions", BODY) == 4 + FRAMING


def test_a_long_text_is_estimated(estimator: Estimator) -> None:
    body = BODY.replace(b"three", b"three " + b"x" * MAX_INLINE_BYTES)
    asked = measure.read("chat.completions", body)
    assert estimator.prompt("o", "exact", asked, "chat.completions", body) > MAX_INLINE_BYTES // 4


@pytest.mark.parametrize(
    ("surface", "body"), [("", b""), ("chat.completions", b""), ("chat.completions", b'{"messages": ["odd"]}')]
)
def test_a_text_that_cannot_be_seen_is_estimated(estimator: Estimator, surface: str, body: bytes) -> None:
    assert estimator.prompt("o", "exact", Asked(400), surface, body) == 100


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_no_caller_asks_for_more_than_can_be_counted(estimator: Estimator) -> None:
    huge = Asked(10**15, 10**6, 10**15, (Media(Kind.IMAGE, 2**31, 2**31),))
    assert estimator.prompt("o", "m", huge) == MAX_TOKENS
    assert estimator.output("m", 10**15, n=10**15) == MAX_TOKENS
    assert estimator.metered("o", "m", 10**15) == MAX_TOKENS
    assert 2 * MAX_TOKENS * MILLI <= MAX_AMOUNT


def test_absurd_usage_is_survived(estimator: Estimator) -> None:
    teach(estimator, Asked(10, n=10**15), Usage(input_tokens=10**15, output_tokens=10**15))
    teach(estimator, Asked(10), Usage(input_tokens=-1, output_tokens=-1))
    assert 0 < estimator.prompt("o", "m", Asked(100)) <= 100
    assert 0 < estimator.output("m", None, org="o") <= MAX_TOKENS


def test_who_thinks_unseen_is_still_known_when_the_config_changes() -> None:
    learned = Learned(memoryview(bytearray(LEARNED.words_shared * 8)).cast("q"))
    Estimator(learned, {}).learn("acme", "m", Asked(text_bytes=40), Usage(10, 10, reasoning_tokens=4))
    assert Estimator(learned, {}).reasons("acme", "m")


def test_models_that_think_unseen_are_known_once_they_have_said_so(estimator: Estimator) -> None:
    asked = Asked(text_bytes=40)
    estimator.learn("acme", "m", asked, Usage(10, 10))
    assert not estimator.reasons("acme", "m")
    estimator.learn("acme", "m", asked, Usage(10, 10, reasoning_tokens=4, source=UsageSource.ESTIMATED))
    assert not estimator.reasons("acme", "m")
    estimator.learn("acme", "m", asked, Usage(10, 10, reasoning_tokens=4))
    assert estimator.reasons("acme", "m")
    assert not estimator.reasons("other", "m")
