"""`gateway audit show | grep`: records as a person reads them, from the files alone.

Exit codes: 0 done (`grep`: something was found), 1 it could not be done (nothing was found), 2 the words were wrong.
"""

import argparse
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.cli.audit_check import journal_of, wrong
from gateway.config.problems import ConfigProblems
from gateway.control.usage_question import BadQuestion, moment
from gateway.journal import layout
from gateway.journal.read import Entry
from gateway.journal.seal import Opener
from gateway.journal.search import Query
from gateway.journal.show import Following, fits_body, listed, newest, told
from gateway.journal.unfinished import unfinished
from gateway.units import US_PER_S

POLL_S: Final = 0.5
_FOLLOWED: Final = 10  # lines from before that --follow begins with, as tail -f does


class WrongWords(ValueError):
    """The words cannot be meant; the message says why."""


def show(given: argparse.Namespace) -> int:
    """`gateway audit show`."""
    return _run(given, lambda query: query, found_nothing=0)


def grep(given: argparse.Namespace) -> int:
    """`gateway audit grep`."""
    return _run(given, lambda query: replace(query, pattern=_pattern(given.pattern)), found_nothing=1)


def _run(given: argparse.Namespace, ask: Callable[[Query], Query], found_nothing: int) -> int:
    try:
        journal = _journal(given)
        opener = _opener(journal) if given.personal or given.body else None
        query = ask(_query(given, opener))
    except (WrongWords, BadQuestion, layout.NoJournal) as error:
        return wrong(error)
    except ConfigProblems as problems:
        return wrong(problems, 1)
    try:
        return 0 if _print(journal, query, given, opener if given.personal else None) else found_nothing
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return wrong(f"{error}: if retention dropped it meanwhile, ask again", 1)


def _journal(given: argparse.Namespace) -> Path:
    journal = journal_of(given)
    if not journal.is_dir() or not layout.chains(journal):
        raise layout.NoJournal(f"{journal} holds no journal: there is no chain")
    return journal


def _opener(journal: Path) -> Opener:
    """Who opens sealed parts: with the keys of the state_dir that the journal lies in."""
    sealing = layout.sealing_of(journal.parent)
    if not sealing.is_dir():
        raise WrongWords(f"{sealing} holds no sealing keys: name the state_dir of the node, a copy has none")
    return Opener(sealing)


def _query(given: argparse.Namespace, opener: Opener | None) -> Query:
    if given.json and given.personal:
        raise WrongWords("--json prints lines as they stand in the journal, sealed: leave out one of the two")
    if given.unfinished and given.follow:
        raise WrongWords(
            "--unfinished tells of workers that are gone, --follow of what comes: leave out one of the two"
        )
    now_s = int(time.time())
    return Query(
        exchange=given.exchange,
        org=given.org,
        team=given.team,
        key=given.key,
        model=given.model,
        decision=given.decision,
        kind=given.kind,
        error=given.error,
        since_us=moment(given.since, now_s, "--since") * US_PER_S if given.since else 0,
        until_us=moment(given.until, now_s, "--until") * US_PER_S if given.until else 0,
        also=fits_body(opener, _body(given.body)) if opener is not None and given.body else None,
    )


def _body(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise WrongWords(f"{file} cannot be read: {error.strerror}") from None


def _pattern(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode())
    except re.error as error:
        raise WrongWords(f"{text!r} is no regular expression: {error}") from None


def _print(journal: Path, query: Query, given: argparse.Namespace, opener: Opener | None) -> bool:
    """Print what is asked for, and go on if that is asked too; whether there was anything."""
    say = _raw if given.json else (lambda entry: told(entry, opener))
    if given.unfinished:
        ended = unfinished(journal, query)
        return _say(deque(ended, given.limit) if given.limit else ended, say)
    following = Following(journal, query) if given.follow else None
    if following is not None:
        found = _say(newest(journal, query, given.limit or _FOLLOWED, following.places), say)
    else:
        found = _say(newest(journal, query, given.limit) if given.limit else listed(journal, query), say)
    while following is not None:
        _say(following.more(), say)
        sys.stdout.flush()
        time.sleep(POLL_S)
    return found


def _say(entries: Iterable[Entry], say: Callable[[Entry], str]) -> bool:
    count = 0
    for entry in entries:
        print(say(entry))
        count += 1
    return count > 0


def _raw(entry: Entry) -> str:
    return entry.raw.decode("utf-8", "replace").removesuffix("\n")
