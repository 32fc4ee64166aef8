"""What a request is expected to use and what it has used: tokens always, money where a limit counts it."""

import pytest

from gateway.dialects.asked import Asked
from gateway.dialects.base import RequestFacts
from gateway.dialects.media import Kind, Media
from gateway.dialects.mediarules import rule
from gateway.ledger.prices import Price, quoted
from gateway.limiter.estimate import Estimator, Weights
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.use import use
from gateway.record import Usage
from gateway.spending import UNPRICED, Tariff, asked_of, bounds, estimate, passed, price_of, tariff_of

CHEAP = quoted({"input": 1, "output": 2})
DEAR = quoted({"input": 10, "output": 20})
PRICES: dict[str, Price | None] = {"a/m": CHEAP, "b/m": DEAR, "c/m": None}
TARIFF = Tariff("acme", "m", 1_000, PRICES, measured=True)
MONEY = TARIFF._replace(charging=(bounds(CHEAP), bounds(DEAR)))


@pytest.fixture
def estimator() -> Estimator:
    learned = Learned(memoryview(bytearray(8 * LEARNED.words(0))).cast("q"))
    return Estimator(learned, {"m": Weights(rule("openai", "m"))})


def test_tokens_are_estimated_by_the_prompt_and_the_callers_maximum(estimator: Estimator) -> None:
    found = estimate(TARIFF, estimator, Asked(text_bytes=400, max_output=50, n=2), "chat.completions", b"")
    assert (found.full, found.prompt) == (use(100, 100), use(100, 0))


def test_without_a_maximum_the_models_prior_is_expected(estimator: Estimator) -> None:
    assert estimate(TARIFF, estimator, Asked(text_bytes=4), "chat.completions", b"").full == use(1, 1_000)


def test_what_a_price_comes_to_is_worked_out_once_for_all_tariffs() -> None:
    one = tariff_of("acme", "m", 1, PRICES, measured=True, money=True)
    other = tariff_of("umbrella", "n", 2, {"d/n": quoted({"input": 1, "output": 2})}, measured=True, money=True)
    assert one.charging[0] is other.charging[0]
    assert one.charging[0] is not one.charging[1]


def test_money_is_reserved_at_the_dearest_target(estimator: Estimator) -> None:
    found = estimate(MONEY, estimator, Asked(text_bytes=400, max_output=50), "chat.completions", b"")
    assert found.full == use(100, 50, 100 * 10 + 50 * 20)
    assert found.prompt == use(100, 0, 100 * 10)


def test_money_of_an_answer_without_a_maximum_is_all_that_the_models_context_has_room_for(estimator: Estimator) -> None:
    tariff = MONEY._replace(charging=(bounds(Price(CHEAP.rates, context_tokens=10_100)), bounds(CHEAP)))
    found = estimate(tariff, estimator, Asked(text_bytes=400), "chat.completions", b"")
    assert found.full == use(100, 1_000, 100 * 1 + 10_000 * 2)
    asked = Asked(text_bytes=400, max_output=7)
    assert estimate(tariff, estimator, asked, "chat.completions", b"").full.microusd == 100 + 14
    tight = tariff._replace(charging=(bounds(Price(CHEAP.rates, context_tokens=50)),))
    assert estimate(tight, estimator, Asked(text_bytes=400), "chat.completions", b"").full.microusd == 100 + 50 * 2


@pytest.mark.parametrize(("most", "n", "tokens"), [(10**9, 1, 5_000), (10**9, 3, 15_000), (70, 3, 210)])
def test_no_answer_is_longer_than_the_models_context_whatever_its_caller_allows(
    most: int, n: int, tokens: int, estimator: Estimator
) -> None:
    small, large = Price(CHEAP.rates, context_tokens=1_000), Price(CHEAP.rates, context_tokens=5_000)
    prices = {"a/m": small, "b/m": large}
    tariff = tariff_of("acme", "m", 300, prices, measured=True, money=True)
    asked = Asked(text_bytes=400, max_output=most, n=n)
    assert estimate(tariff, estimator, asked, "chat.completions", b"").full == use(100, tokens, 100 + tokens * 2)


def test_money_is_bounded_by_each_targets_own_context(estimator: Estimator) -> None:
    prices = {"a/m": Price(DEAR.rates, context_tokens=10), "b/m": Price(CHEAP.rates, context_tokens=5_000)}
    tariff = tariff_of("acme", "m", 300, prices, measured=True, money=True)
    asked = Asked(text_bytes=400, max_output=10**9)
    found = estimate(tariff, estimator, asked, "chat.completions", b"").full
    assert found == use(100, 5_000, 100 + 5_000 * 2)  # not 5,000 at the dear one's price


def test_what_is_learned_of_answers_is_bounded_by_the_context_too(estimator: Estimator) -> None:
    prices = {"a/m": Price(CHEAP.rates, context_tokens=200)}
    tariff = tariff_of("acme", "m", 300, prices, measured=True, money=False)
    assert estimate(tariff, estimator, Asked(text_bytes=4), "chat.completions", b"").full == use(1, 200)


