"""What must hold between settings: references lead somewhere, nothing is given twice, nothing contradicts.

Each check is a generator of findings over what could be read; they run even when some settings were bad, so that one
run of `gateway check` tells all there is. Names are taken from the file as written, not from what was valid: a target
must not be reported for naming a provider whose only fault is a missing variable.

A choice made here: a target serves its own dialect only, and there is no translation. So a model may mix kinds (each
caller is served by the targets that speak its dialect), but a fallback that shares no dialect with its model could
never serve anyone and is refused.
"""

import re
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Names
from typing import Final, NamedTuple

from gateway.config import headers, patterns, proxy
from gateway.config.keys import digest_of
from gateway.config.kinds import BUILT, KINDS
from gateway.config.limitcheck import check_limits, check_room, check_rule
from gateway.config.limits import Limits, Rule
from gateway.config.localcheck import (
    check_anchor,
    check_database,
    check_files,
    check_provider,
    check_timeouts,
    check_webhook,
)
from gateway.config.problems import Path, Place, Problem, did_you_mean, dotted
from gateway.config.schema import (
    Admin,
    Anchor,
    Database,
    Export,
    Key,
    Listen,
    Model,
    Provider,
    Route,
    Target,
    Timeouts,
    Webhook,
)
from gateway.config.tree import Mapping, Node, find, place_of
from gateway.config.walk import Walked

MIN_ADMIN_TOKEN: Final = 16
DEFAULT_ROUTE: Final = "default"
_HOST: Final = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.:%-]*\Z|::[0-9A-Fa-f.:]*\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}\Z")
_MODEL: Final = re.compile(r"[\x21-\x7e]{1,256}\Z")
_DECIDED_PER_REQUEST: Final = ("model", "stream")


class Finding(NamedTuple):
    """A fault at a path; `shown` is the value where it may be seen."""

    path: Path
    message: str
    shown: str = ""


class Facts(NamedTuple):
    """What the checks look at: the values, the tree they came from, and the environment."""

    walked: Walked
    tree: Node
    env: Names[str, str]

    def names(self, section: str) -> tuple[str, ...]:
        """The names written in a section, valid or not."""
        node = find(self.tree, (section,))
        return tuple(node.entries) if isinstance(node, Mapping) else ()


def crosscheck(walked: Walked, tree: Node, whole: Place, env: Names[str, str]) -> list[Problem]:
    """Every finding as a problem with its place; none where the same setting was already reported."""
    facts = Facts(walked, tree, env)
    reported = {problem.path for problem in walked.problems}
    return [
        Problem(place_of(tree, finding.path, whole), finding.path, finding.message, finding.shown)
        for check in CHECKS
        for finding in check(facts)
        if finding.path not in reported
    ]


def _ports(facts: Facts) -> Iterator[Finding]:
    config = facts.walked.config
    if config is None:
        return
    listen, admin = config.listen, config.admin
    if admin is not None and listen.port == admin.port != 0 and listen.host == admin.host:
        yield Finding(("admin", "port"), "is also the port of `listen`: give admin another one", str(admin.port))
    if listen.proxy_protocol and not config.trusted_proxies:
        message = "needs `trusted_proxies`: without them every connection would be refused"
        yield Finding(("listen", "proxy_protocol"), message)
    if listen.proxy_protocol and listen.tls is not None:
        message = "cannot stand beside `listen.tls`: end TLS at the proxy, or pass addresses on by x-forwarded-for"
        yield Finding(("listen", "proxy_protocol"), message)
    if config.spool_total_bytes < config.spool_bytes:
        yield Finding(("spool_total_bytes",), "must be at least `spool_bytes`, or no body of that size ever fits")


