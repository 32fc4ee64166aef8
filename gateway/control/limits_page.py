"""How the limits of a request stand, as a document that programs and people read.

Amounts are in the unit that each row names: requests and tokens (exact to a thousandth, which is how rates are kept)
or whole micro-USD. What is not known is null. Rows are in the order in which they bind.

Nothing in it could be used instead of read: no secret, no digest of one, no address of a store.
"""

from collections.abc import Sequence
from typing import Any, Final

from gateway.control import views
from gateway.control.limits_case import Aim, Case
from gateway.errors import GatewayError, NeverFits, RateLimited
from gateway.ledger.prices import PICOUSD_PER_USD_MTOK, Price, Rates
from gateway.limiter.explain import Explained, binding, binding_first, refusal
from gateway.limiter.lines import Line
from gateway.limiter.outstanding import Outstanding
from gateway.limiter.spec import Kind
from gateway.limiter.use import Resource

_UNITS: Final = {
    Resource.REQUESTS: "requests",
    Resource.TOKENS: "tokens",
    Resource.INPUT_TOKENS: "tokens",
    Resource.OUTPUT_TOKENS: "tokens",
    Resource.USD: "microusd",
    Resource.IN_FLIGHT: "requests",
}
Stands = tuple[Explained, Outstanding | None]
"""A bucket, and what of it is outstanding where that is known."""


def document(case: Case, stands: Sequence[Stands], *, revoked: bool, stored: bool, now_ms: int) -> dict[str, Any]:
    """The whole answer. `stored`: a store counts, and not the memory of this node."""
    rows = [row for row, _ in stands]
    refused = case.refused
    if refused is None and (row := binding(rows, case.providers)) is not None:
        refused = refusal(row)
    known = {id(row): outstanding for row, outstanding in stands}
    return {
        "key": views.key(case.key, revoked=revoked),
        "request": _request(case),
        "model": case.entry,
        "route": case.route,
        "data_class": case.data_class,
        "targets": [_target(aim) for aim in case.targets],
        "admitted": refused is None,
        "refused": None if refused is None else _refused(refused),
        "counted": "store" if stored else "here",
        "limits": [_limit(row, known[id(row)]) for row in binding_first(rows)],
        "at_ms": now_ms,
    }


def modes(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """What each limit does while nobody knows what is left of it."""
    return [{"rule": line.rule, "limit": line.told + line.whom, "on_store_failure": _mode(line)} for line in lines]


def modes_in_words(lines: Sequence[Line]) -> str:
    """The same as a sentence."""
    return "; ".join(f"{line.rule} {_MODES[_mode(line)]}" for line in lines)


_MODES: Final = {
    "closed": "refuses (closed)",
    "open": "admits uncounted (open)",
    "share": "counts this node's part here (share)",
    "shadow": "never refuses (shadow)",
}


def _mode(line: Line) -> str:
    return "shadow" if line.spec.shadow else line.on_failure


def _request(case: Case) -> dict[str, Any]:
    question, (full, prompt) = case.question, case.need.estimate
    return {
        "path": question.path,
        "model": question.model,
        "end_user": question.end_user,
        "provider": question.provider,
        "input_tokens": prompt.input_tokens,
        "output_tokens": full.output_tokens,
        "cost_microusd": full.microusd,
    }


def _target(aim: Aim) -> dict[str, Any]:
    return {
        "target": f"{aim.provider}/{aim.model}",
        "provider": aim.provider,
        "weight": aim.weight,
        "fallback": aim.fallback,
        "price": None if aim.price is None else _price(aim.price),
    }


def _price(price: Price) -> dict[str, Any]:
    return {
        "source": price.source,
        "usd_per_mtok": _usd(price.rates),
        "above": [{"input_tokens": band.above, "usd_per_mtok": _usd(band.rates)} for band in price.bands],
        "context_tokens": price.context_tokens or None,
    }


def _usd(rates: Rates) -> dict[str, float]:
    return {name: getattr(rates, name) / PICOUSD_PER_USD_MTOK for name in Rates.__struct_fields__}


def _refused(error: GatewayError) -> dict[str, Any]:
    return {
        "code": error.code,
        "status": error.status,
        "message": error.message,
        "rule": error.rule if isinstance(error, RateLimited | NeverFits) else None,
        "retry_after_ms": error.retry_after_ms if isinstance(error, RateLimited) else None,
    }


def _limit(row: Explained, outstanding: Outstanding | None) -> dict[str, Any]:
    line, spec = row.line, row.line.spec
    of_rate, of_budget = spec.kind is Kind.RATE, spec.kind is Kind.WINDOW
    return {
        "rule": line.rule,
        "limit": line.told + line.whom,
        "said": row.said,
        "provider": row.provider or None,
        "bucket": line.bucket,
        "resource": line.resource.name.lower(),
        "kind": row.kind,
        "unit": _UNITS[line.resource],
        "capacity": _amount(line, row.capacity),
        "level": _amount(line, row.level),
        "debt": _amount(line, row.debt),
        "asked": _amount(line, row.asked),
        "refuses": row.refuses,
        "wait_ms": row.wait_ms,
        "refill": _amount(line, spec.amount) if of_rate else None,
        "refill_ms": spec.period_ms if of_rate else None,
        "window_start_ms": spec.start_ms if of_budget else None,
        "window_end_ms": spec.end_ms if of_budget else None,
        "reserved": None if outstanding is None else _amount(line, outstanding.reserved),
        "estimated": None if outstanding is None else _amount(line, outstanding.estimated),
        "max_debt": None if row.debt_bound is None else _amount(line, row.debt_bound),
        "shadow": spec.shadow,
        "on_store_failure": line.on_failure,
    }


def _amount(line: Line, units: int) -> float:
    """In the resource's unit: whole where it is."""
    if line.resource is Resource.USD or units % line.unit == 0:
        return units // line.unit
    return units / line.unit
