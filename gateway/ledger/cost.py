"""What usage costs at a price: exact sums of picodollars, rounded up once, to whole micro-USD.

Rounding is per attempt and upwards, so that the sum of what callers are charged is never below what the provider
bills, by less than one micro-USD for each attempt. `of` never exceeds `at_most` of the same number of tokens, which is
why a hard budget that reserved `at_most` cannot be overspent by the price.

Where counts contradict each other (more cached tokens than input) each kind is charged as said and the rest is nothing.
A cost above MAX_COST_MICROUSD, which the limiter could not count, is charged as that: no real request comes near.
"""

from typing import Final

from gateway.ledger.prices import Price, Rates
from gateway.record import Usage

MAX_COST_MICROUSD: Final = 10**12
_PICO_PER_MICRO: Final = 1_000_000


def of(price: Price, usage: Usage) -> int:
    """Micro-USD of one attempt's usage."""
    rates = price.rates if not price.bands else price.rates_of(usage.input_tokens)
    read, written, heard = usage.cache_read_tokens, usage.cache_write_tokens, usage.audio_input_tokens
    thought, spoken = usage.reasoning_tokens, usage.audio_output_tokens
    taken, given = usage.input_tokens, usage.output_tokens
    picousd = price.request_picousd
    if read or written or heard:
        picousd += read * rates.cache_read + written * rates.cache_write + heard * rates.audio_input
        taken -= read + written + heard
    if thought or spoken:
        picousd += thought * rates.reasoning + spoken * rates.audio_output
        given -= thought + spoken
    if taken > 0:
        picousd += taken * rates.input
    if given > 0:
        picousd += given * rates.output
    microusd = -(-picousd // _PICO_PER_MICRO)
    return microusd if 0 <= microusd <= MAX_COST_MICROUSD else _bounded(microusd)


def at_most(price: Price, input_tokens: int, output_tokens: int, *, audio: bool = False) -> int:
    """Micro-USD of a `Bound` that is asked once."""
    return Bound(price, audio=audio).of(input_tokens, output_tokens)


class Bound:
    """What no usage of at most so many tokens can exceed at a price, whatever of it is cached, written or reasoning.

    `audio` says whether any of it may be sound: its rates are many times those of text, and most requests have none.
    """

    __slots__ = ("_bands", "_given", "_request_picousd", "_taken")

    def __init__(self, price: Price, *, audio: bool = False) -> None:
        self._request_picousd = price.request_picousd
        self._taken, self._given = _dearest(price.rates, audio=audio)
        self._bands = [(band.above, *_dearest(band.rates, audio=audio)) for band in price.bands]

    def of(self, input_tokens: int, output_tokens: int) -> int:
        """Micro-USD of so many tokens."""
        picousd = input_tokens * self._taken + output_tokens * self._given
        for above, taken, given in self._bands:
            if input_tokens > above:
                picousd = max(picousd, input_tokens * taken + output_tokens * given)
        microusd = -(-(self._request_picousd + picousd) // _PICO_PER_MICRO)
        return microusd if 0 <= microusd <= MAX_COST_MICROUSD else _bounded(microusd)


def _dearest(rates: Rates, *, audio: bool) -> tuple[int, int]:
    """What a token of input and one of output cost at most."""
    taken = max(rates.input, rates.cache_read, rates.cache_write, rates.audio_input if audio else 0)
    given = max(rates.output, rates.reasoning, rates.audio_output if audio else 0)
    return taken, given


def _bounded(microusd: int) -> int:
    return min(max(microusd, 0), MAX_COST_MICROUSD)