def _admin(facts: Facts) -> Iterator[Finding]:
    for path, admin in facts.walked.of(Admin):
        if len(admin.token.reveal()) < MIN_ADMIN_TOKEN:
            message = f"is shorter than {MIN_ADMIN_TOKEN} characters: `gateway keys new` makes a good one"
            yield Finding((*path, "token"), message)
        for key_path, key in facts.walked.of(Key):
            if key.secret == admin.token:
                yield Finding((*key_path, "secret"), "is the admin token: callers would hold the node; use another one")


def _files(facts: Facts) -> Iterator[Finding]:
    for path, value in facts.walked.built:
        yield from (Finding(*found) for found in check_files(path, value))


def _providers(facts: Facts) -> Iterator[Finding]:
    for path, provider in facts.walked.of(Provider):
        if not _NAME.match(str(path[-1])):
            yield Finding(path, "is not a provider name: letters, digits, `.`, `_` and `-`")
        if provider.kind not in BUILT:
            yield Finding((*path, "kind"), _kind_fault(provider.kind), provider.kind)
        yield from (Finding(*found) for found in check_provider(path, provider))
        yield from _headers((*path, "headers"), provider.headers)


def _proxies(facts: Facts) -> Iterator[Finding]:
    try:
        proxy.from_environment(facts.env)
    except ValueError as error:
        for path, provider in facts.walked.of(Provider):
            if not provider.proxy:
                yield Finding((*path, "proxy"), f"is left to the environment, and {error}")


def _kind_fault(kind: str) -> str:
    if kind in KINDS:
        return f"is not served by this version: use one of {', '.join(BUILT)}"
    return f"is not a kind of provider: use one of {', '.join(BUILT)}{did_you_mean(kind, BUILT)}"


def _headers(path: Path, given: dict[str, str]) -> Iterator[Finding]:
    for name, value in given.items():
        fault = headers.fault(name, value)
        if fault:
            yield Finding((*path, name), fault)


def _models(facts: Facts) -> Iterator[Finding]:
    for path, model in facts.walked.of(Model):
        name = str(path[-1])
        fault = patterns.fault(name) or ("" if _MODEL.match(name) else "has characters a model name cannot have")
        if fault:
            yield Finding(path, fault)
        if model.targets and not any(target.weight for target in model.targets):
            yield Finding((*path, "targets"), "all have weight 0: give at least one a weight")


def _targets(facts: Facts) -> Iterator[Finding]:
    providers = facts.names("providers")
    for path, target in facts.walked.of(Target):
        if target.provider not in providers:
            known = did_you_mean(target.provider, providers) or f"; there are: {', '.join(providers) or 'none'}"
            yield Finding((*path, "provider"), f"names no provider{known}", target.provider)
        if target.model == "*" and not str(path[1]).endswith("*"):
            message = "`*` stands for what a pattern's star matched, and this model has no star: name the model"
            yield Finding((*path, "model"), message)
        elif target.model != "*" and ("*" in target.model or not _MODEL.match(target.model)):
            yield Finding((*path, "model"), "must be a model's name, or `*` alone", target.model)
        for name in target.defaults:
            if name.lower() in _DECIDED_PER_REQUEST:
                yield Finding(
                    (*path, "defaults", name), "is decided by each request and cannot be a default: remove it"
                )
        yield from _headers((*path, "headers"), target.headers)


def _fallbacks(facts: Facts) -> Iterator[Finding]:
    models = facts.names("models")
    built = {str(path[-1]): model for path, model in facts.walked.of(Model)}
    dialects = {name: _dialects(model, facts) for name, model in built.items()}
    for name, model in built.items():
        for index, fallback in enumerate(model.fallbacks):
            path = ("models", name, "fallbacks", index)
            entry = patterns.best(models, fallback)
            if entry is None:
                yield Finding(path, f"names no model{did_you_mean(fallback, models)}", fallback)
            elif not _shared(dialects.get(name), dialects.get(entry)):
                spoken = " and ".join(sorted(dialects[name]))
                message = f"speaks another dialect than its model ({spoken}), and translation is not built: remove it"
                yield Finding(path, message, fallback)
            elif _leads_to(entry, name, built, models):
                yield Finding(path, f"leads back to `{name}`: fallbacks must not go in circles", fallback)


