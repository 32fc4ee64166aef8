"""What usage costs at a price: exact sums of picodollars, rounded up once, to whole micro-USD.

Rounding is per attempt and upwards, so that the sum of what callers are charged is never below what the provider
bills, by less than one micro-USD for each attempt. `of` never exceeds `at_most` of the same number of tokens, which is
why a hard budget that reserved `at_most` cannot be overspent by the price.

Where counts contradict each other (more cached tokens than input) each kind is charged as said and the rest is nothing.
A cost above MAX_COST_MICROUSD, which the limiter could not count, is charged as that: no real request comes near.
"""

from functools import lru_cache
from typing import Final

from gateway.ledger.prices import Price, Rates
from gateway.record import Usage

MAX_COST_MICROUSD: Final = 10**12
_PICO_PER_MICRO: Final = 1_000_000
_REMEMBERED: Final = 4096  # rates, of which a config has a few


def of(price: Price, usage: Usage) -> int:
    """Micro-USD of one attempt's usage."""
    rates = price.rates if not price.bands else price.rates_of(usage.input_tokens)
    read, written, heard = usage.cache_read_tokens, usage.cache_write_tokens, usage.audio_input_tokens
    thought, spoken = usage.reasoning_tokens, usage.audio_output_tokens
    return _micro(
        price.request_picousd
        + max(usage.input_tokens - read - written - heard, 0) * rates.input
        + read * rates.cache_read
        + written * rates.cache_write
        + heard * rates.audio_input
        + max(usage.output_tokens - thought - spoken, 0) * rates.output
        + thought * rates.reasoning
        + spoken * rates.audio_output
    )


def at_most(price: Price, input_tokens: int, output_tokens: int, *, audio: bool = False) -> int:
    """Micro-USD that no usage of at most so many tokens can exceed, whatever of it is cached, written or reasoning.

    `audio` says whether any of it may be sound: its rates are many times those of text, and most requests have none.
    """
    taken, given = _dearest(price.rates, audio=audio)
    dearest = input_tokens * taken + output_tokens * given
    for band in price.bands:
        if input_tokens > band.above:
            taken, given = _dearest(band.rates, audio=audio)
            dearest = max(dearest, input_tokens * taken + output_tokens * given)
    return _micro(price.request_picousd + dearest)


@lru_cache(maxsize=_REMEMBERED)
def _dearest(rates: Rates, *, audio: bool) -> tuple[int, int]:
    """What a token of input and one of output cost at most."""
    taken = max(rates.input, rates.cache_read, rates.cache_write, rates.audio_input if audio else 0)
    given = max(rates.output, rates.reasoning, rates.audio_output if audio else 0)
    return taken, given


def _micro(picousd: int) -> int:
    return min(max(-(-picousd // _PICO_PER_MICRO), 0), MAX_COST_MICROUSD)
