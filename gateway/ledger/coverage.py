"""Which models of a config have no price, and whether anything counts money: what an operator should hear at load.

A target that takes the model's name from the caller (`*`) is left out: what will be asked for is not known, and such a
request is judged when it comes. Invariant: what is named here is what the data plane would find without a price, since
both ask the same `PriceList` in the same way.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import structs

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.config.schema import Config, Model
from gateway.ledger.prices import PriceList

_STAR: Final = "*"


def unpriced(config: Config, prices: PriceList) -> tuple[str, ...]:
    """The models with a target that has no price, each with those targets, in the order of the config."""
    found = ((name, _without(model, config, prices)) for name, model in config.models.items())
    return tuple(f"{name} ({', '.join(targets)})" for name, targets in found if targets)


def counts_money(config: Config, keys: Iterable[KeyRecord]) -> bool:
    """Whether any limit is in USD. The keys are looked through last, and only as far as the first that has one."""
    return (
        any(rule.usd is not None for rule in config.limits.rules)
        or any(map(_in_money, config.teams.values()))
        or any(_in_money(key.allowance) for key in keys)
    )


def _in_money(allowance: Allowance | None) -> bool:
    return allowance is not None and allowance.usd_per_month is not None


def _without(model: Model, config: Config, prices: PriceList) -> list[str]:
    override = None if model.price is None else structs.asdict(model.price)
    without = []
    for target in model.targets:
        provider = config.providers[target.provider]
        if _STAR not in target.model and not prices.resolve(
            provider.kind, target.model, override, base_url=provider.base_url
        ):
            without.append(f"{target.provider}/{target.model}")
    return without