def _dialects(model: Model, facts: Facts) -> frozenset[str]:
    kinds = {str(path[-1]): provider.kind for path, provider in facts.walked.of(Provider)}
    served = (kinds.get(target.provider, "") for target in model.targets)
    return frozenset(KINDS[kind].dialect for kind in served if kind in KINDS)


def _shared(one: frozenset[str] | None, other: frozenset[str] | None) -> bool:
    """Whether a request could be served by both; unknown dialects were reported elsewhere and count as fitting."""
    return not one or not other or not one.isdisjoint(other)


def _leads_to(start: str, goal: str, built: dict[str, Model], models: tuple[str, ...]) -> bool:
    todo, seen = [start], set[str]()
    while todo:
        entry = todo.pop()
        if entry == goal:
            return True
        if entry not in seen and entry in built:
            seen.add(entry)
            todo.extend(found for name in built[entry].fallbacks if (found := patterns.best(models, name)) is not None)
    return False


def _keys(facts: Facts) -> Iterator[Finding]:
    ids: dict[str, Path] = {}
    digests: dict[bytes, Path] = {}
    for path, key in facts.walked.of(Key):
        if not _KEY_ID.match(key.id):
            yield Finding((*path, "id"), "is not a key id: letters, digits and . _ : @ / + -", key.id)
        if key.id in ids:
            yield Finding((*path, "id"), f"is also the id of {dotted(ids[key.id])}: ids are unique", key.id)
        ids.setdefault(key.id, path)
        try:
            digest = digest_of(key.secret.reveal())
        except ValueError as error:
            yield Finding((*path, "secret"), str(error))
            continue
        if digest in digests:
            yield Finding((*path, "secret"), f"is also the secret of {dotted(digests[digest])}: give each key its own")
        digests.setdefault(digest, path)


def _key_models(facts: Facts) -> Iterator[Finding]:
    for path, key in facts.walked.of(Key):
        for index, pattern in enumerate(key.models):
            fault = patterns.fault(pattern)
            if fault:
                yield Finding((*path, "models", index), fault, pattern)


def _roles_and_data_classes(facts: Facts) -> Iterator[Finding]:
    for path, key in facts.walked.of(Key):
        yield from _named((*path, "role"), key.role, "a role")
        yield from _named((*path, "data_class"), key.data_class, "a class of data")
    for path, route in facts.walked.of(Route):
        yield from _named((*path, "data_class"), route.data_class, "a class of data")


def _named(path: Path, name: str, what: str) -> Iterator[Finding]:
    if name and not _NAME.match(name):
        yield Finding(path, f"is not {what}: letters, digits, `.`, `_` and `-`", name)


def _routes(facts: Facts) -> Iterator[Finding]:
    names: dict[str, Path] = {}
    for path, route in facts.walked.of(Route):
        if not _NAME.match(route.name):
            yield Finding((*path, "name"), "is not a route name: letters, digits, `.`, `_` and `-`", route.name)
        if route.name == DEFAULT_ROUTE:
            yield Finding(
                (*path, "name"), "is the route of everything that no other takes: use `defaults` to change it"
            )
        if route.name in names:
            yield Finding((*path, "name"), f"is also the name of {dotted(names[route.name])}: names are unique")
        names.setdefault(route.name, path)
        for field in ("path", "model"):
            pattern = getattr(route.match, field)
            fault = patterns.fault(pattern) if pattern else ""
            if field == "path" and pattern and not pattern.startswith(("/", "*")):
                fault = "must start with `/`, as in /v1/responses or /v1/*"
            if fault:
                yield Finding((*path, "match", field), fault, pattern)


def _timeouts(facts: Facts) -> Iterator[Finding]:
    for path, timeouts in facts.walked.of(Timeouts):
        yield from (Finding(*found) for found in check_timeouts(path, timeouts))


