"""What `gateway usage` does: it asks the running node, and where none answers the database itself, and shows it.

Both give the same document (`control/usage_page.py`), and the database is not changed. The table shows the dearest
groups first, unless it is of hours or days, which keep their order; amounts are whole numbers of micro-USD throughout,
so the totals are exact.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlencode

from gateway.config.load import load
from gateway.config.problems import ConfigProblems
from gateway.config.schema import Config
from gateway.control import client
from gateway.control.database.handle import Database
from gateway.control.database.trouble import DatabaseTrouble
from gateway.control.usage_fields import DIMENSIONS, TIMES
from gateway.control.usage_page import ask, lines
from gateway.control.usage_question import MAX_LIMIT, BadQuestion, parse

DEFAULT_LIMIT: Final = 50
TIMEOUT_S: Final = 40.0  # the node answers within thirty, or says why not
_SHOWN: Final = {
    "requests": "requests",
    "refused": "refused",
    "failed": "failed",
    "input_tokens": "input",
    "output_tokens": "output",
    "cost_microusd": "cost USD",
}
_MICRO: Final = 1_000_000
_GAP: Final = "  "
_WIDEST: Final = 40

Pages = Iterator[dict[str, Any]]


def run(given: argparse.Namespace) -> int:
    """Show usage; the exit code."""
    try:
        config = load(given.config, given.set)
    except ConfigProblems as problems:
        print(problems, file=sys.stderr)
        return 1
    query = _query(given)
    try:
        parse(query, int(time.time()))
    except BadQuestion as error:
        print(f"gateway: {_in_our_words(str(error))}", file=sys.stderr)
        return 2
    try:
        _show(given, _pages(config, query, _most(given)))
    except client.AdminRefused as error:
        print(f"gateway: the admin API refused: {error}", file=sys.stderr)
        return 1
    except DatabaseTrouble as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    return 0


def _query(given: argparse.Namespace) -> list[tuple[str, str]]:
    """The question, in the words of the admin API."""
    ordered = "name" if set(given.by.split(",")) & set(TIMES) else "cost"
    query = [("from", given.since), ("to", given.until), ("by", given.by), ("order", ordered)]
    query += [(name, value) for name in DIMENSIONS for value in getattr(given, name) or ()]
    return [*query, ("limit", str(min(_most(given), MAX_LIMIT)))]


def _most(given: argparse.Namespace) -> int:
    """How many rows are wanted at most."""
    if given.limit is not None:
        return int(given.limit)
    return sys.maxsize if given.json or given.csv else DEFAULT_LIMIT


def _in_our_words(message: str) -> str:
    """What the API calls `from` is `--since` here."""
    name, rest = message.split(":", 1)
    return f"--{ {'from': 'since', 'to': 'until'}.get(name, name) }:{rest.replace('`to`', '--until')}"


# --- asking ---------------------------------------------------------------------------------------------------------


def _pages(config: Config, query: list[tuple[str, str]], most: int) -> Pages:
    """Pages until there are rows enough. Raises AdminRefused, DatabaseTrouble."""
    source = _Source(config)
    left, after = most, list[tuple[str, str]]()
    while True:
        page = source.ask([*query, *after])
        page["rows"] = page["rows"][:left]
        left -= len(page["rows"])
        yield page
        if page["next"] is None or not left:
            return
        query = [pair for pair in query if pair[0] not in ("from", "to")]  # the hours are in `after` from now on
        after = [("after", page["next"])]


class _Source:
    """The running node, or once it has not answered the database."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._database: Database | None = None

    def ask(self, query: list[tuple[str, str]]) -> dict[str, Any]:
        if self._database is None:
            try:
                return client.ask(self._config, "GET", f"/v1/usage?{urlencode(query)}", timeout_s=TIMEOUT_S)
            except client.AdminUnreachable:
                self._database = Database.of(self._config, read_only=True)
                print("no gateway answers on the admin port: read from the database itself", file=sys.stderr)
        with closing(self._database):
            return ask(self._database, parse(query, int(time.time()))) | {"unread_records": None}


# --- showing --------------------------------------------------------------------------------------------------------


def _show(given: argparse.Namespace, pages: Pages) -> None:
    told = next(pages)
    if given.csv:
        sys.stdout.write(lines(told))
    for page in pages:
        if given.csv:
            sys.stdout.write(lines(page, head=False))
        else:
            told["rows"] += page["rows"]
        told["next"] = page["next"]
    if given.json:
        print(json.dumps(told, indent=2))
    elif not given.csv:
        print(table(told), end="")
    for note in _notes(told):
        print(note, file=sys.stderr)


def _notes(told: Mapping[str, Any]) -> Iterator[str]:
    if told["next"] is not None:
        yield "there are more than these: see --limit"
    if told["unread_records"]:
        yield f"{told['unread_records']} records are written and not counted yet"
    if told["missing_records"]:
        yield f"{told['missing_records']} records were dropped from the journal before they could be counted"


def table(told: Mapping[str, Any]) -> str:
    """The document as a table, with its total below."""
    by: list[str] = told["by"]
    rows = [[*(_text(row[name]) for name in by), *_numbers(row)] for row in told["rows"]]
    total = [*(["total"] if by else []), *[""] * (len(by) - 1), *_numbers(told["total"])]
    head = [*by, *_SHOWN.values()]
    body = [*rows, total] if by else [total]
    widths = [max(len(row[at]) for row in [head, *body]) for at in range(len(head))]
    shown = [head, ["-" * width for width in widths], *body]
    title = f"usage from {told['from']} to {told['to']}\n\n"
    return title + "".join(_line(row, widths, len(by)) for row in shown)


def _line(row: Sequence[str], widths: Sequence[int], texts: int) -> str:
    cells = [f"{cell:<{widths[at]}}" if at < texts else f"{cell:>{widths[at]}}" for at, cell in enumerate(row)]
    return _GAP.join(cells).rstrip() + "\n"


def _text(value: str) -> str:
    """A name on a terminal: nothing in it may move the cursor; an empty one is shown as such."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in value) or "-"
    return shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + "…"


def _numbers(row: Mapping[str, int]) -> list[str]:
    return [_dollars(row[name]) if name == "cost_microusd" else f"{row[name]:,}" for name in _SHOWN]


def _dollars(microusd: int) -> str:
    return f"{microusd // _MICRO:,}.{microusd % _MICRO:06d}"
