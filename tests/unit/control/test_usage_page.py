"""The same answer as a document and as lines for a spreadsheet."""

import csv
import io

import pytest

from gateway.control.database.usage_query import Answer
from gateway.control.usage_fields import MEASURES
from gateway.control.usage_page import content, lines, shown
from gateway.control.usage_question import Question, Value

HOUR_S = 1_763_733_600
AMOUNTS = tuple(range(len(MEASURES)))


def told(by: tuple[str, ...], *values: Value, total: bool = True, last: tuple[Value, ...] | None = None) -> object:
    question = Question(HOUR_S, HOUR_S + 3600, by)
    return content(question, Answer([(values, AMOUNTS)], AMOUNTS if total else None, last, 3))


def test_a_document() -> None:
    assert told(("key", "hour"), "k", HOUR_S) == {
        "from": "2025-11-21T14:00:00Z",
        "to": "2025-11-21T15:00:00Z",
        "by": ["key", "hour"],
        "rows": [{"key": "k", "hour": "2025-11-21T14:00:00Z", **dict(zip(MEASURES, AMOUNTS, strict=True))}],
        "total": dict(zip(MEASURES, AMOUNTS, strict=True)),
        "missing_records": 3,
        "next": None,
    }


def test_later_pages_have_no_total_and_name_the_next() -> None:
    page = told(("key",), "k", total=False, last=("k",))
    assert isinstance(page, dict)
    assert page["total"] is None
    assert page["next"] == Question(HOUR_S, HOUR_S + 3600, ("key",)).next_after(["k"])


def test_times_as_people_write_them() -> None:
    assert shown("day", 1_763_683_200) == "2025-11-21"
    assert shown("key", "1763683200") == "1763683200"


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("plain", "plain"),
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ('a,"b"\nc', 'a,"b"\nc'),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(name: str, cell: str) -> None:
    page = told(("key",), name)
    assert isinstance(page, dict)
    head, row = csv.reader(io.StringIO(lines(page), newline=""))
    assert head == ["key", *MEASURES]
    assert row == [cell, *map(str, AMOUNTS)]


def test_the_head_stands_once() -> None:
    page = told((), total=True)
    assert isinstance(page, dict)
    assert lines(page, head=False) == ",".join(map(str, AMOUNTS)) + "\r\n"
