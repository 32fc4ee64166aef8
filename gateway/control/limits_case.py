"""What becomes of a request that somebody asks about: the way it would take here, without being sent.

A `Case` is what the data plane works out before it reserves: model entry, route, targets with their prices, the limits
that apply, what would be reserved, and why it is refused at once if it is. It is found by the parts that decide there
(`routing/`, `limiter/rules.py`, `spending.py`), so both come to the same.

Invariants: one `Cases` is of one config; nothing here waits, and nothing is charged. Left out: how the limits stand
(`limiter/explain.py`), and anything that only a body can say.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from gateway import spending
from gateway.config.keys import KeyRecord
from gateway.config.problems import did_you_mean
from gateway.config.schema import Config, Model
from gateway.control.limits_question import BadQuestion, Question, surface_of
from gateway.dialects.asked import Asked
from gateway.dialects.base import BodyMode, Surface
from gateway.dialects.media import Media
from gateway.errors import GatewayError, InvalidRequest, KeyDisabled, KeyExpired, ModelNotAllowed
from gateway.identity.identify import Principal, principal_of
from gateway.ledger import cost
from gateway.ledger.prices import Price, PriceList
from gateway.limiter import refusal
from gateway.limiter.estimate import Estimator, Weights
from gateway.limiter.explain import Need
from gateway.limiter.learned import Learned
from gateway.limiter.rules import Limits, Rules
from gateway.limiter.use import UNREAD, Estimate, Use, use
from gateway.providers.registry import vendor
from gateway.routing.match import Router
from gateway.routing.models import Candidate, Found, catalogue
from gateway.spending import Tariff, tariff_of
from gateway.subjects import subject_of

_EVERY_MODEL: Final = "*"
_LISTED: Final = 10  # names in a message


class NotThere(Exception):
    """The question names something that this node does not know; `code` says what."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Aim(msgspec.Struct, frozen=True):
    """A target as it would be tried: the provider's own name of the model, and what it charges for it.

    `context_tokens`: the model's window as the config has it.
    """

    provider: str
    model: str
    weight: int
    fallback: bool
    price: Price | None
    context_tokens: int | None = None


class Case(NamedTuple):
    """One request. `entry` is "" on a passthrough path; `limits` None: nothing limits it.

    `refused` is what its caller is told whatever is left of the limits.
    """

    question: Question
    key: KeyRecord
    entry: str
    route: str
    data_class: str
    targets: Sequence[Aim]
    limits: Limits | None
    need: Need
    refused: GatewayError | None

    @property
    def providers(self) -> tuple[str, ...]:
        """Those that may be tried, each once."""
        return tuple(dict.fromkeys(aim.provider for aim in self.targets))


class _Way(NamedTuple):
    """A target of the config: of which entry it is, and the star that is known already."""

    provider: str
    model: str
    weight: int
    entry: str
    star: str


