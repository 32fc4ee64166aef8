"""The commands, their words and their help; each imports what it needs, so that `--help` is quick."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from gateway import __version__
from gateway.cli.audit import add_audit
from gateway.cli.journal import add_journal
from gateway.cli.usage import add_usage
from gateway.cli.why import add_why

_DEFAULT_CONFIG: Final = "gateway.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 it could not be done, 2 the words were wrong."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.run(given)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `gateway check | head`
        sys.stderr.close()
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway", description="Sluice, an LLM gateway.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_check(commands)
    _add_init(commands)
    _add_keys(commands)
    add_usage(commands)
    add_why(commands)
    add_audit(commands)
    add_journal(commands)
    _add_targets(commands)
    _add_dialects(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("serve", help="run the gateway", description="Run the gateway until told to stop.")
    _config_options(parser)
    parser.add_argument("--curl", action="store_true", help="print a request to paste, with a working key")
    parser.set_defaults(run=_serve)


def _add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "check",
        help="say what a config means, or what is wrong with it",
        description="Check a config: every problem with its line, its value and the fix; else what it will do.",
    )
    _config_options(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing unless there is a problem")
    parser.add_argument(
        "--route",
        nargs="+",
        metavar="WORD",
        help="say which route wins: PATH MODEL [LABEL=VALUE …]",
    )
    parser.set_defaults(run=_command("run_check"))


def _add_init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("init", help="write a config to start from", description="Write a first config.")
    parser.add_argument("path", nargs="?", default=_DEFAULT_CONFIG, help=f"the file to write ({_DEFAULT_CONFIG})")
    parser.set_defaults(run=_command("run_init"))


def _add_keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    keys = commands.add_parser("keys", help="make, hash and revoke callers' keys")
    actions = keys.add_subparsers(title="actions", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="print a new secret and its hash")
    new.set_defaults(run=_command("run_keys_new"))
    hashed = actions.add_parser("hash", help="print the hash of a secret, for `secret:` in the config")
    hashed.add_argument("secret", nargs="?", default="-", help="the secret; - or nothing reads it unseen")
    hashed.set_defaults(run=_command("run_keys_hash"))
    revoke = actions.add_parser("revoke", help="refuse a key from now on, in every worker, in under a second")
    revoke.add_argument("id", help="the key's id")
    revoke.add_argument("--force", action="store_true", help="even if no key with this id is known here")
    _config_options(revoke)
    revoke.set_defaults(run=_command("run_keys_revoke"))


def _add_targets(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("targets", help="list providers and targets, and how they are")
    _config_options(parser)
    parser.set_defaults(run=_command("run_targets"))


def _add_dialects(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("dialects", help="list the APIs callers may use")
    parser.set_defaults(run=_dialects)


def _config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", default=_DEFAULT_CONFIG, metavar="FILE", help=f"the config ({_DEFAULT_CONFIG})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override a setting: listen.port=9000"
    )


def _serve(given: argparse.Namespace) -> int:
    from gateway.cli import serve

    return serve.run(given)


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    def run(given: argparse.Namespace) -> int:
        from gateway.cli import commands

        code: int = getattr(commands, name)(given)
        return code

    return run


def _dialects(_given: argparse.Namespace) -> int:
    from gateway.dialects.surfaces import SURFACES

    width = max(len(surface.path) for surface in SURFACES)
    for surface in SURFACES:
        print(f"{surface.dialect:<10} {surface.method:<5} {surface.path:<{width}}  {surface.name}")
    return 0
