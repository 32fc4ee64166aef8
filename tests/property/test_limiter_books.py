"""Whatever happens to requests and to the store: what is used is what was settled, and no slot leaks.

Seeded histories of requests that are admitted, refused, settled, failed over, or left; leases that end; a store that
is away, answers late, or did it and lost the answer. In the end every hold is settled and the store is back.
"""

import asyncio
import random

import pytest

from gateway.config.limits import Rule
from gateway.errors import GatewayError
from gateway.limiter.engine import Reason
from gateway.limiter.hold import State
from gateway.limiter.limiter import LEASE_MS
from gateway.limiter.reservation import Hold, Origin
from gateway.limiter.use import Estimate, Use, use
from tests.fakes.limits import FakeEngine, Setting, away, limits_of

STEPS = 150
PROVIDERS = ("p1", "p2")
TOKENS = Rule(name="tokens", per=("team",), tokens=60_000, every="day", budget=True)
MONEY = Rule(name="money", per=("provider",), usd=0.5, every="day")
SLOTS = Rule(name="slots", per=("key",), in_flight=6)
RATE = Rule(name="rate", per=("key",), output_tokens=5_000, every="minute", capacity=20_000)


class History:
    """One run: `settled` is what every hold that was ended has told for the record."""

    def __init__(self, seed: int, mode: str) -> None:
        self.chance = random.Random(seed)
        self.setting = Setting(FakeEngine(futures=True), local=True, nodes=2)
        self.limits = limits_of(TOKENS, MONEY, SLOTS, RATE, on_store_failure=mode)
        self.open: list[Hold] = []
        self.settled: dict[str, int] = {}
        self.origins: set[Origin] = set()
        self.refused = 0

    def amount(self) -> Use:
        """A use, sometimes of more than was thought."""
        draw = self.chance.randrange
        return use(draw(900), draw(draw(1, 3_000)), draw(20_000))

    async def reserve(self, number: int) -> None:
        full = self.amount()
        wanted = Estimate(full, full._replace(tokens=full.input_tokens, output_tokens=0, microusd=0))
        try:
            hold = await self.setting.limiter.reserve(self.limits, f"h{number}", wanted, providers=PROVIDERS)
        except GatewayError:
            self.refused += 1
            return
        self.open.append(hold)
        self.origins.add(hold.origin)

    async def end(self) -> None:
        if self.open:
            hold = self.open.pop(self.chance.randrange(len(self.open)))
            hold.settle(self.amount())
            hold.leave(1)
            for name, amount in hold.settled_amounts.items():
                self.settled[name] = self.settled.get(name, 0) + amount
            await asyncio.sleep(0)

    async def fail_over(self) -> None:
        if self.open:
            await self.chance.choice(self.open).extend(self.chance.choice(PROVIDERS), self.amount())

    async def renew(self) -> None:
        self.setting.engine.now_ms += self.chance.choice((1, 500, LEASE_MS // 3, LEASE_MS + 1))
        await self.setting.limiter.renew()

    async def trouble(self) -> None:
        engine = self.setting.engine
        engine.failure, engine.lost = self.chance.choice(
            ((None, None), (None, None), (away(), None), (None, away(Reason.LATE)), (None, away(Reason.LOST)))
        )

    async def run(self) -> None:
        for number in range(STEPS):
            step = self.chance.choices(
                (self.end, self.fail_over, self.renew, self.trouble, None), weights=(4, 1, 1, 1, 6)
            )[0]
            await (self.reserve(number) if step is None else step())
        self.setting.engine.failure = self.setting.engine.lost = None
        while self.open:
            await self.end()
        await asyncio.sleep(0)
        await self.setting.limiter.renew()


@pytest.mark.parametrize("mode", ["closed", "open", "share"])
def test_what_is_used_is_what_was_settled(mode: str) -> None:
    origins, refused = set[Origin](), 0
    for seed in range(40):
        history = History(seed, mode)
        asyncio.run(history.run())
        setting, model = history.setting, history.setting.engine.model
        assert (setting.limiter.open, setting.limiter.owed) == ({}, {})
        assert setting.local is not None
        for engine in (model, setting.local.model):
            assert {hold.state for hold in engine.holds.values()} <= {State.SETTLED}
        lines = history.limits.lines(setting.engine.now_ms, provider="p1").lines
        used = {"tokens": TOKENS.tokens, "money": 500_000}
        for line in lines[:1] + lines[-1:]:
            charged = sum(amount for name, amount in history.settled.items() if name.startswith(f"{line.bucket}|"))
            limit = used[line.rule]
            assert limit is not None
            assert setting.level(history.limits, line.rule, provider="p1") == limit - charged, (seed, line.rule)
        assert setting.level(history.limits, "slots", provider="p1") == SLOTS.in_flight
        assert setting.level(history.limits, "rate", provider="p1") <= 20_000_000
        origins |= history.origins
        refused += history.refused
    assert refused > 100
    assert (
        origins
        == {"closed": {Origin.STORE}, "open": {Origin.STORE, Origin.OPEN}, "share": {Origin.STORE, Origin.SHARE}}[mode]
    )
