"""THE STORY: one request, from credential to record.

`identify` runs when the head is complete, before any of its body is kept; `run` when the body is ready. Stages are
plain calls on values; reading a large body, the journal and the relay are awaited. Every ending, good or bad, leaves an
outcome in the exchange, and `finish` folds it into the one record that the journal keeps and logs and metrics read.

What a limited request is expected to use is taken from its limits before it is recorded and sent, and settled when it
is over, whichever way; a key that nothing limits pays one comparison for this.

Left out: inspection and policy. A stage that is not built is not in the pipeline.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from gateway import spending
from gateway.config.schema import Config
from gateway.dialects.asked import Asked
from gateway.dialects.base import BodyMode, Reply, RequestFacts, Surface
from gateway.errors import (
    BodyTooLarge,
    GatewayError,
    InternalError,
    InvalidRequest,
    LimitsUnavailable,
    ModelNotAllowed,
    ModelNotFound,
    NeverFits,
    NotFound,
    RateLimited,
    RefusedBody,
    UnsupportedEncoding,
    UnsupportedStoredObject,
)
from gateway.exchange import Exchange, Intake
from gateway.identity.identify import Identity, Principal
from gateway.journal.scribe import ALLOW, Scribe, decided, form, with_hold
from gateway.limiter import refusal
from gateway.limiter.estimate import Estimator
from gateway.limiter.limiter import Limiter
from gateway.limiter.reservation import Hold
from gateway.limiter.rules import Limits, Rules
from gateway.limiter.settling import charge
from gateway.limiter.use import UNREAD, use
from gateway.record import Ending, Kind, Outcome, Record
from gateway.relay.decode import DecodeError, TooMuch, decode_request
from gateway.relay.outgoing import Outgoing, Target
from gateway.relay.stream import Transfer
from gateway.routing.match import Route, Router, Terms
from gateway.routing.models import Catalogue, Entry
from gateway.spending import Tariff
from gateway.subjects import subject_of
from gateway.telemetry.trace import RANDOM_BYTES, continue_trace, fresh_trace
from gateway.units import NS_PER_MS, NS_PER_US
from gateway.wheel import Wheel

_EVERY_MODEL: Final = "*"
_LOCAL: Final = Reply.LOCAL  # a member looked up in its enum takes 50 ns, a global 2
_RAW: Final = BodyMode.RAW
_MAX_PLANS: Final = 4096
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_ANSWERED: Final = Outcome(Ending.COMPLETE, 200)
_ERROR: Final = 400
_LEFT: Final = Outcome(Ending.ABANDONED, 0)
_ENDED_EARLY: Final = (Ending.ABANDONED, Ending.TRUNCATED)  # no set: an enum's hash is made in Python


class BodyGuard(Protocol):
    """Marks the body being read, in memory that outlives this process, and knows those that killed workers."""

    def enter(self, body: bytes) -> bool:
        """About to read this body without yielding to the loop; False when it is to be refused."""

    def leave(self) -> None:
        """It has been read."""


class RandomBytes:
    """Random bytes from the system, fetched a few KiB at a time: a system call per request is a third of a µs."""

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """`size` bytes that nobody else was given."""
        start = self._at
        if start + size > len(self._pool):
            self._pool, start = os.urandom(4096), 0
        self._at = start + size
        return self._pool[start : start + size]


class Plan(NamedTuple):
    """What is the same for all requests of one (model, surface, key)."""

    entry: Entry[Target]
    star: str
    route: Route
    terms: Terms
    form: bytes  # of decisions
    tariff: Tariff
    limits: Limits | None  # None: nothing limits them
    data_class: str


@dataclass(slots=True, kw_only=True)
class Gateway:
    """The stages of one snapshot, wired by `assemble.py`; exchanges hold on to the one they began with."""

    config: Config
    identity: Identity
    router: Router
    catalogue: Catalogue[Target]
    passthrough: Mapping[str, Target]
    guard: BodyGuard
    wheel: Wheel
    scribe: Scribe | None  # None: no journal is kept
    rules: Rules
    limiter: Limiter
    estimator: Estimator
    record: Callable[[Record, str, str], None]  # record, route, model entry
    tick: Callable[[int, int], None]  # each second: open streams, connections
    poll: Callable[[], None]  # five times a second: take in revoked keys
    retire: Callable[["Gateway"], None]  # another snapshot has replaced this one
    close: Callable[[], Coroutine[Any, Any, None]]
    generation: int
    loaded_s: int
    random_bytes: RandomBytes
    plans: dict[tuple[str, str, str], Plan] = field(default_factory=dict)
    raw_limits: dict[tuple[str, str], Limits | None] = field(default_factory=dict)  # of passthrough, by key and route


Prepared = tuple[Outgoing, Sequence[Target], Terms, bytes, Limits | None]
"""What the relay needs: the request, where it may go, and for how long; how the decision is written; and what limits
the request."""


def identify(ex: Exchange, gateway: Gateway) -> None:
    """Who is calling. Raises the identity errors (401, 403)."""
    ex.principal = gateway.identity.authenticate(ex.head.key_digest, time.time_ns() // NS_PER_MS)


async def run(ex: Exchange, gateway: Gateway) -> None:
    """Serve one identified request; every error it can have has been said to the caller when this returns."""
    try:
        surface = ex.head.surface
        if surface is None:
            raise InternalError("a request without a surface")
        if surface.reply is _LOCAL:
            _answer_models(ex, gateway)
            return
        if surface.body is _RAW:
            out, targets, terms, decision, limits = _passthrough(ex, gateway, surface)
        else:
            small = not ex.intake.encoding and len(ex.intake.body) <= gateway.config.inline_bytes
            facts = _read(ex, gateway, surface) if small else await _read_aside(ex, gateway, surface)
            out, targets, terms, decision, limits = _prepare(ex, gateway, surface, facts)
        if limits is not None:
            targets = await _reserve(ex, gateway, surface, limits, targets)
        if gateway.scribe is not None:
            await _decide(ex, gateway, gateway.scribe, terms, decision)
        ex.decision = ALLOW
        ex.transfer = Transfer(out, ex.reply, terms, gateway.wheel, ex.answer)
        ex.outcome = await ex.transfer.run(targets, partial(_admit, ex) if len(targets) > 1 else None)
    except asyncio.CancelledError:  # the caller left before anything was sent: a transfer says so by itself
        ex.outcome = _LEFT
        raise
    except GatewayError as error:
        ex.reply.fail(error, ex.transfer.attempts if ex.transfer is not None else (), 0)


def finish(ex: Exchange, gateway: Gateway) -> None:
    """The exchange is over, however it ended: fold it into its record."""
    route = ex.route.name if ex.route is not None else ""
    scribe = gateway.scribe
    usage, microusd = ex.outcome.usage, 0
    if usage is not None:
        microusd = spending.price_of(ex.tariff, ex.outcome.attempts[-1].target, usage)
        ex.cost_microusd += microusd
    if ex.hold is not None:
        _settle(ex, gateway, ex.hold, microusd)
        ex.limits_verdict = ex.hold.mark or ex.limits_verdict
    if ex.sealed is None and scribe is not None and ex.principal.key_id:
        ex.sealed = scribe.seal(ex.exchange_id, ex.principal.org, ex.personal())
    record = ex.fold(time.time_ns() // NS_PER_US, time.monotonic_ns(), gateway.generation)
    if scribe is not None:
        scribe.outcome(record)
    gateway.record(record, route, ex.model)


async def _decide(ex: Exchange, gateway: Gateway, scribe: Scribe, terms: Terms, decision: bytes) -> None:
    """The decision is in the journal before the first upstream byte. Raises JournalUnavailable."""
    body = ex.intake.body
    ex.sealed = sealed = scribe.seal(ex.exchange_id, ex.principal.org, ex.personal())
    if ex.intake.upload is not None:  # not all of it is here, and it will not be kept
        prompt_digest = ""
    elif len(body) <= gateway.config.inline_bytes:
        prompt_digest = sealed.key.digest(body)
    else:
        prompt_digest = await gateway.wheel.loop.run_in_executor(None, sealed.key.digest, body)
    at_us = time.time_ns() // NS_PER_US
    content = decided(decision, ex.exchange_id, at_us, ex.trace_id, ex.span_id, sealed, len(body), prompt_digest)
    if ex.hold is not None:
        content = with_hold(content, ex.hold.id, ex.hold.amounts)
    if not await scribe.commit(content, synced=terms.synced):
        scribe.not_recorded(go_on=terms.unrecorded)
    ex.answer = sealed.key.hasher()


async def _reserve(
    ex: Exchange, gateway: Gateway, surface: Surface, limits: Limits, targets: Sequence[Target]
) -> Sequence[Target]:
    """Take what the request is expected to use; the targets that are left, where providers have limits of their own.

    Raises RateLimited, NeverFits or LimitsUnavailable.
    """
    tariff, estimate, end_user = ex.tariff, UNREAD, ""
    if ex.facts is not None:
        end_user = ex.facts.end_user
        if tariff.measured:
            body, facts = ex.intake.body, ex.facts
            if len(body) <= gateway.config.inline_bytes:
                asked = spending.asked_of(surface.name, body, facts, ex.intake.length)
            else:
                asked = await _measured_aside(ex, surface)
            ex.asked = asked
            estimate = spending.estimate(tariff, gateway.estimator, asked, surface.name, body)
        ex.facts.talk = None
    providers = [target.account.name for target in targets] if limits.varies else ()
    try:
        reserving = gateway.limiter.reserve(limits, ex.exchange_id, estimate, end_user=end_user, providers=providers)
        ex.hold = hold = await reserving
    except (RateLimited, NeverFits, LimitsUnavailable) as error:
        ex.limits_verdict = error.rule
        raise
    ex.limits_verdict = hold.origin._value_  # `value` is a property in Python, and slow
    return targets[hold.first :] if hold.first else targets


async def _measured_aside(ex: Exchange, surface: Surface) -> Asked:
    """How much a request asks for whose body is large: reading it leaves the loop."""
    body, facts, length = ex.intake.body, ex.facts, ex.intake.length
    return await asyncio.get_running_loop().run_in_executor(None, spending.asked_of, surface.name, body, facts, length)


async def _admit(ex: Exchange, target: Target, failed: Outcome) -> bool:
    """Whether a request may go on to another target; what the attempt before it has used is charged."""
    usage, hold, microusd = failed.usage, ex.hold, 0
    if usage is not None:
        microusd = spending.price_of(ex.tariff, failed.attempts[-1].target, usage)
    if hold is not None:
        used = None if usage is None else use(usage.input_tokens, usage.output_tokens, microusd)
        if not await hold.extend(target.account.name, charge(failed, hold.reserved.full, used), used):
            return False
    ex.cost_microusd += microusd
    return True


def _settle(ex: Exchange, gateway: Gateway, hold: Hold, microusd: int) -> None:
    """End the hold with what the last attempt has used, and learn from it."""
    outcome, tariff, transfer, estimator = ex.outcome, ex.tariff, ex.transfer, gateway.estimator
    usage, ending = outcome.usage, outcome.ending
    if transfer is not None and ending is Ending.REFUSED:  # it has no outcome: a defect of ours broke it off
        hold.leave(transfer.sent_bytes)
        return
    used = None if usage is None else use(usage.input_tokens, usage.output_tokens, microusd)
    passed, unseen, metered = None, False, 0
    if ending in _ENDED_EARLY and transfer is not None and transfer.text_bytes >= 0 and tariff.measured:
        prompt = hold.reserved.prompt.tokens if usage is None else usage.input_tokens
        metered = estimator.metered(tariff.org, tariff.entry, transfer.text_bytes)
        passed = spending.passed(tariff, estimator, outcome.attempts[-1].target, prompt, metered, ex.asked)
        unseen = estimator.reasons(tariff.org, tariff.entry)
    hold.finish(outcome, used, passed, unseen=unseen)
    if ex.asked is None:
        return
    if ending is Ending.COMPLETE and usage is not None and outcome.status < _ERROR:
        estimator.learn(tariff.org, tariff.entry, ex.asked, usage)
    elif ending is Ending.ABANDONED and passed is not None:
        estimator.learn_abandoned(tariff.org, tariff.entry, metered)  # what peers come to would only repeat itself


def _read(ex: Exchange, gateway: Gateway, surface: Surface) -> RequestFacts:
    """The facts of the body. Raises InvalidRequest, or RefusedBody for one that two workers died over."""
    intake = ex.intake
    if intake.facts is not None:  # a form was read on its way in
        return intake.facts
    if not gateway.guard.enter(intake.body):
        raise RefusedBody("this request body cannot be processed: it has failed the gateway twice")
    try:
        return ex.head.dialect.read_request(surface, intake.body)
    finally:
        gateway.guard.leave()


async def _read_aside(ex: Exchange, gateway: Gateway, surface: Surface) -> RequestFacts:
    """As `_read`, for bodies that are large or encoded: their work leaves the loop."""
    intake, loop = ex.intake, asyncio.get_running_loop()
    if intake.facts is not None:
        return intake.facts
    if intake.encoding:
        await loop.run_in_executor(None, _decode, intake, gateway.config.max_body_bytes)
    return await loop.run_in_executor(None, ex.head.dialect.read_request, surface, intake.body)


def _decode(intake: Intake, limit: int) -> None:
    try:
        intake.body = decode_request(intake.encoding, intake.body, limit)
    except DecodeError as error:
        raise UnsupportedEncoding(f"the request body cannot be decoded: {error}") from error
    except TooMuch as error:
        raise BodyTooLarge(f"the decoded request body is larger than this gateway's limit of {limit} bytes") from error
    intake.length = len(intake.body)
    intake.encoding = b""


def _prepare(ex: Exchange, gateway: Gateway, surface: Surface, facts: RequestFacts) -> Prepared:
    """Choose the route and the targets. Raises what the caller must be told."""
    head, principal, model = ex.head, ex.principal, facts.model
    ex.facts = facts
    key = (model, surface.name, principal.key_id)
    plan = gateway.plans.get(key)
    if plan is None:
        if len(gateway.plans) >= _MAX_PLANS:
            gateway.plans.clear()
        plan = gateway.plans[key] = _plan(gateway, head.path, surface, model, principal)
    entry, star, route, terms, decision, ex.tariff, limits, ex.data_class = plan
    if limits is None:
        facts.talk = None
    ex.model, ex.route = entry.pattern, route
    targets: Sequence[Target] = entry.order(head.dialect.name, random.random)
    if not targets:
        speaks = ", ".join(sorted(entry.dialects))
        raise InvalidRequest(f"model {_shown(model)} is not served on {head.path}: its API is {speaks}")
    if facts.stored:
        targets = _dedicated(targets, principal, facts)
    out = _outgoing(ex, gateway, surface, surface.upstream_path, facts, star)
    return out, targets, terms, decision, limits


def _plan(gateway: Gateway, path: str, surface: Surface, model: str, principal: Principal) -> Plan:
    """What a key's requests for a model come to; the same until the next snapshot, so it is worked out once."""
    if not principal.allows(model):
        raise ModelNotAllowed(f"this key may not use model {_shown(model)}", param="model")
    found = gateway.catalogue.find(model)
    if found is None:
        raise ModelNotFound(f"no model {_shown(model)} is configured at this gateway", param="model")
    entry, star = found
    route = gateway.router.match(path, model, principal.labels)
    decision = _form(gateway, principal, surface, route, model)
    limits = gateway.rules.limits(subject_of(principal, route, model, entry.pattern))
    targets = entry.order(surface.dialect, random.random)
    prices = {target.name(star): target.price(star) for target in targets}
    money = limits.money if limits is not None else ""
    if money and gateway.config.limits.unpriced == "refuse" and None in prices.values():
        raise refusal.unpriced(money, model)
    measured = limits is not None and limits.by_size
    prior = entry.config.output_prior
    contexts = {target.name(star): target.context_tokens for target in targets}
    tariff = spending.tariff_of(
        principal.org, entry.pattern, prior, prices, measured=measured, money=bool(money), contexts=contexts
    )
    terms, data_class = route.terms(entry.pattern, entry.config), route.data_class(principal.data_class)
    return Plan(entry, star, route, terms, decision, tariff, limits, data_class)


