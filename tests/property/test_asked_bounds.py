"""Whatever number a caller writes where answers and their length are asked for: it is counted, or it is refused.

Each is followed from the body as it is read to the buckets as every engine charges them: nothing raises, no number
leaves the bounds within which engines count exactly, and nobody is let in for less than who says nothing.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import pytest

from gateway.config.limits import Rule
from gateway.dialects.base import RequestFacts
from gateway.dialects.mediarules import rule
from gateway.dialects.registry import find
from gateway.dialects.surfaces import SURFACES
from gateway.errors import InvalidRequest
from gateway.ledger.prices import MAX_USD_PER_MTOK, quoted
from gateway.limiter.engine import Amount, Outcome
from gateway.limiter.estimate import Estimator, Weights
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.quick import QuickTable
from gateway.limiter.spec import MAX_AMOUNT
from gateway.limiter.table import Table
from gateway.limiter.use import Estimate
from gateway.record import Usage
from gateway.spending import Tariff, asked_of, estimate, passed, price_of, tariff_of
from tests.fakes.limit_engines import TimedEngine, lua_engine, store_engine
from tests.fakes.limit_model import LimitModel
from tests.fakes.limit_table import TimedTable
from tests.fakes.limits import START_MS, limits_of
from tests.fakes.store_server import any_store, connect

BODIES: Final = {
    "chat.completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "completions": {"model": "m", "prompt": ["hi", "ho"]},
    "responses": {"model": "m", "input": "hi"},
    "messages": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "images.generations": {"model": "m", "prompt": "hi"},
    "audio.speech": {"model": "m", "input": "hi", "voice": "ash"},
}
MEMBERS: Final = ("n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens")
NUMBERS: Final = (
    *("-1", "0", "-999999999999999", "999999999999999", "1000000000", "true", '"12"', "1e309", "-1e309", "1.5", "null"),
    *(str(2**31), str(2**53), str(2**63), str(-(2**63)), str(2**64), "1" + "0" * 18, "1" + "0" * 30, "9" * 5000),
)
DEAREST: Final = quoted({"input": MAX_USD_PER_MTOK, "output": MAX_USD_PER_MTOK})
KNOWN: Final = msgspec.structs.replace(DEAREST, context_tokens=2_000_000)
TARIFFS: Final = [
    tariff_of("acme", "m", 1_024, {"p/m": price}, measured=True, money=True) for price in (DEAREST, KNOWN)
]
LIMITS: Final = limits_of(
    Rule(name="rpm", requests=100, every="minute"),
    Rule(name="tpm", tokens=1_000_000, every="minute"),
    Rule(name="out", output_tokens=10**9, every="second"),
    Rule(name="usd", usd=1_000_000, every="month"),
    Rule(name="seen", tokens=10, every="minute", shadow=True),
)


def read(surface: str, member: str, number: str) -> tuple[bytes, RequestFacts]:
    """A body with this number in it, and its facts. Raises InvalidRequest."""
    body = b'%b, "%b": %b}' % (json.dumps(BODIES[surface])[:-1].encode(), member.encode(), number.encode())
    found = next(one for one in SURFACES if one.name == surface)
    return body, find(found.dialect).read_request(found, body)


def fresh_estimator() -> Estimator:
    learned = Learned(memoryview(bytearray(8 * LEARNED.words(0))).cast("q"))
    return Estimator(learned, {"m": Weights(rule("openai", "m"))})


def estimates(tariff: Tariff) -> Iterator[tuple[str, Estimate]]:
    """What is expected of every body that is not refused, and that an answer cut short has a price."""
    estimator, taught = fresh_estimator(), fresh_estimator()
    for surface in BODIES:
        for member in MEMBERS:
            for number in NUMBERS:
                try:
                    body, facts = read(surface, member, number)
                except InvalidRequest:
                    continue
                asked = asked_of(surface, body, facts, len(body))
                cut = passed(tariff, estimator, "p/m", 10**8, 10**8, asked)
                assert 0 <= cut.microusd <= MAX_AMOUNT
                taught.learn("acme", "m", asked, Usage(1, 1))
                yield f"{surface} {member} {number[:30]}", estimate(tariff, estimator, asked, surface, body)


@pytest.mark.parametrize("tariff", TARIFFS, ids=["no context", "a context"])
def test_no_number_of_a_body_is_more_than_can_be_counted_nor_less_than_none(tariff: Tariff) -> None:
    found = dict(estimates(tariff))
    assert len(found) > 100
    for name, wanted in found.items():
        assert all(0 <= amount <= MAX_AMOUNT for amount in (*wanted.full, *wanted.prompt)), name
        assert all(type(amount) is int for amount in wanted.full), name
        assert wanted.full.output_tokens >= 1_024, name
        assert price_of(tariff, "p/m", Usage(wanted.prompt.tokens, 1_024)) <= wanted.full.microusd, name


def settle_all(engines: Sequence[TimedEngine]) -> int:
    """Every estimate, reserved and settled at nothing and at all that was expected, alike by all engines."""
    takes = {tuple(LIMITS.lines(START_MS).takes(wanted)) for tariff in TARIFFS for _, wanted in estimates(tariff)}
    for number, taken in enumerate(sorted(takes, key=lambda each: [amount.amount for amount in each])):
        used = [Amount(amount.bucket, amount.spec, amount.amount * (number % 2)) for amount in taken]
        at_ms = START_MS + number * 60_000
        reserved = [engine.reserve(at_ms, f"h{number}", taken, lease_ms=1_000) for engine in engines]
        settled = [engine.settle(at_ms, f"h{number}", used) for engine in engines]
        assert reserved == [reserved[0]] * len(engines)
        assert settled == [settled[0]] * len(engines)
        assert reserved[0].outcome in {Outcome.ADMITTED, Outcome.REFUSED}
        assert all(abs(level) < 2**53 for level in (*reserved[0].levels, *settled[0].levels))
    return len(takes)


def test_every_engine_counts_them_alike() -> None:
    tables = [TimedTable(kind=kind, checked=True) for kind in (Table, QuickTable)]
    assert settle_all([LimitModel(), *tables, lua_engine(51), lua_engine(54)]) > 3


@pytest.mark.slow
def test_a_store_counts_them_alike() -> None:
    with any_store() as url, connect(url) as connection:
        settle_all([LimitModel(), store_engine(connection, "asked-bounds")])
