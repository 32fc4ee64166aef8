"""`GET /v1/usage` over real HTTP: what it answers, how it goes on, and what it says of a wrong question."""

import asyncio
import csv
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway.control import usage_api, usage_page
from gateway.control.database.handle import Database
from gateway.control.database.trouble import BadValue, DatabaseTrouble, TooMuchAsked
from gateway.control.database.usage_rows import add
from gateway.control.usage_api import AT_ONCE, UsageApi
from gateway.control.usage_fields import MEASURES, Group
from gateway.control.usage_question import Question

HOUR_S = 1_763_733_600
GROUP = Group("n", "acme", "search", "k", "ann", "large", "big/large")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str
    content: Any


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database("", tmp_path)
    with made.writing() as connection:
        rows = {(HOUR_S, GROUP._replace(key_id=f"k{at}")): [at] * len(MEASURES) for at in range(5)}
        rows[HOUR_S, GROUP._replace(key_id="=cmd()", org="other")] = [7] * len(MEASURES)
        add(connection, rows)
    yield made
    made.close()


def get(database: Database, *paths: str, accept: str = "*/*") -> list[Answer]:
    """Ask one after the other; "next" asks for what the last answer said comes next."""

    async def main() -> list[Answer]:
        app = web.Application()
        app.router.add_get("/v1/usage", UsageApi(database, lambda: 3, lambda: HOUR_S + 61).get)
        answers: list[Answer] = []
        async with TestServer(app) as server, ClientSession(server.make_url("/")) as session:
            for path in paths:
                wanted = path if path != "next" else answers[-1].headers["Link"].split(">")[0][1:]
                async with session.get(wanted, headers={"Accept": accept}) as response:
                    content = await response.json() if response.content_type == "application/json" else None
                    answers.append(Answer(response.status, dict(response.headers), await response.text(), content))
        return answers

    return asyncio.run(main())


def test_an_answer(database: Database) -> None:
    (answer,) = get(database, "/v1/usage?by=org&from=1d")
    assert answer.status == 200
    content = answer.content
    assert [(row["org"], row["requests"]) for row in content["rows"]] == [("acme", 10), ("other", 7)]
    assert content["total"]["cost_microusd"] == 17
    assert (content["unread_records"], content["missing_records"], content["next"]) == (3, 0, None)
    assert (content["from"], content["to"]) == ("2025-11-20T14:00:00Z", "2025-11-21T15:00:00Z")


def test_pages_follow_each_other(database: Database) -> None:
    (first,) = get(database, "/v1/usage?by=key&limit=4")
    (second,) = get(database, f"/v1/usage?by=key&limit=4&after={first.content['next']}")
    keys = [row["key"] for answer in (first, second) for row in answer.content["rows"]]
    assert keys == ["=cmd()", "k0", "k1", "k2", "k3", "k4"]
    assert (second.content["total"], second.content["next"]) == (None, None)


@pytest.mark.parametrize(("path", "accept"), [("&format=csv", "*/*"), ("", "text/csv"), ("", "text/csv, */*;q=0.1")])
def test_lines_for_a_spreadsheet(database: Database, path: str, accept: str) -> None:
    answers = get(database, f"/v1/usage?by=key,org&limit=4{path}", "next", accept=accept)
    first, second = answers
    assert first.headers["Content-Type"].startswith("text/csv")
    rows = [list(csv.reader(io.StringIO(answer.text, newline=""))) for answer in answers]
    assert rows[0][0] == rows[1][0] == ["key", "org", *MEASURES]
    assert [row[0] for row in rows[0][1:] + rows[1][1:]] == ["'=cmd()", "k0", "k1", "k2", "k3", "k4"]
    assert 'rel="next"' in first.headers["Link"]
    assert "Link" not in second.headers


def test_json_when_it_is_asked_for_by_name(database: Database) -> None:
    (answer,) = get(database, "/v1/usage?format=json", accept="text/csv")
    assert answer.content["total"]["requests"] == 17


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("by=modle", "by: usage is not kept by 'modle'; it is by node, org, team, key, user, model, target, hour, day"),
        ("since=7d", "since: there is no such word; there are from, to, by"),
        ("limit=x", "limit: 'x' is no whole number from 1 to 10000"),
    ],
)
def test_a_wrong_question_says_what_is_right(database: Database, query: str, said: str) -> None:
    (answer,) = get(database, f"/v1/usage?{query}")
    assert answer.status == 400
    assert answer.content["error"]["code"] == "invalid_query"
    assert said in answer.content["error"]["message"]


@pytest.mark.parametrize("value", ["%00", "%ff", "%F0%9F", "x" * 5000, "'; DROP TABLE usage_hourly; --"])
def test_any_text_can_be_asked_for(database: Database, value: str) -> None:
    (answer, after) = get(database, f"/v1/usage?org={value}", "/v1/usage")
    assert answer.content["total"]["requests"] == 0
    assert after.content["total"]["requests"] == 17


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DatabaseTrouble("it is full: make room"), 503, "database_unavailable"),
        (TooMuchAsked("ask for less"), 400, "too_much_asked"),
        (BadValue("no such character"), 400, "invalid_query"),
    ],
)
def test_what_goes_wrong_is_said(
    database: Database, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(usage_api, "ask", fail)
    (answer,) = get(database, "/v1/usage")
    assert (answer.status, answer.content["error"]["code"]) == (status, code)
    assert str(error) in answer.content["error"]["message"]


def test_a_damaged_database_is_told_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"no database" * 1000)
    (answer,) = get(Database("", tmp_path), "/v1/usage")
    assert answer.status == 503
    assert "move it away" in answer.content["error"]["message"]


def test_few_questions_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most, come = threading.Lock(), 0, 0, 0
    go_on, all_come = threading.Event(), asyncio.Event()
    real = usage_page.ask

    def ask(asked: Database, question: Question) -> dict[str, Any]:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        go_on.wait(10)
        with lock:
            now -= 1
        return real(asked, question)

    def coming() -> float:
        nonlocal come
        come += 1
        if come == 3 * AT_ONCE:
            all_come.set()
        return HOUR_S

    monkeypatch.setattr(usage_api, "ask", ask)

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/v1/usage", UsageApi(database, lambda: 0, coming).get)
        async with TestServer(app) as server, ClientSession(server.make_url("/")) as session:
            calls = [asyncio.create_task(session.get("/v1/usage")) for _ in range(3 * AT_ONCE)]
            async with asyncio.timeout(10):
                await all_come.wait()
                await asyncio.to_thread(int)  # it comes after whatever else has got a thread by now
            go_on.set()
            assert {(await call).status for call in calls} == {200}

    asyncio.run(main())
    assert most == AT_ONCE