def _form(gateway: Gateway, principal: Principal, surface: Surface, route: Route, model: str) -> bytes:
    """What all decisions like this one have in common."""
    return form(
        Record(
            Kind.DECISION,
            "",
            0,
            org=principal.org,
            team=principal.team,
            key_id=principal.key_id,
            role=principal.role,
            surface=surface.name,
            route=route.name,
            model=model,
            decision=ALLOW,
            data_class=route.data_class(principal.data_class),
            generation=gateway.generation,
        )
    )


def _dedicated(targets: Sequence[Target], principal: Principal, facts: RequestFacts) -> Sequence[Target]:
    """Targets whose account belongs to the caller's org alone; only there may a request name stored objects."""
    kept = [target for target in targets if principal.org and principal.org in target.account.dedicated_to]
    if not kept:
        raise UnsupportedStoredObject(
            f"{facts.stored[0]} names an object stored at a provider account that several tenants share; "
            "this gateway accepts it only for a provider that is `dedicated_to` your organisation",
            param=facts.stored[0],
        )
    return kept


def _passthrough(ex: Exchange, gateway: Gateway, surface: Surface) -> Prepared:
    """A raw request to one provider: identity, route and record, and nothing read."""
    head, principal = ex.head, ex.principal
    target = gateway.passthrough.get(head.params["provider"])
    if target is None:
        raise NotFound(f"no provider {_shown(head.params['provider'])} is configured at this gateway")
    if _EVERY_MODEL not in principal.models:
        raise ModelNotAllowed("this key is limited to certain models, which a passthrough request cannot show")
    ex.route = gateway.router.match(head.path, "", principal.labels)
    ex.data_class = ex.route.data_class(principal.data_class)
    out = _outgoing(ex, gateway, surface, "/" + head.params["rest"], None, "")
    limits = _raw_limits(gateway, principal, ex.route)
    if limits is not None and limits.money and gateway.config.limits.unpriced == "refuse":
        raise refusal.unread(limits.money)
    return out, (target,), ex.route.terms("", None), _form(gateway, principal, surface, ex.route, ""), limits