class Cases:
    """The cases of one config; `name_key` is the workers' (`limiter/namekey.py`)."""

    def __init__(self, config: Config, prices: PriceList, learned: Learned, name_key: bytes) -> None:
        self._config = config
        self._prices = prices
        self._learned = learned
        self._router = Router(config)
        self._rules = Rules(config.limits, config.teams, name_key=name_key)
        self._matches = {rule.name: rule.match for rule in config.limits.rules}
        self._named = {id(model): name for name, model in config.models.items()}
        self._catalogue = catalogue(config, self._ways)

    def of(self, question: Question, key: KeyRecord, *, revoked: bool, now_ms: int) -> Case:
        """The case of a request of this key. Raises BadQuestion or NotThere."""
        surface, params = surface_of(question.path)
        barred = _barred(key, now_ms, revoked=revoked)
        if surface.body is BodyMode.RAW:
            return self._passthrough(question, key, params["provider"], barred)
        model = question.model
        found = self._catalogue.find(model)
        if found is None:
            near = did_you_mean(model, self._config.models)
            raise NotThere("model_not_found", f"no entry of `models` answers to {model!r}{near}")
        return self._case(question, key, surface, found, barred)

    def _case(
        self,
        question: Question,
        key: KeyRecord,
        surface: Surface,
        found: Found[_Way],
        barred: GatewayError | None,
    ) -> Case:
        entry, model = found.entry, question.model
        ways = entry.order(surface.dialect, lambda: 0.0)  # as they stand in the config
        aims = _at(question, [self._aim(way, found.star, entry.pattern) for way in ways])
        principal = principal_of(key)
        subject = subject_of(principal, self._router.match(question.path, model, key.labels), model, entry.pattern)
        limits = self._rules.limits(subject)
        prices = {f"{aim.provider}/{aim.model}": aim.price for aim in aims}
        money = limits.money if limits is not None else ""
        contexts = {f"{aim.provider}/{aim.model}": aim.context_tokens for aim in aims}
        prior = entry.config.output_prior
        tariff = tariff_of(key.org, entry.pattern, prior, prices, measured=True, money=bool(money), contexts=contexts)
        refused = barred or _not_allowed(principal, model)
        if refused is None and not aims:
            speaks = ", ".join(sorted(entry.dialects))
            refused = InvalidRequest(f"model {model!r} is not served on {question.path}: its API is {speaks}")
        if refused is None and money and self._config.limits.unpriced == "refuse" and None in prices.values():
            refused = refusal.unpriced(money, model)
        estimate = self._estimate(tariff, question, surface)
        need = Need(estimate, _at_most(question, tariff, estimate), self._matches)
        return Case(question, key, entry.pattern, subject.route, subject.data_class, aims, limits, need, refused)

    def _passthrough(self, question: Question, key: KeyRecord, provider: str, barred: GatewayError | None) -> Case:
        """A request of which only the path is known."""
        if question.provider not in ("", provider):
            raise BadQuestion(f"provider: the path is of {provider!r}")
        if provider not in self._config.providers:
            near = did_you_mean(provider, self._config.providers)
            raise NotThere("provider_not_found", f"no provider {provider!r} is configured{near}")
        subject = subject_of(principal_of(key), self._router.match(question.path, "", key.labels))
        limits = self._rules.limits(subject)
        refused = barred
        if refused is None and _EVERY_MODEL not in key.models:
            refused = ModelNotAllowed("the key is limited to certain models, which a passthrough request cannot show")
        if refused is None and limits is not None and limits.money and self._config.limits.unpriced == "refuse":
            refused = refusal.unread(limits.money)
        aims = (Aim(provider, "*", 1, fallback=False, price=None),)
        need = Need(UNREAD, UNREAD.full, self._matches)
        return Case(question, key, "", subject.route, subject.data_class, aims, limits, need, refused)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _ways(self, model: Model, star: str) -> Sequence[Candidate[_Way]]:
        return [
            Candidate(
                _Way(target.provider, target.model, target.weight, self._named[id(model)], star),
                target.weight,
                vendor(self._config.providers[target.provider].kind).dialect,
            )
            for target in model.targets
        ]

    def _aim(self, way: _Way, star: str, entry: str) -> Aim:
        provider = self._config.providers[way.provider]
        model = way.model.replace("*", way.star or star)
        said = self._config.models[way.entry]
        override, context_tokens = (
            None if said.price is None else msgspec.structs.asdict(said.price),
            said.context_tokens,
        )
        price = self._prices.resolve(
            provider.kind, model, override, base_url=provider.base_url, context_tokens=context_tokens
        )
        return Aim(way.provider, model, way.weight, way.entry != entry, price, context_tokens)

    def _estimate(self, tariff: Tariff, question: Question, surface: Surface) -> Estimate:
        """What the gateway would reserve for a prompt of so many tokens."""
        output = question.output_tokens
        if output is None and question.tokens is not None:
            output = 0
        asked = Asked(tokens=question.tokens or 0, max_output=output)
        estimator = Estimator(self._learned, {tariff.entry: Weights(_no_media)})
        return spending.estimate(tariff, estimator, asked, surface.name, b"")


def _barred(key: KeyRecord, now_ms: int, *, revoked: bool) -> GatewayError | None:
    """Why the key may not be used at all."""
    if revoked:
        return KeyDisabled(f"key {key.id!r} was revoked")
    if key.disabled:
        return KeyDisabled(f"key {key.id!r} is disabled")
    if key.expires_ms and now_ms >= key.expires_ms:
        return KeyExpired(f"key {key.id!r} has expired")
    return None


def _not_allowed(who: Principal, model: str) -> GatewayError | None:
    if who.allows(model):
        return None
    return ModelNotAllowed(f"key {who.key_id!r} may not use model {model!r}: its `models` are {_listed(who.models)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _at(question: Question, aims: list[Aim]) -> list[Aim]:
    """The targets at the provider that was asked about; all, where none was."""
    if not question.provider or not aims:
        return aims
    kept = [aim for aim in aims if aim.provider == question.provider]
    if not kept:
        there = ", ".join(dict.fromkeys(aim.provider for aim in aims))
        raise NotThere(
            "provider_not_found", f"model {question.model!r} has no target at {question.provider!r}; it has {there}"
        )
    return kept


def _at_most(question: Question, tariff: Tariff, estimate: Estimate) -> Use | None:
    """What such a request can use when its answer is as long as it may be."""
    prompt, longest = estimate.prompt.input_tokens, question.output_tokens
    if tariff.context:
        longest = max(tariff.context - prompt, 0) if longest is None else min(longest, tariff.context)
    if longest is None:
        return None
    prices = [price for price in tariff.prices.values() if price is not None]
    return use(prompt, longest, max((cost.at_most(price, prompt, longest) for price in prices), default=0))


def _no_media(_medium: Media) -> int:
    return 0
