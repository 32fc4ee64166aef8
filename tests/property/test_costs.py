"""Costs, whatever the price: never below the exact sum, never a micro-USD above it, never above what was reserved."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger import cost
from gateway.ledger.prices import MAX_USD_PER_MTOK, PICOUSD_PER_USD_MTOK, Band, Price, Rates
from gateway.record import Usage

TOKENS = st.integers(0, 2_000_000)
RATE = st.one_of(st.integers(0, 100), st.integers(0, 200 * PICOUSD_PER_USD_MTOK), st.just(PICOUSD_PER_USD_MTOK))
RATES = st.builds(Rates, *[RATE] * 7)


@st.composite
def a_price(draw: st.DrawFn) -> Price:
    starts = sorted(draw(st.sets(TOKENS, max_size=3)))
    return Price(draw(RATES), tuple(Band(start, draw(RATES)) for start in starts), draw(RATE))


@st.composite
def some_usage(draw: st.DrawFn, *, audio: bool) -> Usage:
    """Counts that do not contradict each other."""
    read, written, rest, thought, said = (draw(TOKENS) for _ in range(5))
    heard, spoken = (draw(TOKENS), draw(TOKENS)) if audio else (0, 0)
    return Usage(
        input_tokens=read + written + heard + rest,
        output_tokens=thought + spoken + said,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=thought,
        audio_input_tokens=heard,
        audio_output_tokens=spoken,
    )


def exact_microusd(price: Price, usage: Usage) -> Fraction:
    rates = price.rates_of(usage.input_tokens)
    plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens - usage.audio_input_tokens
    answer = usage.output_tokens - usage.reasoning_tokens - usage.audio_output_tokens
    counts = (
        (plain, rates.input),
        (usage.cache_read_tokens, rates.cache_read),
        (usage.cache_write_tokens, rates.cache_write),
        (usage.audio_input_tokens, rates.audio_input),
        (answer, rates.output),
        (usage.reasoning_tokens, rates.reasoning),
        (usage.audio_output_tokens, rates.audio_output),
    )
    return Fraction(price.request_picousd + sum(tokens * each for tokens, each in counts), 10**6)


@given(a_price(), some_usage(audio=True))
def test_a_cost_is_the_exact_sum_rounded_up(price: Price, usage: Usage) -> None:
    assert 0 <= cost.of(price, usage) - exact_microusd(price, usage) < 1


@given(a_price(), some_usage(audio=False), TOKENS, TOKENS)
def test_text_never_costs_more_than_was_reserved(price: Price, usage: Usage, less: int, fewer: int) -> None:
    reserved = cost.at_most(price, usage.input_tokens + less, usage.output_tokens + fewer)
    assert cost.of(price, usage) <= reserved


@given(a_price(), some_usage(audio=True), TOKENS, TOKENS)
def test_sound_never_costs_more_than_was_reserved_for_it(price: Price, usage: Usage, less: int, fewer: int) -> None:
    reserved = cost.at_most(price, usage.input_tokens + less, usage.output_tokens + fewer, audio=True)
    assert cost.of(price, usage) <= reserved


@given(st.integers(0, MAX_USD_PER_MTOK * PICOUSD_PER_USD_MTOK), st.integers(0, 10**15), st.integers(0, 10**15))
def test_no_count_makes_a_cost_that_the_limiter_cannot_count(picousd: int, taken: int, given_back: int) -> None:
    price = Price(Rates(*[picousd] * 7))
    usage = Usage(input_tokens=taken, output_tokens=given_back)
    assert 0 <= cost.of(price, usage) <= cost.at_most(price, taken, given_back) <= cost.MAX_COST_MICROUSD
