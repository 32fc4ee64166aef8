"""`GET /v1/limits/explain` over real HTTP: the answer, how keys are found, and what is said where nothing is known."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gateway.config.keyfile import KeyFile, build
from gateway.config.keyindex import KeyIndex, Overlay
from gateway.config.keys import KeyRecord, new_secret
from gateway.config.limits import Allowance, Limits
from gateway.config.load import load
from gateway.control.limits_api import TRIES, LimitsApi, Sources
from gateway.ledger.prices import Book, Clause, Entry, Price, PriceList, Rates, Shelf
from gateway.limiter.engine import Amount, Reason, Standing, Unavailable
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.namekey import FILE, name_key, settle_on
from gateway.limiter.spec import rate
from gateway.limiter.table import TableEngine
from tests.fakes.limit_table import OWNER, Moment, memory, table
from tests.fakes.limits import START_MS, FakeEngine, away

CONFIG = """\
providers:
  big: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: provider-secret-1}
  tiny: {kind: openai, base_url: "http://127.0.0.1:2/v1", api_key: provider-secret-2}
models:
  large:
    targets: [{provider: tiny, model: large-1}, {provider: big, model: large-1}]
  small: {targets: [{provider: big, model: small-1}]}
limits:
  on_store_failure: closed
  rules:
    - {name: of-tiny, per: [provider], tokens: 10, every: minute, match: {provider: tiny, model: large}}
    - {name: of-big, per: [provider], tokens: 100, every: minute, match: {provider: big, model: large}}
