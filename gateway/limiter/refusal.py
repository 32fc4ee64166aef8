"""A refusal in words: which limit, whom it is for, what is left, what was needed, and when to come back.

Numbers are told in the limit's own unit: requests, tokens, USD. The caller learns of its own limits only: what a limit
is for is told by the names of the caller's own key.

The wait of a budget is until its window is over: nobody knows what requests under way will give back, and when. So the
message says that they may.
"""

from typing import Final

from gateway.errors import LimitsUnavailable, ModelNotPriced, NeverFits, RateLimited
from gateway.limiter.lines import Line
from gateway.limiter.spec import Kind
from gateway.limiter.use import Resource

_MICRO: Final = 1_000_000
_MS_PER_S: Final = 1000
_S_PER_MINUTE: Final = 60
_S_PER_HOUR: Final = 3600


def limited(line: Line, cost: int, level: int, wait_ms: int, levels: tuple[int, ...]) -> RateLimited:
    """A limit that is used up for now."""
    used_up = f"the limit {line.rule} ({line.told}{line.whom}) is used up"
    if line.spec.kind is Kind.SLOTS:
        message = f"{used_up}: retry when one of your requests has ended"
    else:
        sooner = ", or sooner: requests under way may give some back" if line.spec.kind is Kind.WINDOW else ""
        needs = f"{amount(line, level)} left, this request needs {amount(line, cost)}"
        message = f"{used_up}: {needs}; retry in {span(wait_ms)}{sooner}"
    return RateLimited(message, rule=line.rule, retry_after_ms=wait_ms, levels=levels)


def too_large(line: Line, cost: int) -> NeverFits:
    """A prompt that is above a limit by itself."""
    return NeverFits(
        f"this request needs {amount(line, cost)}, and the limit {line.rule} ({line.told}{line.whom}) never allows "
        f"more than {amount(line, line.spec.limit)} at once: send less, waiting does not help",
        rule=line.rule,
    )


def unpriced(rule: str, model: str) -> ModelNotPriced:
    """A model without a price, where a limit counts money."""
    return ModelNotPriced(
        f"model {model!r} has no price, and the limit {rule} counts money: use another model", param="model"
    )


def unread(rule: str) -> ModelNotPriced:
    """A request of which nobody knows what it costs, where a limit counts money."""
    return ModelNotPriced(
        f"what a passthrough request costs is not known, and the limit {rule} counts money: "
        "use the path of an API that the gateway reads"
    )


def unavailable(line: Line, detail: str) -> LimitsUnavailable:
    """A limit that refuses while nobody knows what is left of it."""
    return LimitsUnavailable(
        f"the limit {line.rule} cannot be checked at the moment: retry shortly",
        rule=line.rule,
        retry_after_s=1,
        detail=detail,
    )


def amount(line: Line, level: int) -> str:
    """So much of a bucket, in the unit of its limit."""
    if line.resource is Resource.USD:
        return usd(level)
    return f"{level / line.unit:.13g}"


def usd(microusd: int) -> str:
    """Money, exact."""
    whole = f"{microusd / _MICRO:.6f}".rstrip("0")
    return f"{whole.rstrip('.')} USD"


def span(wait_ms: int) -> str:
    """A wait that people can read, rounded up."""
    if wait_ms < _S_PER_MINUTE * _MS_PER_S:
        return f"{wait_ms / _MS_PER_S:g} s"
    seconds = -(-wait_ms // _MS_PER_S)
    if seconds < _S_PER_HOUR:
        return f"{seconds // _S_PER_MINUTE} min {seconds % _S_PER_MINUTE} s"
    minutes = -(-seconds // _S_PER_MINUTE)
    return f"{minutes // _S_PER_MINUTE} h {minutes % _S_PER_MINUTE} min"