@pytest.mark.parametrize(
    ("contexts", "context"),
    [
        ({"a/m": 4_000, "b/m": 6_000, "c/m": 5_000}, 6_000),
        ({"b/m": 600, "c/m": 500}, 1_000),  # a/m's is published
        ({"a/m": 10, "b/m": None, "c/m": 500}, 0),
    ],
)
def test_the_config_may_say_how_large_a_context_is(
    contexts: dict[str, int | None], context: int, estimator: Estimator
) -> None:
    prices = {"a/m": Price(CHEAP.rates, context_tokens=1_000), "b/m": CHEAP, "c/m": None}
    tariff = tariff_of("acme", "m", 300, prices, measured=True, money=False, contexts=contexts)
    assert tariff.context == context
    asked = Asked(text_bytes=400, max_output=10**9)
    most = estimate(tariff, estimator, asked, "chat.completions", b"").full.output_tokens
    assert most == (context or 10**8)


@pytest.mark.parametrize("other", [None, CHEAP])
def test_a_target_of_unknown_context_leaves_the_callers_word(other: Price | None, estimator: Estimator) -> None:
    prices = {"a/m": Price(CHEAP.rates, context_tokens=1_000), "b/m": other}
    tariff = tariff_of("acme", "m", 300, prices, measured=True, money=False)
    assert tariff.context == tariff_of("acme", "m", 300, {}, measured=True, money=False).context == 0
    asked = Asked(text_bytes=400, max_output=9_000)
    assert estimate(tariff, estimator, asked, "chat.completions", b"").full == use(100, 9_000)


@pytest.mark.parametrize(
    ("asked", "surface"),
    [
        (Asked(text_bytes=400, max_output=50, media=(Media(Kind.AUDIO),)), "chat.completions"),
        (Asked(text_bytes=400, max_output=50, spoken=True), "chat.completions"),
        (Asked(text_bytes=400, max_output=50), "audio.speech"),
    ],
)
def test_money_of_what_may_be_sound_is_reserved_at_the_price_of_sound(
    asked: Asked, surface: str, estimator: Estimator
) -> None:
    sound = quoted({"input": 1, "output": 2, "audio_input": 30, "audio_output": 80})
    found = estimate(MONEY._replace(charging=(bounds(sound),)), estimator, asked, surface, b"")
    assert found.full.microusd == found.full.input_tokens * 30 + 50 * 80
    assert found.prompt.microusd == found.full.input_tokens * 30
    text = Asked(text_bytes=400, max_output=50, media=(Media(Kind.IMAGE),))
    written = estimate(MONEY._replace(charging=(bounds(sound),)), estimator, text, "chat.completions", b"")
    assert written.full.microusd == written.full.input_tokens + 50 * 2


def test_what_has_no_price_costs_nothing_here(estimator: Estimator) -> None:
    tariff = MONEY._replace(prices={"c/m": None}, charging=())
    assert estimate(tariff, estimator, Asked(text_bytes=4, max_output=1), "chat.completions", b"").full.microusd == 0
    assert price_of(TARIFF, "c/m", Usage(5, 5)) == price_of(UNPRICED, "a/m", Usage(5, 5)) == 0


def test_an_attempt_is_priced_at_its_own_target() -> None:
    assert price_of(TARIFF, "a/m", Usage(3, 2)) == 7
    assert price_of(TARIFF, "b/m", Usage(3, 2)) == 70


def test_a_cut_answer_is_charged_by_its_text_or_by_what_its_like_come_to(estimator: Estimator) -> None:
    assert passed(TARIFF, estimator, "a/m", 100, 11, None) == use(100, 11, 100 + 22)
    for _ in range(60):
        estimator.learn_abandoned("acme", "m", 500)
    found = passed(TARIFF, estimator, "c/m", 100, 11, Asked())
    assert found.output_tokens >= 500
    assert found.microusd == 0


@pytest.mark.parametrize(("most", "n", "tokens"), [(20, 1, 20), (20, 3, 60), (5, 1, 11), (0, 1, 11)])
def test_a_cut_answer_is_not_charged_for_more_than_its_caller_allowed(
    most: int, n: int, tokens: int, estimator: Estimator
) -> None:
    for _ in range(60):
        estimator.learn_abandoned("acme", "m", 500)
    assert passed(TARIFF, estimator, "a/m", 100, 11, Asked(max_output=most, n=n)).output_tokens == tokens


def test_a_form_is_judged_by_its_length_and_its_n() -> None:
    asked = asked_of("images.edits", b"--x", RequestFacts(model="m", form=True, n=3), 10_000)
    assert asked.media
    assert asked.n == 3
    body = b'{"model":"m","messages":[{"role":"user","content":"abcd"}],"max_tokens":9}'
    read = asked_of("chat.completions", body, RequestFacts(model="m"), len(body))
    assert (read.text_bytes, read.max_output) == (4, 9)
