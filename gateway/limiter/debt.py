"""How far below zero a limit can go: by the requests that may be in flight, each using more than was reserved for it.

A reservation is an estimate, so an answer may come to more, which is charged as debt. The sum of it is bounded where
the number of requests in flight is: by a limit on them that every request of the bucket meets, and that counts them
together. A limit of one key does not bound what all keys of an org do.

Whether it does is read off the names of the scopes: a bucket of a key is of one org, team, user and role, since a key
has one of each; not of one class of data, since routes may say another. Pure. Left out: how long an answer may be
(`explain.py` is told).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.config.limits import LABEL, RuleMatch
from gateway.limiter.lines import Line
from gateway.limiter.spec import Kind

_HAS_ONE: Final = {"key": {"org", "team", "user", "role"}, "team": {"org"}, "user": {"org"}}
_FIELDS: Final = (
    "org",
    "team",
    "key",
    "user",
    "role",
    "provider",
    "route",
    "data_class",
)  # of a match, that are scopes as well
_ANYTHING: Final = RuleMatch()

Matches = Mapping[str, RuleMatch]
"""Which requests a rule is for, by the names of those rules that say so."""


def in_flight(line: Line, lines: Iterable[Line], matches: Matches) -> int | None:
    """How many requests that take from this line's bucket may be in flight at once, None where nothing bounds them."""
    bounds = (other.spec.limit for other in lines if _bounds(other, line, matches))
    return min(bounds, default=None)


def _bounds(slots: Line, line: Line, matches: Matches) -> bool:
    """Whether all requests of the line's bucket are counted together by this limit on requests in flight."""
    if slots.spec.kind is not Kind.SLOTS or slots.spec.shadow:
        return False
    own = _scopes(line)
    wanted, given = matches.get(slots.rule, _ANYTHING), matches.get(line.rule, _ANYTHING)
    fields = [name for name in _FIELDS if getattr(wanted, name)]
    return (
        all(_is_one(scope, own) for scope in _scopes(slots))
        and all(_is_one(name, own) or getattr(wanted, name) == getattr(given, name) for name in fields)
        and wanted.model in ("", given.model)  # the name asked for; as a scope it is the entry
        and all(_is_one(LABEL + name, own) or given.label.get(name) == said for name, said in wanted.label.items())
    )


def _is_one(scope: str, own: set[str]) -> bool:
    """Whether all requests that are alike in these scopes are alike in that one, too."""
    implied = any(scope in _HAS_ONE.get(name, ()) for name in own)
    return scope in own or implied or (scope.startswith(LABEL) and "key" in own)


def _scopes(line: Line) -> set[str]:
    """As the bucket's name has them."""
    return {part.partition("=")[0] for part in line.bucket.split("|")[1:]}
