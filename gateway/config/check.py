"""`gateway check`: everything that is wrong with a config, or what a node would do with it.

The summary answers what operators ask before a reload: which providers, what each model name leads to, and which
route a request would take. Routes are shown in the order they are matched, ending with the implicit one. Who wins is
asked of the matcher itself, handed in as `winner`, so that the answer is the data plane's and not a second opinion.
"""

import os
from collections.abc import Callable
from collections.abc import Mapping as Names
from collections.abc import Sequence as Given
from typing import Final, NamedTuple, TextIO

import msgspec

from gateway.config.crosscheck import DEFAULT_ROUTE
from gateway.config.limits import Allowance
from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.config.revocations import Revocations
from gateway.config.schema import BUILT_IN, Config, Match, Model, Provider, RouteSettings, Timeouts
from gateway.config.sizes import format_size

PASSED: Final = 0
FAILED: Final = 1


class Question(NamedTuple):
    """A request to find the route of: the caller's path, the model it asks for, the labels of its key."""

    path: str
    model: str
    labels: Names[str, str]


Winner = Callable[[Config, Question], str]


def check(
    path: str | os.PathLike[str],
    overrides: Given[str],
    out: TextIO,
    question: Question | None = None,
    winner: Winner | None = None,
    env: Names[str, str] | None = None,
) -> int:
    """Print the problems, the summary, or the answer to a question; the exit code says whether the config passed."""
    try:
        config = load(path, overrides, env)
    except ConfigProblems as error:
        out.write(f"{error}\n{_counted(len(error.problems), 'problem')}\n")
        return FAILED
    if question is not None and winner is not None:
        out.write(_answer(config, question, winner(config, question)))
    else:
        out.write(f"{path}: the config is good\n\n{summary(config)}")
    return PASSED


def question(path: str, model: str, labels: Given[str]) -> Question:
    """A question as typed: labels are `name=value`. Raises ValueError naming the one that is not."""
    pairs = [label.partition("=") for label in labels]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ValueError(f"`{name}{equals}` is not a label: write name=value")
    return Question(path, model, {name: value for name, _, value in pairs})


def summary(config: Config) -> str:
    """The config as a node would act on it, without secrets."""
    parts = [
        _table("node", _node_rows(config)),
        _table("providers", [_provider_row(name, provider) for name, provider in config.providers.items()]),
        _table("models", [(name, _leads_to(model)) for name, model in config.models.items()]),
        _table("keys", _key_rows(config)),
        _table("limits", _limit_rows(config)),
        _table("routes, first match wins", _route_rows(config)),
    ]
    return "\n".join(parts)


def _answer(config: Config, asked: Question, name: str) -> str:
    labels = ", ".join(f"{label}={value}" for label, value in asked.labels.items())
    rows = [row for row in _route_rows(config) if row[1] == name]
    request = f"{asked.path} with model {asked.model or '(none)'}{f' and labels {labels}' if labels else ''}"
    return f"{request} takes route {name}\n" + _table("route", rows)


def _node_rows(config: Config) -> list[tuple[str, ...]]:
    listen, admin = config.listen, config.admin
    scheme = "http" if listen.tls is None else "https"
    rows: list[tuple[str, ...]] = [
        ("listen", f"{scheme}://{_authority(listen.host, listen.port)}, {_counted(listen.worker_count, 'worker')}"),
        ("admin", "not served" if admin is None else f"http://{_authority(admin.host, admin.port)}"),
        ("state", config.state_dir),
    ]
    rows.append(("journal", _journal(config)))
    rows += [("anchor", f"{anchor.kind} every {anchor.every_s:g} s") for anchor in config.journal.anchors]
    rows += [("export", f"{export.name} to {export.path or export.kind}") for export in config.exports]
    if config.trusted_proxies:
        rows.append(("proxies", ", ".join(str(network) for network in config.trusted_proxies)))
    return rows


