"""`gateway check` and `gateway targets`: what a config means, in words."""

import argparse
import json
import sys

from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.config.schema import Config
from gateway.control import client
from gateway.routing.match import Route, Router


def run(given: argparse.Namespace) -> int:
    """Print every problem and return 1, or what the config will do and return 0."""
    try:
        config = load(given.config, given.set)
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    if given.route:
        return _which_route(config, given.route)
    if not given.quiet:
        print(_summary(config))
    return 0


def _summary(config: Config) -> str:
    providers = [
        f"  {name}: {provider.kind} {provider.base_url or '(its public address)'}"
        for name, provider in config.providers.items()
    ]
    models = [
        f"  {name} -> {', '.join(f'{t.provider}/{t.model}' + (f' x{t.weight}' if t.weight != 1 else '') for t in m.targets)}"
        + (f"; then {', '.join(m.fallbacks)}" if m.fallbacks else "")
        for name, m in config.models.items()
    ]
    routes = [f"  {number}. {_shown(route)}" for number, route in enumerate(Router(config).routes, 1)]
    listen = config.listen
    return "\n".join(
        [
            f"config is good: {listen.worker_count} workers on {listen.host}:{listen.port}, {len(config.keys)} keys",
            "providers:",
            *(providers or ["  none"]),
            "models:",
            *(models or ["  none"]),
            "routes, first match wins:",
            *routes,
        ]
    )


def _shown(route: Route) -> str:
    wanted = route.pattern
    match = [f"path {wanted.path}"] if wanted.path else []
    match += [f"model {wanted.model}"] if wanted.model else []
    match += [f"label {name}={value}" for name, value in wanted.labels.items()]
    terms = route.terms("", None)
    seconds = {
        "connect": terms.connect_ns,
        "first byte": terms.first_byte_ns,
        "first content": terms.first_content_ns,
        "idle": terms.idle_ns,
        "total": terms.total_ns,
        "hold": terms.hold_ns,
    }
    times = ", ".join(f"{name} {value / 1e9:g} s" for name, value in seconds.items())
    return f"{route.name}: {', '.join(match) or 'anything'} ({times}; {terms.max_attempts} attempts)"


def _which_route(config: Config, words: list[str]) -> int:
    labels = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    if len(plain) > 2 or not plain[0].startswith("/"):  # noqa: PLR2004
        print("say it as: --route /v1/chat/completions MODEL label=value", file=sys.stderr)
        return 2
    model = plain[1] if len(plain) > 1 else ""
    print(_shown(Router(config).match(plain[0], model, labels)))
    return 0


def targets(given: argparse.Namespace) -> int:
    """Print providers and targets: from the running node where there is one, else from the config."""
    try:
        config = load(given.config, given.set)
        found = client.targets(config)
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    except client.AdminRefused as error:
        print(f"gateway: the admin API refused: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found.content, indent=2))
    if not found.live:
        print("no gateway answers on the admin port: this is what the config says", file=sys.stderr)
    return 0
