"""Rules: from the config's limits to the buckets of one request.

A Rule is a limit of the config, compiled: its spec, its scopes, whom it is for. `Rules.limits` finds, once for all
requests that are alike (one key, model and route), the rules that are for them: `Limits`, or None for a request that
nothing limits. What varies even so - the end user, the provider of an attempt, the calendar - is filled in by
`Limits.lines`, which remembers what it made. The short forms of keys and teams are rules like others.

A bucket is named `rule|scope=value|…`. Values are escaped, teams and users belong to their org, and the names of people
(users, end users) are digests under a key (`namekey.py`): names of buckets reach the journal and a store.

A rule counts apart for each value of its scopes. What a key does not have (an org, a team, a user, a role, a label, a
class of data where its route has none either) puts it outside of the rule; what a caller does not say (an end user, a
model on a passthrough path) is a value like another, or leaving it out would be a way past the limit.

Invariants: one bucket has one Spec object in a process at a time, which the engines' short way rests on; buckets of an
attempt's provider come last. Left out: what is taken (`settling.py`, `limiter.py`); pure, so time is an argument.
"""

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from gateway.config import patterns
from gateway.config.limits import LABEL, Allowance, RuleMatch
from gateway.config.limits import Limits as Config
from gateway.config.limits import Rule as RuleConfig
from gateway.limiter.lines import Line, Lines
from gateway.limiter.refusal import usd
from gateway.limiter.spec import MILLI, Spec, rate, slots, window
from gateway.limiter.use import Resource
from gateway.limiter.window import Span, bounds

PERIODS_MS: Final = {
    "second": 1_000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 7 * 86_400_000,
    "month": 30 * 86_400_000,  # of a rate; a budget's month is the calendar's
}
MICRO: Final = 1_000_000
_MAX_REMEMBERED: Final = 8192  # lines of end users and providers, of all kinds of requests together: 16 MB
_DIGEST_BYTES: Final = 10
_MAX_NAME: Final = 128  # of an end user, to be remembered as it is
_RESOURCES: Final = {
    "requests": Resource.REQUESTS,
    "tokens": Resource.TOKENS,
    "input_tokens": Resource.INPUT_TOKENS,
    "output_tokens": Resource.OUTPUT_TOKENS,
    "usd": Resource.USD,
    "in_flight": Resource.IN_FLIGHT,
}
_SHORT_FORMS: Final[dict[str, Callable[[str, str, float], RuleConfig]]] = {
    "rpm": lambda name, whose, value: RuleConfig(name=name, per=(whose,), requests=int(value), every="minute"),
    "tpm": lambda name, whose, value: RuleConfig(name=name, per=(whose,), tokens=int(value), every="minute"),
    "max_in_flight": lambda name, whose, value: RuleConfig(name=name, per=(whose,), in_flight=int(value)),
    "usd_per_month": lambda name, whose, value: RuleConfig(name=name, per=(whose,), usd=value, every="month"),
}


class Subject(msgspec.Struct, frozen=True, gc=False):
    """Requests that are alike. `model` is the name asked for, `entry` the config's that answers to it."""

    key: str
    org: str = ""
    team: str = ""
    user: str = ""
    role: str = ""
    labels: Mapping[str, str] = {}
    model: str = ""
    entry: str = ""
    route: str = ""
    data_class: str = ""
    allowance: Allowance | None = None  # the key's own short forms


