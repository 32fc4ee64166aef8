"""What `gateway journal` does: asked of the running node, or done here where none runs.

Where none runs it is done under the lock of the state_dir (`journal_offline.py`). A node that runs and does not answer
is left alone: nobody but it may change its journal.
"""

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from gateway.cli import journal_offline
from gateway.cli.journal_offline import Offline
from gateway.cli.journal_view import WrongTime, from_us, hold_line, hold_time, status_lines, to_us
from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.config.schema import Config
from gateway.control import client
from gateway.control.erasure import ErasureRefused, ErasureUnfinished
from gateway.control.holds import HoldRefused, HoldsUnreadable
from gateway.journal.layout import NoJournal
from gateway.process.settings import StartError

ERASE_S: Final = 600.0  # how long an erasure may keep its caller waiting
_FAILED: Final = (
    client.AdminRefused, StartError, NoJournal, HoldRefused, HoldsUnreadable, ErasureRefused, ErasureUnfinished,
)  # fmt: skip


class WrongWords(ValueError):
    """The command line cannot be meant; the message says what would be."""


def run(given: argparse.Namespace) -> int:
    """Do what the words ask for; the exit code: 0 done, 1 it could not be done, 2 the words were wrong."""
    try:
        return _WORK[given.what](given, _config(given))
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    except (WrongWords, WrongTime) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    except _FAILED as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gateway: the state directory cannot be used: {error}", file=sys.stderr)
        return 1


def _config(given: argparse.Namespace) -> Config:
    """The config, if it keeps a journal. Raises ConfigProblems, NoJournal."""
    config = load(given.config, given.set)
    if not config.journal.enabled and not Path(config.state_dir, "journal").is_dir():
        raise NoJournal("there is no journal, and journal.enabled is false")
    return config


def _ask(
    config: Config,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    offline: Callable[[Offline], dict[str, Any]],
    timeout_s: float = client.TIMEOUT_S,
) -> dict[str, Any]:
    """Have the running node do it; where none runs, do it here."""
    try:
        return client.ask(config, method, path, body, timeout_s)
    except client.AdminUnreachable as error:
        unreachable = error
    try:
        with journal_offline.at_rest(config) as at_rest:
            return offline(at_rest)
    except StartError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise StartError(
            f"a gateway runs and could not be asked ({unreachable}); it alone may change its journal. What was asked "
            f"for may have been done: look, and try again. ({error})"
        ) from error


def _actor(given: argparse.Namespace) -> str:
    if given.actor is not None:
        return str(given.actor)
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        raise WrongWords("this user has no name here: say who asks with --actor NAME") from None


# --- holds ----------------------------------------------------------------------------------------------------------


def hold_add(given: argparse.Namespace, config: Config) -> int:
    """Hold a time."""
    since_us, until_us = from_us(given.since), to_us(given.until)
    if since_us > until_us:
        raise WrongWords("--from is after --to: a hold ends after it begins")
    asked = {"why": given.why, "actor": _actor(given), "from_us": since_us, "to_us": until_us, "org": given.org}
    hold = _ask(config, "POST", "/v1/journal/holds", asked, lambda rest: msgspec.to_builtins(rest.holds.add(**asked)))
    print(f"hold {hold['id']} is in force: {hold_time(hold)}")
    return 0


def hold_release(given: argparse.Namespace, config: Config) -> int:
    """End a hold."""
    actor, hold_id = _actor(given), given.id
    path = f"/v1/journal/holds/{quote(hold_id, safe='')}/release"
    hold = _ask(
        config, "POST", path, {"actor": actor}, lambda rest: msgspec.to_builtins(rest.holds.release(hold_id, actor))
    )
    print(f"hold {hold['id']} is released: what it kept goes when its time is over")
    return 0


def hold_list(given: argparse.Namespace, config: Config) -> int:
    """List the holds in force."""
    try:
        told = client.ask(config, "GET", "/v1/journal/holds")["holds"]
    except client.AdminUnreachable:
        told = journal_offline.held(config)
    if given.json:
        print(json.dumps({"holds": told}, indent=2))
        return 0
    for hold in told:
        print(hold_line(hold))
    if not told:
        print("no hold is in force", file=sys.stderr)
    return 0


# --- erasing --------------------------------------------------------------------------------------------------------


def erase(given: argparse.Namespace, config: Config) -> int:
    """Forget people, once that is agreed to."""
    actor = _actor(given)
    print(_what_it_does(given, config), file=sys.stderr)
    if not given.yes and not _agreed():
        print("gateway: nothing was erased", file=sys.stderr)
        return 1
    asked = {"org": given.tenant, "user": given.user, "actor": actor}
    erased = _ask(config, "POST", "/v1/journal/erase", asked, lambda rest: rest.erasure.run(**asked)._asdict(), ERASE_S)
    print(f"{erased['keys']} keys are destroyed; {erased['usage_rows']} rows of usage name nobody now")
    if not erased["keys"] and not erased["usage_rows"]:
        print("nobody of that name was found: it must be spelled as in `org` and `user` of a key", file=sys.stderr)
    return 0


def _what_it_does(given: argparse.Namespace, config: Config) -> str:
    whom = f"user {given.user} of {given.tenant}" if given.user else f"every user of {given.tenant}"
    opened = [export.name for export in config.exports if export.personal == "opened"]
    shown = f" (exports that show them: {', '.join(opened)})" if opened else ""
    return f"""\
This makes this node forget {whom}, for good:
  - the keys of all their records so far are destroyed: user, end user, address and user agent can never be read
    again, and no prompt or answer can be matched with its digest
  - the usage tables keep the numbers, and name nobody in their place
  - that it was done is recorded; the journal verifies as before
It does not reach:
  - what has left this node: exports{shown}, logs, providers, and results of `gateway usage`
  - copies of {config.state_dir}/sealing and of the database: backups, snapshots, replicas
  - the other nodes of a fleet: do it on each
  - what these people do from now on, which is recorded under new keys"""


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise WrongWords("nobody can be asked here: say --yes if that is what you want")
    print("Type `erase` to go on: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() == "erase"


# --- status ---------------------------------------------------------------------------------------------------------


def status(given: argparse.Namespace, config: Config) -> int:
    """Show how the journal is."""
    try:
        told, live = client.ask(config, "GET", "/v1/journal"), True
    except client.AdminUnreachable:
        told, live = journal_offline.status(config), False
    print(json.dumps(told, indent=2) if given.json else "\n".join(status_lines(told)))
    if not live:
        print("no gateway answers on the admin port: read from its files", file=sys.stderr)
    for problem in told["problems"]:
        print(f"problem: {problem}", file=sys.stderr)
    return 0


_WORK: Final[dict[str, Callable[[argparse.Namespace, Config], int]]] = {
    "status": status,
    "hold_add": hold_add,
    "hold_list": hold_list,
    "hold_release": hold_release,
    "erase": erase,
}