"""
ANN = KeyRecord(b"a" * 32, "ann", org="acme", allowance=Allowance(tpm=1000, max_in_flight=3))
BEN = KeyRecord(b"b" * 32, "team/ben", org="acme")
NEW = KeyRecord(b"c" * 32, "made-later", allowance=Allowance(rpm=5))


class Answer(NamedTuple):
    status: int
    content: Any


class Place:
    """All that the API asks, to be changed at will."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        file = directory / "gateway.yaml"
        file.write_text(CONFIG)
        settle_on(Limits(), directory)
        build(directory / "keys", [ANN, BEN])
        self.config = load(file)
        self.keys: KeyIndex | None = KeyIndex(KeyFile(directory / "keys"), Overlay().put(NEW), {"team/ben"})
        self.engine: Any = FakeEngine()
        self.prices = PriceList()
        self.learned = Learned(memoryview(bytearray(8 * LEARNED.words_shared)).cast("q"))

    def sources(self) -> Sources:
        return Sources(
            lambda: self.config,
            lambda: self.keys,
            lambda: self.engine,
            lambda: self.prices,
            lambda: self.learned,
            lambda: name_key(self.directory),
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def get(place: Place, *queries: str, between: Callable[[], None] = lambda: None) -> list[Answer]:
    async def main() -> list[Answer]:
        app = web.Application()
        app.router.add_get("/v1/limits/explain", LimitsApi(place.sources(), lambda: START_MS).explain)
        answers: list[Answer] = []
        async with TestServer(app) as server, ClientSession(server.make_url("/")) as session:
            for query in queries:
                async with session.get(f"/v1/limits/explain?{query}") as response:
                    answers.append(Answer(response.status, await response.json()))
                between()
        return answers

    return asyncio.run(main())


def rules(answer: Answer) -> list[str]:
    return [row["rule"] for row in answer.content["limits"]]


def test_an_answer(place: Place) -> None:
    (answer,) = get(place, "key=ann&model=small&tokens=400")
    assert answer.status == 200
    assert answer.content["admitted"]
    assert rules(answer) == ["key.tpm", "key.max_in_flight"]
    assert [row["asked"] for row in answer.content["limits"]] == [400, 1]
    assert isinstance(place.engine, FakeEngine)
    assert {name for name, _ in place.engine.calls} == {"peek"}
    assert answer.content["counted"] == "store"  # whatever the snapshot in use says of it


def test_a_key_of_the_overlay_and_one_of_a_page_below(place: Place) -> None:
    later, other = get(place, "key=made-later&model=small", "key=team/ben&model=small")
    assert rules(later) == ["key.rpm"]
    assert (other.content["limits"], other.content["refused"]["code"]) == ([], "disabled_api_key")
    assert other.content["key"]["revoked"]


def test_every_provider_s_own_limits_are_told_and_one_is_enough(place: Place) -> None:
    both, tiny = get(place, "key=ann&model=large&tokens=50", "key=ann&model=large&tokens=50&provider=tiny")
    assert both.content["admitted"]
    told = {row["rule"]: (row["provider"], row["wait_ms"]) for row in both.content["limits"]}
    assert told["of-tiny"] == ("tiny", -1)
    assert told["of-big"] == ("big", 0)
    assert told["key.tpm"] == (None, 0)
    assert len(told) == 4
    assert not tiny.content["admitted"]
    assert tiny.content["refused"]["rule"] == "of-tiny"
    assert "of-big" not in rules(tiny)


def test_what_open_requests_have_reserved_is_told_from_the_table(place: Place) -> None:
    moment = Moment(START_MS)
    place.engine = engine = TableEngine(table(memory(), moment))
    take = Amount("key.tpm|key=ann", rate(1_000_000, 1_000_000, 60_000), 250_000)
    engine.table.reserve("h", [take], owner=OWNER, lease_ms=1_000)
    (answer,) = get(place, "key=ann&model=small&tokens=800")
    (tpm, slots) = answer.content["limits"]
    assert (tpm["level"], tpm["reserved"], tpm["wait_ms"]) == (750, 250, 3_000)
    assert slots["reserved"] == 0
    assert answer.content["refused"]["retry_after_ms"] == 3_000
    assert answer.content["counted"] == "here"


def test_of_a_store_only_slots_tell_what_is_reserved(place: Place) -> None:
    (answer,) = get(place, "key=ann&model=small")
    assert {row["rule"]: row["reserved"] for row in answer.content["limits"]} == {
        "key.tpm": None,
        "key.max_in_flight": 0,
    }


def test_an_end_user_is_a_bucket_of_its_own(place: Place, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        CONFIG + "    - {name: users, per: [key, end_user], requests: 5, every: minute}\n"
    )
    place.config = load(tmp_path / "gateway.yaml")
    one, other = get(place, "key=ann&model=small&end_user=eve", "key=ann&model=small&end_user=max")
    (first,), (second,) = (
        [row for row in answer.content["limits"] if row["rule"] == "users"] for answer in (one, other)
    )
    assert first["bucket"] != second["bucket"]
    assert "eve" not in first["bucket"]


# --- errors ---


@pytest.mark.parametrize(
    ("query", "status", "code", "said"),
    [
        ("model=small", 400, "invalid_query", "key: say whose request it is"),
        ("key=ann&model=small&tokens=x", 400, "invalid_query", "tokens: 'x' is no whole number"),
        ("key=ann", 400, "invalid_query", "model: say which model"),
        ("key=anne&model=small", 404, "key_not_found", "no key with the id 'anne'; did you mean \"ann\"?"),
        ("key=made-latter&model=small", 404, "key_not_found", 'did you mean "made-later"?'),
        ("key=team/bem&model=small", 404, "key_not_found", 'did you mean "team/ben"?'),
        ("key=nobody&model=small", 404, "key_not_found", "there is no key with the id 'nobody'"),
        ("key=ann&model=smal", 404, "model_not_found", 'did you mean "small"?'),
        ("key=ann&model=small&provider=tiny", 404, "provider_not_found", "it has big"),
    ],
)
def test_what_is_wrong_is_said(place: Place, query: str, status: int, code: str, said: str) -> None:
    (answer,) = get(place, query)
    assert (answer.status, answer.content["error"]["code"]) == (status, code)
    assert said in answer.content["error"]["message"]


def test_a_secret_for_an_id_is_not_repeated(place: Place) -> None:
    secret = new_secret()
    (answer,) = get(place, f"key={secret}&model=small")
    assert answer.status == 404
    assert "looks like a key's secret" in answer.content["error"]["message"]
    assert secret not in json.dumps(answer.content)


def test_a_store_that_is_away_is_said_with_what_each_limit_does(place: Place) -> None:
    assert isinstance(place.engine, FakeEngine)
    place.engine.failure = away()
    answer, unlimited = get(place, "key=ann&model=large", "key=team/ben&model=small")
    error = answer.content["error"]
    assert (answer.status, error["code"]) == (503, "limits_unavailable")
    assert "it is not there" in error["message"]
    assert "key.tpm refuses (closed)" in error["message"]
    assert [limit["rule"] for limit in error["limits"]] == ["key.tpm", "key.max_in_flight", "of-tiny", "of-big"]
    assert len(place.engine.calls) == 1
    assert unlimited.status == 200


def test_a_store_that_is_late_is_asked_again(place: Place) -> None:
    engine = place.engine
    assert isinstance(engine, FakeEngine)
    engine.failure = Unavailable(Reason.LATE)

    class Recovering(FakeEngine):
        def peek(self, asked: Sequence[Amount]) -> Awaitable[tuple[Standing, ...]]:
            self.failure = Unavailable(Reason.LATE) if len(self.calls) < TRIES - 1 else None
            return super().peek(asked)

    place.engine = Recovering()
    (answer,) = get(place, "key=ann&model=small")
    assert answer.status == 200
    place.engine = engine
    (answer,) = get(place, "key=ann&model=small")
    assert (answer.status, len(engine.calls)) == (503, TRIES)


def test_whose_names_cannot_be_told_is_said(place: Place, tmp_path: Path) -> None:
    (tmp_path / FILE).unlink()
    (answer,) = get(place, "key=ann&model=small")
    assert (answer.status, answer.content["error"]["code"]) == (503, "limits_unavailable")
    assert (
        "limits.key is missing or damaged: a restart of the node writes it anew" in answer.content["error"]["message"]
    )


def test_before_the_limits_are_open(place: Place) -> None:
    place.engine = None
    limited, free = get(place, "key=ann&model=small", "key=team/ben&model=small")
    assert limited.status == 503
    assert "they are not open here yet" in limited.content["error"]["message"]
    assert free.status == 200


@pytest.mark.parametrize("missing", ["config", "keys"])
def test_before_there_is_a_snapshot(place: Place, missing: str) -> None:
    setattr(place, missing, None)
    (answer,) = get(place, "key=ann&model=small")
    assert (answer.status, answer.content["error"]["code"]) == (503, "no_snapshot")


def test_a_reload_is_followed(place: Place, tmp_path: Path) -> None:
    def reload() -> None:
        (tmp_path / "gateway.yaml").write_text(CONFIG.replace("  small:", "  slight:"))
        place.config = load(tmp_path / "gateway.yaml")

    before, after = get(place, "key=ann&model=small", "key=ann&model=small", between=reload)
    assert (before.status, after.status) == (200, 404)


def test_new_prices_are_followed(place: Place) -> None:
    price = Price(Rates(*[1_000_000] * len(Rates.__struct_fields__)), source="new")
    shelf = Shelf("openai", "-", Clause("equals", "openai"), (Entry(Clause("equals", "small-1"), price),))

    def reprice() -> None:
        place.prices = PriceList(Book("new", (shelf,)))

    answers = get(place, *["key=ann&model=small"] * 2, between=reprice)
    before, after = (answer.content["targets"][0]["price"] for answer in answers)
    assert before is None
    assert after["source"] == "new"
