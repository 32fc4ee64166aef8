"""What must hold of limits: one resource a rule, a time where there is one, scopes that exist, and room.

Every function yields (path, message, shown value), as those of `localcheck.py` do. What these checks let pass, the
limiter can count exactly and in one atomic step.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from zoneinfo import ZoneInfo

from gateway.config import patterns, storeurl
from gateway.config.limits import (
    BUDGET_SPANS,
    LABEL,
    MAX_USD,
    SCOPES,
    SHORT_FORMS,
    Allowance,
    Limits,
    Rule,
)
from gateway.config.problems import Path, did_you_mean

Found = tuple[Path, str, str]

MIN_SECRET: Final = 16
MAX_AT_ONCE: Final = 16  # buckets that one request can be charged to; the engines hold a test to it
RESERVED_NAMES: Final = frozenset(f"{whose}.{form}" for whose in ("key", "team") for form in SHORT_FORMS)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z")
_TENANTS: Final = frozenset({"org", "team", "key"})
_MATCHED: Final = ("org", "team", "key", "user", "role", "model", "provider", "route", "data_class")


def check_rule(path: Path, rule: Rule) -> Iterator[Found]:
    """One rule by itself."""
    if not _NAME.match(rule.name):
        yield (*path, "name"), "is not a rule's name: letters, digits, `.`, `_` and `-`", rule.name
    if rule.name in RESERVED_NAMES:
        yield (*path, "name"), "is the name of a short form's rule: choose another", rule.name
    if len(rule.resources) != 1:
        said = f"names {' and '.join(rule.resources)}" if rule.resources else "limits nothing"
        yield path, f"{said}: give exactly one of requests, tokens, input_tokens, output_tokens, usd, in_flight", ""
    yield from _time(path, rule)
    yield from _scopes(path, rule)
    for name in _MATCHED:
        pattern = getattr(rule.match, name)
        fault = patterns.fault(pattern) if pattern else ""
        if fault:
            yield (*path, "match", name), fault, pattern


def check_limits(path: Path, limits: Limits) -> Iterator[Found]:
    """What `limits` says of all rules."""
    names: dict[str, int] = {}
    for index, rule in enumerate(limits.rules):
        if rule.name in names:
            yield (*path, "rules", index, "name"), f"is also the name of rule {names[rule.name]}: names are unique", ""
        names.setdefault(rule.name, index)
    if not _DOMAIN.match(limits.domain):
        yield (*path, "domain"), "is not a domain: letters, digits and `-`", limits.domain
    if limits.secret is not None and len(limits.secret.reveal()) < MIN_SECRET:
        yield (*path, "secret"), f"is shorter than {MIN_SECRET} characters: `gateway keys new` makes a good one", ""
    yield from _zone((*path, "time_zone"), limits.time_zone)
    yield from _store(path, limits)


def check_room(
    path: Path, limits: Limits, keys: Iterable[Sequence[str]], teams: Iterable[Allowance]
) -> Iterator[Found]:
    """No request may meet more limits than one atomic step takes from; `keys` has the short forms each key uses."""
    short = max((len(names) for names in keys), default=0) + max((len(team.limits) for team in teams), default=0)
    most = at_most(limits.rules) + short
    if most > MAX_AT_ONCE:
        message = (
            f"may put {most} limits on one request, short forms included, and at most {MAX_AT_ONCE} can be taken from "
            "in one step: join some, or give rules a `match` by which they exclude each other"
        )
        yield (*path, "rules"), message, ""


def at_most(rules: Sequence[Rule]) -> int:
    """How many rules could be for one request: all, less those that name different values of one and the same field."""
    return min((_at_most_by(name, rules) for name in _MATCHED), default=len(rules))


def _at_most_by(name: str, rules: Sequence[Rule]) -> int:
    exact = [getattr(rule.match, name) for rule in rules]
    exact = [value for value in exact if value and not value.endswith("*")]
    most = max((exact.count(value) for value in set(exact)), default=0)
    return len(rules) - len(exact) + most


def _time(path: Path, rule: Rule) -> Iterator[Found]:
    if rule.in_flight is not None:
        for name in ("every", "capacity", "budget"):
            if getattr(rule, name) is not None:
                yield (*path, name), "has no meaning for `in_flight`, which has no time: remove it", ""
        return
    if rule.every is None:
        yield (*path, "every"), "is missing: say second, minute, hour, day, week or month", ""
    yield from _budget(path, rule) if rule.is_budget else _rate(path, rule)


def _rate(path: Path, rule: Rule) -> Iterator[Found]:
    if rule.capacity is not None and rule.usd is None and rule.capacity < 1:
        yield (*path, "capacity"), "must be at least 1, or nothing ever fits", str(rule.capacity)
    if rule.capacity is not None and rule.usd is not None and rule.capacity > MAX_USD:
        yield (*path, "capacity"), f"must be at most {MAX_USD} USD", str(rule.capacity)
    if rule.time_zone:
        yield (*path, "time_zone"), "is of no use to a rate: set `budget: true`, or remove it", rule.time_zone


def _budget(path: Path, rule: Rule) -> Iterator[Found]:
    if rule.every in ("second", "minute"):
        yield (*path, "every"), f"must be {', '.join(BUDGET_SPANS)} for a budget, or set `budget: false`", rule.every
    if rule.capacity is not None:
        yield (*path, "capacity"), "is of no use to a budget, which does not refill: remove it", ""
    if rule.time_zone:
        yield from _zone((*path, "time_zone"), rule.time_zone)


def _scopes(path: Path, rule: Rule) -> Iterator[Found]:
    for index, scope in enumerate(rule.per):
        if scope not in SCOPES and not (scope.startswith(LABEL) and len(scope) > len(LABEL)):
            known = did_you_mean(scope, SCOPES) or f": use {', '.join(SCOPES)} or {LABEL}NAME"
            yield (*path, "per", index), f"is not a scope{known}", scope
        elif scope in rule.per[:index]:
            yield (*path, "per", index), "is given twice: remove one", scope
    if "end_user" in rule.per and not _TENANTS.intersection(rule.per):
        message = "has `end_user` without key, team or org: callers choose that name, so say whose end users they are"
        yield (*path, "per"), message, ""


def _zone(path: Path, name: str) -> Iterator[Found]:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        yield path, "is not a time zone of this machine: use a name such as UTC or Europe/Berlin", name


def _store(path: Path, limits: Limits) -> Iterator[Found]:
    tls = False
    if limits.store_url is not None:
        try:
            tls = storeurl.read(limits.store_url.reveal()).tls
        except ValueError as error:
            yield (*path, "store"), f"{error} (`embedded`, {storeurl.FORMS})", ""
    if limits.slices and limits.store_url is None:
        yield (*path, "slices"), "is of no use without a `store`: this node's own memory needs no call", ""
    for name in ("ca_file", "client_cert", "client_key"):
        if getattr(limits, name) and not tls:
            yield (*path, name), "is of no use unless `store` is rediss:// or sentinels://: remove it", ""
    if limits.client_key and not limits.client_cert:
        yield (*path, "client_key"), "needs `client_cert` beside it", ""