def _journal(facts: Facts) -> Iterator[Finding]:
    for path, anchor in facts.walked.of(Anchor):
        yield from (Finding(*found) for found in check_anchor(path, anchor))
    for path, database in facts.walked.of(Database):
        yield from (Finding(*found) for found in check_database(path, database))
    config = facts.walked.config
    if config is not None and config.journal.max_bytes < 4 * config.journal.segment_bytes:
        message = "holds less than four segments of `segment_bytes`, and only whole segments are ever dropped: raise it"
        yield Finding(("journal", "max_bytes"), message)


def _exports(facts: Facts) -> Iterator[Finding]:
    names: dict[str, Path] = {}
    for path, export in facts.walked.of(Export):
        if not _NAME.match(export.name):
            yield Finding((*path, "name"), "is not an export's name: letters, digits, `.`, `_` and `-`", export.name)
        if export.name in names:
            yield Finding((*path, "name"), f"is also the name of {dotted(names[export.name])}: names are unique")
        names.setdefault(export.name, path)
        if export.kind == "file" and not export.path:
            yield Finding((*path, "path"), "is missing: an export of kind file needs it")
    config = facts.walked.config
    if names and config is not None and not config.journal.enabled:
        yield Finding(("exports",), "have nothing to read while `journal.enabled` is false: remove them, or keep one")


def _limits(facts: Facts) -> Iterator[Finding]:
    for path, limits in facts.walked.of(Limits):
        yield from (Finding(*found) for found in check_limits(path, limits))
        keys = [key.allowance.limits for _, key in facts.walked.of(Key) if key.allowance is not None]
        teams = facts.walked.config.teams.values() if facts.walked.config is not None else ()
        yield from (Finding(*found) for found in check_room(path, limits, keys, teams))
    for path, rule in facts.walked.of(Rule):
        yield from (Finding(*found) for found in check_rule(path, rule))
        yield from _matched((*path, "match", "provider"), rule.match.provider, facts.names("providers"), "provider")
        routes = [route.name for _, route in facts.walked.of(Route)]
        yield from _matched((*path, "match", "route"), rule.match.route, (*routes, DEFAULT_ROUTE), "route")


def _matched(path: Path, pattern: str, names: tuple[str, ...], what: str) -> Iterator[Finding]:
    """A rule for what the config does not have would never be for anything."""
    if pattern and not patterns.fault(pattern) and not any(patterns.matches(pattern, name) for name in names):
        yield Finding(path, f"fits no {what}{did_you_mean(pattern, names)}; there are: {', '.join(names)}", pattern)


def _webhooks(facts: Facts) -> Iterator[Finding]:
    names: dict[str, Path] = {}
    for path, webhook in facts.walked.of(Webhook):
        if not _NAME.match(webhook.name):
            yield Finding((*path, "name"), "is not a webhook's name: letters, digits, `.`, `_` and `-`", webhook.name)
        if webhook.name in names:
            yield Finding((*path, "name"), f"is also the name of {dotted(names[webhook.name])}: names are unique")
        names.setdefault(webhook.name, path)
        yield from (Finding(*found) for found in check_webhook(path, webhook))


def _hosts(facts: Facts) -> Iterator[Finding]:
    hosts = [(path, listen.host) for path, listen in facts.walked.of(Listen)]
    hosts += [(path, admin.host) for path, admin in facts.walked.of(Admin)]
    for path, host in hosts:
        if not _HOST.match(host):
            yield Finding((*path, "host"), "must be an address or a host name, without brackets or a path", host)


CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    _hosts,
    _ports,
    _admin,
    _files,
    _providers,
    _proxies,
    _models,
    _targets,
    _fallbacks,
    _keys,
    _key_models,
    _roles_and_data_classes,
    _routes,
    _timeouts,
    _journal,
    _exports,
    _webhooks,
    _limits,
)