class Rule:
    """One rule, compiled."""

    def __init__(self, said: RuleConfig, config: Config) -> None:
        (name,) = said.resources
        self.name = said.name
        self.resource = _RESOURCES[name]
        self.per = said.per
        self.match: RuleMatch = said.match
        self.shadow = said.shadow
        self.budget = said.in_flight is None and said.is_budget
        self.on_failure = said.on_store_failure or config.on_store_failure
        self.of_end_user = "end_user" in said.per
        self.of_provider = "provider" in said.per or bool(said.match.provider)
        self.every = said.every or ""
        self.amount = float(getattr(said, name))
        self.unit = 1 if self.budget or self.resource in (Resource.USD, Resource.IN_FLIGHT) else MILLI
        self._zone = ZoneInfo(said.time_zone or config.time_zone)
        self._limit = round(self.amount * (MICRO if self.resource is Resource.USD else self.unit))
        self._spec = slots(self._limit, shadow=said.shadow) if said.in_flight is not None else self._first(said)

    def _first(self, said: RuleConfig) -> Spec:
        if self.budget:
            return window(self._limit, 1, 2, shadow=self.shadow)  # over since long
        unit = MICRO if self.resource is Resource.USD else self.unit
        capacity = self._limit if said.capacity is None else round(said.capacity * unit)
        return rate(capacity, self._limit, PERIODS_MS[self.every], shadow=self.shadow)

    def spec(self, wall_ms: int) -> Spec:
        """The spec at this moment: the same object until a budget's window is over."""
        if self.budget and wall_ms >= self._spec.end_ms:
            self._spec = window(self._limit, *bounds(Span(self.every), self._zone, wall_ms), shadow=self.shadow)
        return self._spec

    def is_for(self, subject: Subject) -> bool:
        """Whether it limits these requests; on a provider it may still depend."""
        match, labels = self.match, subject.labels
        return (
            all(_fits(getattr(match, name), getattr(subject, name)) for name in _MATCHED)
            and all(labels.get(name) == value for name, value in match.label.items())
            and all(_has(subject, scope) for scope in self.per)
        )

    def is_at(self, provider: str) -> bool:
        """Whether it limits attempts at this provider."""
        return _fits(self.match.provider, provider)

    @property
    def told(self) -> str:
        """The limit in words: `100000 tokens a minute`."""
        if self.resource is Resource.IN_FLIGHT:
            return f"{self.amount:.0f} requests in flight"
        what = self.resource.name.lower().replace("_", " ")
        amount = usd(self._limit) if self.resource is Resource.USD else f"{self.amount:.0f} {what}"
        return f"{amount} {'an' if self.every == 'hour' else 'a'} {self.every}"


class Limits:
    """The rules for requests that are alike. Make it with `Rules.limits`."""

    __slots__ = ("_names", "_of_end_user", "_of_provider", "_own", "_remembered", "plain", "seen", "varies")

    def __init__(
        self, rules: list[Rule], subject: Subject, name_key: bytes, remembered: "dict[_Kind, Lines] | None" = None
    ) -> None:
        self._names = _Names(subject, name_key)
        self._own = [rule for rule in rules if not rule.of_provider]
        self._of_provider = [rule for rule in rules if rule.of_provider]
        self.varies = bool(self._of_provider)  # the limits of an attempt depend on its provider
        self._of_end_user = any(rule.of_end_user for rule in rules)
        self._remembered = {} if remembered is None else remembered  # shared, so that it is bounded for a worker
        self.seen: tuple[int, ...] = ()  # the levels that the engine has told last, whoever asked
        self.plain: Lines | None = None  # where neither end user nor provider matters, what `lines` said last

    @property
    def money(self) -> str:
        """The name of a limit that counts money and refuses, "" where there is none."""
        rules = (*self._own, *self._of_provider)
        return next((rule.name for rule in rules if rule.resource is Resource.USD and not rule.shadow), "")

    @property
    def by_size(self) -> bool:
        """Whether what a request takes depends on its body, and not only on how many there are."""
        rules = (*self._own, *self._of_provider)
        return any(rule.resource not in _ONE_EACH for rule in rules)

    def lines(self, wall_ms: int, end_user: str = "", provider: str = "") -> Lines:
        """The buckets of a request whose next attempt is at `provider`, in their windows at `wall_ms`."""
        if not self._of_end_user and not self._of_provider:
            if self.plain is None or wall_ms >= self.plain.until_ms:
                self.plain = self._made(wall_ms, "", "")
            return self.plain
        key = (self, _short(end_user) if self._of_end_user else "", provider if self._of_provider else "")
        lines = self._remembered.get(key)
        if lines is None or wall_ms >= lines.until_ms:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            lines = self._remembered[key] = self._made(wall_ms, end_user, provider)
        return lines

    def _made(self, wall_ms: int, end_user: str, provider: str) -> Lines:
        at = [rule for rule in self._of_provider if rule.is_at(provider)]
        made = [
            Line(
                self._names.bucket(rule, end_user, provider),
                rule.spec(wall_ms),
                rule.resource,
                rule.unit,
                rule.name,
                rule.told,
                self._names.whom(rule, provider),
                rule.on_failure,
            )
            for rule in (*self._own, *at)
        ]
        return Lines(made, len(self._own))


