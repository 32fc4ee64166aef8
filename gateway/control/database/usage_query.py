"""Answering a question about usage: sums of rows, by whatever they are asked by, a page at a time.

Pages follow each other by what the last one ended with, not by counting rows, so nothing is told twice or left out
because rows were added in between; only in the order of cost may a group that grows meanwhile move.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, func, literal, literal_column, select, tuple_

from gateway.control.database import cursors
from gateway.control.database.tables import USAGE
from gateway.control.database.usage_rows import READER
from gateway.control.usage_fields import DIMENSIONS, MEASURES, TIMES
from gateway.control.usage_question import Question, Value

_COST: Final = MEASURES.index("cost_microusd")


class Answer(NamedTuple):
    """One page: the groups' values and amounts in the question's order. `total` is of all pages, on the first one."""

    rows: list[tuple[tuple[Value, ...], tuple[int, ...]]]
    total: tuple[int, ...] | None
    last: tuple[Value, ...] | None  # to ask for the next page after; None: there is none
    missing: int  # records that were dropped before they could be counted


def answer(connection: Connection, question: Question) -> Answer:
    """Answer a question from one state of the database."""
    total = None
    if question.after is None:
        total = _amounts(connection.execute(_sums(question)).one())
    rows: list[tuple[tuple[Value, ...], tuple[int, ...]]] = [((), total)] if total is not None else []
    last = None
    if question.by:
        rows, last = _page(connection, question)
    return Answer(rows, total, last, cursors.missing(connection, READER))


def _page(connection: Connection, question: Question) -> tuple[list[Any], tuple[Value, ...] | None]:
    groups = [_group(name) for name in question.by]
    dearest = [-func.sum(USAGE.c.cost_microusd)] if question.order == "cost" else []
    order = [*dearest, *groups]
    asked = _sums(question, groups).group_by(*groups).order_by(*order).limit(question.limit + 1)
    if question.after is not None:
        rest = tuple_(*order) > tuple_(*(literal(at, col.type) for at, col in zip(question.after, order, strict=True)))
        asked = asked.having(rest) if dearest else asked.where(rest)
    found = connection.execute(asked).all()
    rows = [(tuple(row[: len(groups)]), _amounts(row[len(groups) :])) for row in found[: question.limit]]
    if len(found) <= question.limit:
        return rows, None
    values, amounts = rows[-1]
    return rows, (-amounts[_COST], *values) if dearest else values


def _sums(question: Question, groups: Sequence[ColumnElement[Any]] = ()) -> Select[Any]:
    sums = [func.coalesce(func.sum(USAGE.c[name]), 0) for name in MEASURES]
    asked = select(*groups, *sums).where(USAGE.c.hour >= question.start, USAGE.c.hour < question.end)
    for name, values in question.where:
        asked = asked.where(USAGE.c[DIMENSIONS[name]].in_(values))
    return asked


def _group(name: str) -> ColumnElement[Any]:
    if name in TIMES:  # a literal: Postgres compares what is selected with what is grouped by, text by text
        return USAGE.c.hour - USAGE.c.hour % literal_column(str(TIMES[name]), BigInteger)
    return USAGE.c[DIMENSIONS[name]]


def _amounts(row: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in row)  # a sum is a Decimal on Postgres