def _journal(config: Config) -> str:
    journal = config.journal
    if not journal.enabled:
        return "not kept"
    return f"kept for {journal.keep_days} days, at most {format_size(journal.max_bytes)}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _provider_row(name: str, provider: Provider) -> tuple[str, ...]:
    key = "the caller's own key" if provider.api_key is None else f"key {provider.api_key}"
    dedicated = f"dedicated to {', '.join(provider.dedicated_to)}" if provider.dedicated_to else ""
    return name, provider.kind, provider.base_url or "its public address", key, dedicated


def _leads_to(model: Model) -> str:
    alone = len(model.targets) == 1
    targets = [f"{t.provider}/{t.model}{'' if alone else f' (weight {t.weight})'}" for t in model.targets]
    then = f", then {', '.join(model.fallbacks)}" if model.fallbacks else ""
    return f"{', '.join(targets)}{then}"


def _key_rows(config: Config) -> list[tuple[str, ...]]:
    revoked = Revocations(config.state_dir).read()
    disabled = sum(key.disabled for key in config.keys)
    total = (_counted(len(config.keys), "key"), f"{disabled} disabled" if disabled else "")
    why = "is revoked for good: give the new key another id"
    return [total, *((key.id, why) for key in config.keys if key.id in revoked)]


def _route_rows(config: Config) -> list[tuple[str, ...]]:
    defaults = config.route_defaults
    routes = [(route.name, route.match, _over(route, defaults), route.data_class) for route in config.routes]
    routes.append((DEFAULT_ROUTE, Match(), _over(defaults, BUILT_IN), ""))
    return [
        (str(number), name, _matching(match), f"data_class {data_class}, " * bool(data_class) + _settings(settings))
        for number, (name, match, settings, data_class) in enumerate(routes, 1)
    ]


def _limit_rows(config: Config) -> list[tuple[str, ...]]:
    limits = config.limits
    where = "in this node's memory" if limits.store_url is None else f"in the store {limits.store_url}"
    size = f"{limits.max_buckets} buckets, {limits.max_holds} requests at once"
    rows: list[tuple[str, ...]] = [("counted", f"{where}, domain {limits.domain}", size)]
    for rule in limits.rules:
        amounts = ", ".join(f"{name} {getattr(rule, name):g}" for name in rule.resources)
        every = f" every {rule.every}" if rule.every else ""
        kind = " (budget)" if rule.is_budget and not rule.in_flight else ""
        shadow = ", shadow" if rule.shadow else ""
        rows.append((rule.name, f"per {', '.join(rule.per) or 'gateway'}", f"{amounts}{every}{kind}{shadow}"))
    return rows + [(f"team {name}", "", _allowed(team)) for name, team in config.teams.items()]


def _allowed(allowance: Allowance) -> str:
    return ", ".join(f"{name} {getattr(allowance, name):g}" for name in allowance.limits) or "no limit"


def _matching(match: Match) -> str:
    said = [f"{name} {getattr(match, name)}" for name in ("path", "model") if getattr(match, name)]
    said += [f"label {name}={value}" for name, value in match.labels.items()]
    return ", ".join(said) or "everything"


def _over(settings: RouteSettings, defaults: RouteSettings) -> RouteSettings:
    """The settings a route has, as far as routes alone decide: a model's own timeouts come between."""
    said: dict[str, object] = {}
    for source in (BUILT_IN, defaults, settings):
        own = {name: getattr(source, name) for name in RouteSettings.__struct_fields__}
        said |= {name: value for name, value in own.items() if value is not None}
    said["timeouts"] = (settings.timeouts or Timeouts()).over(defaults.timeouts).over(BUILT_IN.timeouts)
    return msgspec.structs.replace(BUILT_IN, **said)


def _settings(settings: RouteSettings) -> str:
    said = {**msgspec.structs.asdict(settings), **msgspec.structs.asdict(settings.timeouts or Timeouts())}
    return ", ".join(f"{name} {value}" for name, value in said.items() if name != "timeouts")


def _table(title: str, rows: Given[tuple[str, ...]]) -> str:
    """Rows in columns under a title; the last column is as long as it is."""
    columns = max((len(row) for row in rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "".join(f"{line}\n" for line in [title, *(f"  {line}" for line in lines or ["(none)"])])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
