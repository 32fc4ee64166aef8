"""What a request is expected to use before it is sent, and what it has used when it is over, in the limits' own terms.

A `Tariff` is what requests of one key for one model have in common: the entry, the price of each of its targets, and
whether their size matters to a limit. From it come the estimate that is reserved, and the Use that is settled: each
attempt at the price of the target that was tried.

A budget of money must not be overspent, so it reserves what the answer can cost at most: up to the caller's own limit,
or up to the model's context where the caller sets none and its size is known. Tokens reserve what is expected.

Invariants: nothing is estimated for a request that no limit measures; no answer is estimated to be longer than the
context of the model that would give it, where that is known, whatever its caller asks for; money is whole micro-USD.
Left out: what limits do with it (`limiter/`), and what tokens and prices are (`limiter/estimate.py`, `ledger/`).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.dialects import measure
from gateway.dialects.asked import Asked
from gateway.dialects.base import RequestFacts
from gateway.dialects.media import Kind
from gateway.ledger import cost
from gateway.ledger.cost import Bound
from gateway.ledger.prices import Price
from gateway.limiter.estimate import Estimator
from gateway.limiter.use import Estimate, Use, expected, use
from gateway.record import Usage

_UNSAID: Final[Mapping[str, int | None]] = {}
_PRICES_KEPT: Final = 512  # whose bounds tariffs share


class Bounds(NamedTuple):
    """What requests can cost at most at one price: those of text alone, and those that may have sound in them."""

    context_tokens: int
    text: Bound
    sound: Bound


class Tariff(NamedTuple):
    """What is the same for all requests of one key for one model. `prices` is by the names of targets."""

    org: str
    entry: str
    prior: int  # tokens of an answer while nothing is known
    prices: Mapping[str, Price | None]
    measured: bool = False  # a limit counts tokens or money
    charging: tuple[Bounds, ...] = ()  # of the prices that there are, where a limit counts money
    context: int = 0  # tokens that no target's answer exceeds; 0: not known of every target


def tariff_of(
    org: str,
    entry: str,
    prior: int,
    prices: Mapping[str, Price | None],
    *,
    measured: bool,
    money: bool,
    contexts: Mapping[str, int | None] = _UNSAID,
) -> Tariff:
    """The tariff of such requests. `money`: a limit counts it; `contexts`: what the config says of targets' windows."""
    charging = tuple(bounds(price) for price in prices.values() if price is not None) if money else ()
    known = [contexts.get(name) or (price.context_tokens if price else 0) for name, price in prices.items()]
    context = max(known) if known and all(known) else 0
    return Tariff(org, entry, prior, prices, measured, charging, context)


@lru_cache(_PRICES_KEPT)
def bounds(price: Price) -> Bounds:
    """What requests can cost at this price; one for all tariffs, of which there are as many as keys times models."""
    return Bounds(price.context_tokens, Bound(price), Bound(price, audio=True))


UNPRICED: Final = Tariff("", "", 0, {})
"""Requests of which only the path is known."""


def asked_of(surface: str, body: bytes, facts: RequestFacts | None, length: int) -> Asked:
    """How much a request asks for. A form is judged by its length and its `n`: nearly all of it is its file."""
    if facts is None:
        return measure.read(surface, body)
    if facts.form:
        return measure.form(surface, length, facts.n)
    return measure.known(facts) or measure.read(surface, body)


def estimate(tariff: Tariff, estimator: Estimator, asked: Asked, surface: str, body: bytes) -> Estimate:
    """What to reserve for it."""
    org, entry = tariff.org, tariff.entry
    prompt = estimator.prompt(org, entry, asked, surface, body)
    output = estimator.output(entry, asked.max_output, tariff.prior, asked.n, org=org)
    if tariff.context and output > tariff.context * asked.n:
        output = tariff.context * asked.n
    full = alone = 0
    for context, text, sound in tariff.charging:
        bound = sound if _has_sound(asked, surface) else text
        longest = _longest(context, asked, prompt, output) if context else output
        full = max(full, bound.of(prompt, longest))
        alone = max(alone, bound.of(prompt, 0))
    return expected(prompt, output, full, alone)


def price_of(tariff: Tariff, target: str, usage: Usage) -> int:
    """Micro-USD of an attempt at a target, 0 where its price is not known."""
    price = tariff.prices.get(target)
    return cost.of(price, usage) if price is not None else 0


def passed(tariff: Tariff, estimator: Estimator, target: str, prompt: int, metered: int, asked: Asked | None) -> Use:
    """What an answer that was cut has used, by the tokens of it that passed, and by what its like come to.

    Those had their own limits; this one cannot have been longer than its caller allows.
    """
    peers = estimator.abandoned(tariff.org, tariff.entry) or 0
    if asked is not None and asked.max_output is not None:
        peers = min(peers, asked.max_output * asked.n)
    output = max(metered, peers)
    price = tariff.prices.get(target)
    return use(prompt, output, cost.at_most(price, prompt, output) if price is not None else 0)


def _has_sound(asked: Asked, surface: str) -> bool:
    """Whether any of it may cost what sound costs, which is many times the price of text."""
    if asked.spoken or surface.startswith("audio."):
        return True
    return bool(asked.media) and any(medium.kind is Kind.AUDIO for medium in asked.media)


def _longest(context: int, asked: Asked, prompt: int, output: int) -> int:
    """Tokens that the answers of a model with so much context cannot exceed.

    What the caller allows is bounded by all of the context: what the prompt leaves of it is an estimate.
    """
    if asked.max_output is None:
        output = max(output, (context - prompt) * asked.n)
    return min(output, context * asked.n)
