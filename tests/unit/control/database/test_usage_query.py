"""Sums by anything, of any hours, in pages that together are the whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.database.handle import Database
from gateway.control.database.usage_query import Answer, answer
from gateway.control.database.usage_rows import add
from gateway.control.usage_fields import DIMENSIONS, MEASURES, Group
from gateway.control.usage_question import BY, Question

DAY = 86_400
GROUPS = [
    Group("n", "acme", "search", "k1", "ann", "large", "big/large"),
    Group("n", "acme", "ads", "k2", "bob", "large", "big/large"),
    Group("m", "other", "", "k3", "", "small", "tiny/small"),
]
ROWS = [
    (hour, group, 1 + at * 10 + hour // 3600) for hour in (0, 3600, DAY, 2 * DAY) for at, group in enumerate(GROUPS)
]
REQUESTS, COST = MEASURES.index("requests"), MEASURES.index("cost_microusd")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database("", tmp_path)
    with made.writing() as connection:
        add(connection, {(hour, group): [amount] * len(MEASURES) for hour, group, amount in ROWS})
    yield made
    made.close()


def ask(database: Database, question: Question) -> Answer:
    with database.reading() as connection:
        return answer(connection, question)


def value(name: str, hour: int, group: Group) -> str | int:
    if name in DIMENSIONS:
        return str(getattr(group, DIMENSIONS[name]))
    return hour if name == "hour" else hour // DAY * DAY


def expected(question: Question) -> dict[tuple[str | int, ...], int]:
    sums: dict[tuple[str | int, ...], int] = {}
    for hour, group, amount in ROWS:
        wanted = all(value(name, hour, group) in values for name, values in question.where)
        if wanted and question.start <= hour < question.end:
            key = tuple(value(name, hour, group) for name in question.by)
            sums[key] = sums.get(key, 0) + amount
    return sums


@pytest.mark.parametrize("by", [*[(name,) for name in BY], ("org", "day"), ("hour", "key", "model"), BY])
@pytest.mark.parametrize("where", [(), (("org", ("acme",)),), (("model", ("large", "small")), ("user", ("", "bob")))])
@pytest.mark.parametrize("order", ["name", "cost"])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_are_together_the_whole(
    database: Database, by: tuple[str, ...], where: tuple[tuple[str, tuple[str, ...]], ...], order: str, limit: int
) -> None:
    question = Question(0, 2 * DAY, by, where, order, limit)
    sums = expected(question)
    first = page = ask(database, question)
    rows = list(page.rows)
    while page.last is not None:
        assert len(page.rows) == limit
        page = ask(database, question._replace(after=page.last))
        rows += page.rows
        assert page.total is None
    assert dict(rows) == {key: (n,) * len(MEASURES) for key, n in sums.items()}
    assert len(rows) == len(sums)
    keys = [values for values, _ in rows]
    costs = [amounts[COST] for _, amounts in rows]
    assert keys == sorted(keys) if order == "name" else costs == sorted(costs, reverse=True)
    assert first.total == (sum(sums.values()),) * len(MEASURES)


def test_by_nothing_it_is_one_row(database: Database) -> None:
    found = ask(database, Question(0, DAY))
    assert found.rows == [((), (sum(amount for hour, _, amount in ROWS if hour < DAY),) * len(MEASURES))]
    assert found.total == found.rows[0][1]


def test_of_nothing_it_is_nothing(database: Database) -> None:
    assert ask(database, Question(10 * DAY, 11 * DAY)).total == (0,) * len(MEASURES)
    found = ask(database, Question(10 * DAY, 11 * DAY, ("key",)))
    assert (found.rows, found.last) == ([], None)


def test_hours_are_from_and_before(database: Database) -> None:
    found = ask(database, Question(3600, DAY, ("hour",)))
    assert [values for values, _ in found.rows] == [(3600,)]


def test_a_sum_may_be_larger_than_any_row(database: Database) -> None:
    with database.writing() as connection:
        add(connection, {(5 * DAY + 3600 * at, GROUPS[0]): [2**61] * len(MEASURES) for at in range(3)})
    total = ask(database, Question(5 * DAY, 6 * DAY)).total
    assert total is not None
    assert total[REQUESTS] == 3 * 2**61