_Kind = tuple[Limits, str | bytes, str]
"""Requests that are alike, of one end user, at one provider."""


class Rules:
    """All rules of a config. `name_key`: what the names of people are digested with, the same in all processes."""

    def __init__(self, config: Config, teams: Mapping[str, Allowance] | None = None, *, name_key: bytes) -> None:
        self._config = config
        self._rules = [Rule(rule, config) for rule in config.rules]
        self._teams = teams or {}
        self._short: dict[tuple[str, float], Rule] = {}
        self._name_key = name_key
        self._remembered: dict[_Kind, Lines] = {}

    def limits(self, subject: Subject) -> Limits | None:
        """What limits these requests; None: nothing does."""
        found = [rule for rule in self._rules if rule.is_for(subject)]
        if subject.allowance is not None:
            found += self._shorts("key", subject.allowance)
        if subject.team in self._teams:
            found += self._shorts("team", self._teams[subject.team])
        return Limits(found, subject, self._name_key, self._remembered) if found else None

    def _shorts(self, whose: str, allowance: Allowance) -> Iterator[Rule]:
        """The rules of a short form; keys with the same limit share one."""
        for name in allowance.limits:
            known = (f"{whose}.{name}", getattr(allowance, name))
            if known not in self._short:
                self._short[known] = Rule(_SHORT_FORMS[name](known[0], whose, known[1]), self._config)
            yield self._short[known]


class _Names:
    """What the buckets of one subject are called, and whom their limits are for."""

    __slots__ = ("_key", "_subject")

    def __init__(self, subject: Subject, key: bytes) -> None:
        self._subject = subject
        self._key = key

    def bucket(self, rule: Rule, end_user: str, provider: str) -> str:
        """The name of the bucket of a rule."""
        values = [f"{_escaped(scope)}={self._value(scope, end_user, provider)}" for scope in rule.per]
        return "|".join([rule.name, *values])

    def whom(self, rule: Rule, provider: str) -> str:
        """Whom it is for, in words for the caller: ` for team search and model gpt-4o`."""
        told = [f"{_in_words(scope)} {self._shown(scope, provider)}".strip() for scope in rule.per]
        return f" for {' and '.join(told)}" if told else ""

    def _value(self, scope: str, end_user: str, provider: str) -> str:
        subject = self._subject
        if scope == "end_user":
            return self._digest(end_user) if end_user else ""
        if scope == "user":
            return self._digest(f"{subject.org}\0{subject.user}")
        if scope == "team":
            return _team(subject)
        return _escaped(provider if scope == "provider" else _said(subject, scope))

    def _shown(self, scope: str, provider: str) -> str:
        if scope in ("end_user", "user"):
            return ""
        return provider if scope == "provider" else _said(self._subject, scope)

    def _digest(self, text: str) -> str:
        digest = blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES, key=self._key)
        return digest.hexdigest()


_ONE_EACH: Final = (Resource.REQUESTS, Resource.IN_FLIGHT)
_MATCHED: Final = ("org", "team", "key", "user", "role", "model", "route", "data_class")
_ALWAYS: Final = frozenset({"key", "model", "route", "end_user", "provider"})


def _short(end_user: str) -> str | bytes:
    """A caller's name for somebody, or a digest of it: what is remembered must not be as long as a body."""
    if len(end_user) <= _MAX_NAME:
        return end_user
    return blake2b(end_user.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _has(subject: Subject, scope: str) -> bool:
    return scope in _ALWAYS or bool(_said(subject, scope))


def _said(subject: Subject, scope: str) -> str:
    if scope.startswith(LABEL):
        return subject.labels.get(scope.removeprefix(LABEL), "")
    return str(getattr(subject, "entry" if scope == "model" else scope))


def _team(subject: Subject) -> str:
    """A team of an org, or of none: what stands behind the first `/` is the team's own name."""
    if subject.org:
        return f"{_escaped(subject.org).replace('/', '%2F')}/{_escaped(subject.team)}"
    return _escaped(subject.team).replace("/", "%2F")


def _in_words(scope: str) -> str:
    return scope.removeprefix(LABEL) if scope.startswith(LABEL) else scope.replace("_", " ")


def _fits(pattern: str, text: str) -> bool:
    return not pattern or patterns.matches(pattern, text)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("|", "%7C")
