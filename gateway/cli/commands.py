"""The small commands: they print, and end with a code."""

import argparse
import json
import sys
import time

from gateway.config import check, commands, starter
from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.config.schema import Config
from gateway.control import client
from gateway.routing.match import Router
from gateway.units import NS_PER_MS


def run_check(given: argparse.Namespace) -> int:
    """`gateway check`: every problem of a config, or what it will do, or which route wins."""
    words: list[str] | None = given.route
    asked = None
    if words:
        plain = [word for word in words if "=" not in word]
        try:
            labels = [word for word in words if "=" in word]
            asked = check.question(plain[0] if plain else "", plain[1] if len(plain) > 1 else "", labels)
        except ValueError as error:
            print(f"gateway: {error}", file=sys.stderr)
            return 2
    if given.quiet:
        return _problems_only(given)
    return check.check(given.config, given.set, sys.stdout, asked, _winner)


def _winner(config: Config, asked: check.Question) -> str:
    return Router(config).match(asked.path, asked.model, asked.labels).name


def _problems_only(given: argparse.Namespace) -> int:
    try:
        load(given.config, given.set)
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    return 0


def run_init(given: argparse.Namespace) -> int:
    """`gateway init`: write a first config; refuses to replace one."""
    path = given.path
    try:
        made = starter.init(path)
    except FileExistsError:
        print(f"gateway: {path} exists already: remove it first, or name another file", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gateway: {path} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    print(f"wrote {made.path}: model {made.model}, one key, one admin token; start with: gateway serve --config {path}")
    return 0


def run_keys_new(_given: argparse.Namespace) -> int:
    """`gateway keys new`."""
    return commands.keys_new(sys.stdout)


def run_keys_hash(given: argparse.Namespace) -> int:
    """`gateway keys hash`."""
    return commands.keys_hash(given.secret, sys.stdout)


def run_keys_revoke(given: argparse.Namespace) -> int:
    """`gateway keys revoke`."""
    now_ms = time.time_ns() // NS_PER_MS
    return commands.keys_revoke(given.id, given.config, given.set, sys.stdout, now_ms=now_ms, force=given.force)


def run_targets(given: argparse.Namespace) -> int:
    """`gateway targets`: from the running node where there is one, else from the config."""
    try:
        found = client.targets(load(given.config, given.set))
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
