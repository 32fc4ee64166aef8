"""An answer about usage as people and programs read it: a JSON document, or lines for a spreadsheet.

A spreadsheet takes a cell that begins with = + - @ for a formula, and a key's name may come from anywhere: such a text
gets a leading apostrophe, which spreadsheets do not show. Numbers are written as they are.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from gateway.control.database.handle import Database
from gateway.control.usage_fields import MEASURES
from gateway.control.usage_question import Question, Value

if TYPE_CHECKING:
    from gateway.control.database.usage_query import Answer

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def ask(database: Database, question: Question) -> dict[str, Any]:
    """The answer as a document. Blocks; raises DatabaseTrouble, TooMuchAsked."""
    from gateway.control.database import usage_query  # noqa: PLC0415 - it loads SQLAlchemy, and control starts without

    with database.reading() as connection:
        return content(question, usage_query.answer(connection, question))


def content(question: Question, answer: "Answer") -> dict[str, Any]:
    """The document: the hours it is of, rows, the total of all pages (on the first), and what to ask for next."""
    return {
        "from": shown("hour", question.start),
        "to": shown("hour", question.end),
        "by": list(question.by),
        "rows": [_row(question, values) | _amounts(amounts) for values, amounts in answer.rows],
        "total": None if answer.total is None else _amounts(answer.total),
        "missing_records": answer.missing,
        "next": None if answer.last is None else question.next_after(answer.last),
    }


def lines(told: Mapping[str, Any], *, head: bool = True) -> str:
    """The rows of a document as CSV (RFC 4180)."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    if head:
        writer.writerow([*told["by"], *MEASURES])
    for row in told["rows"]:
        writer.writerow([*(_cell(row[name]) for name in told["by"]), *(row[name] for name in MEASURES)])
    return out.getvalue()


def shown(name: str, value: Value) -> str:
    """A group's value: an hour as 2026-11-21T14:00:00Z, a day as 2026-11-21, a text as it is."""
    if isinstance(value, str):
        return value
    at = datetime.fromtimestamp(value, UTC)
    return f"{at:%Y-%m-%d}" if name == "day" else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _row(question: Question, values: Iterable[Value]) -> dict[str, Any]:
    return {name: shown(name, value) for name, value in zip(question.by, values, strict=True)}


def _amounts(amounts: Iterable[int]) -> dict[str, int]:
    return dict(zip(MEASURES, amounts, strict=True))


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