def _raw_limits(gateway: Gateway, principal: Principal, route: Route) -> Limits | None:
    """What limits a key's requests of which only the path is known."""
    key, known = (principal.key_id, route.name), gateway.raw_limits
    if key not in known:
        if len(known) >= _MAX_PLANS:
            known.clear()
        known[key] = gateway.rules.limits(subject_of(principal, route))
    return known[key]


def _outgoing(
    ex: Exchange, gateway: Gateway, surface: Surface, path: str, facts: RequestFacts | None, star: str
) -> Outgoing:
    """The request as every attempt sees it; without facts it goes on unread."""
    head, intake = ex.head, ex.intake
    random_bytes = gateway.random_bytes.take(RANDOM_BYTES)
    if ex.traceparent:
        trace = continue_trace(ex.traceparent, random_bytes, head.tracestate)
        ex.trace_id, ex.span_id, lines = trace.trace_id, trace.span_id, trace.header_lines
    else:
        ex.trace_id, ex.span_id, lines = fresh_trace(random_bytes)
    return Outgoing(
        surface,
        head.dialect,
        head.method,
        path,
        head.query,
        head.forwarded,
        intake.body,
        intake.length,
        facts,
        intake.upload,
        head.provider_credential,
        lines,
        head.method in _SAFE_METHODS if facts is None else not facts.stores,
        facts is not None and facts.stream,
        facts is None,
        star,
    )


def _answer_models(ex: Exchange, gateway: Gateway) -> None:
    """GET /v1/models: the names of the config that this key may use. Patterns are no names and are not listed."""
    head, principal = ex.head, ex.principal
    ex.route = gateway.router.match(head.path, "", principal.labels)
    ex.data_class = ex.route.data_class(principal.data_class)
    wanted = head.params.get("model")
    if wanted is None:
        names = tuple(name for name in gateway.catalogue.names if principal.allows(name))
        body = head.dialect.models_body(names, gateway.loaded_s)
    elif principal.allows(wanted) and gateway.catalogue.find(wanted) is not None:
        body = head.dialect.model_body(wanted, gateway.loaded_s)
    else:
        raise ModelNotFound(f"no model {_shown(wanted)} is available to this key", param="model")
    ex.decision = ALLOW
    ex.reply.answer(200, body)
    ex.outcome = _ANSWERED


def _shown(name: str) -> str:
    """A caller's word, quoted and short enough for a message."""
    shown = name if len(name) <= 100 else name[:100] + "…"  # noqa: PLR2004
    return repr(shown)
