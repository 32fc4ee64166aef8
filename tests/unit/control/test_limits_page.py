"""The document: amounts in units that people count in, in the order in which limits bind, and no secret in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.control.limits_case import Case, Cases
from gateway.control.limits_page import document, modes, modes_in_words
from gateway.control.limits_question import Question
from gateway.ledger.prices import PriceList
from gateway.limiter.explain import Explained, Need, explain
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.outstanding import Outstanding
from gateway.limiter.use import use
from tests.fakes.limits import START_MS, FakeEngine, Setting, away, estimate, run

CONFIG = """\
providers:
  big: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: provider-secret-1}
models:
  large: {targets: [{provider: big, model: large-1}], price: {input: 2.5, output: 10}}
limits:
  rules:
    - {name: org-money, per: [org], usd: 10, every: month, on_store_failure: closed}
    - {name: look, per: [org], tokens: 100, every: minute, shadow: true}
"""
ANN = KeyRecord(
    b"digest-of-the-secret-of-ann-1234",
    "ann",
    org="acme",
    allowance=Allowance(tpm=1000, max_in_flight=2),
    role="analyst",
    data_class="internal",
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    return load(file)


@pytest.fixture
def case(config: Config) -> Case:
    learned = Learned(memoryview(bytearray(8 * LEARNED.words_shared)).cast("q"))
    question = Question("ann", "large", tokens=500, output_tokens=100)
    return Cases(config, PriceList(), learned, b"").of(question, ANN, revoked=False, now_ms=START_MS)


def rows_of(case: Case, engine: FakeEngine) -> list[Explained]:
    assert case.limits is not None
    return run(explain(engine, case.limits.lines(START_MS), case.need, "big"))


def told(case: Case, engine: FakeEngine, known: Outstanding | None = None, *, stored: bool = False) -> dict[str, Any]:
    stands = [(row, known) for row in rows_of(case, engine)]
    shown = document(case, stands, revoked=False, stored=stored, now_ms=START_MS)
    return dict(json.loads(json.dumps(shown)))


def test_a_request_that_fits(case: Case) -> None:
    shown = told(case, FakeEngine(), Outstanding(2_500, 0))
    assert (shown["admitted"], shown["refused"], shown["model"], shown["route"]) == (True, None, "large", "default")
    assert (shown["key"]["id"], shown["key"]["role"], shown["data_class"]) == ("ann", "analyst", "internal")
    assert shown["request"] == {
        "path": "/v1/chat/completions",
        "model": "large",
        "end_user": "",
        "provider": "",
        "input_tokens": 500,
        "output_tokens": 100,
        "cost_microusd": 2_250,
    }
    assert (shown["counted"], shown["at_ms"]) == ("here", START_MS)
    assert told(case, FakeEngine(), stored=True)["counted"] == "store"
    rows = {row["rule"]: row for row in shown["limits"]}
    assert list(rows) == ["key.tpm", "key.max_in_flight", "org-money", "look"]
    tpm = rows["key.tpm"]
    assert (tpm["capacity"], tpm["level"], tpm["debt"], tpm["asked"], tpm["unit"]) == (1000, 1000, 0, 600, "tokens")
    assert (tpm["refill"], tpm["refill_ms"], tpm["window_end_ms"]) == (1000, 60_000, None)
    assert (tpm["reserved"], tpm["estimated"], tpm["max_debt"]) == (2.5, 0, 0)
    assert tpm["bucket"] == "key.tpm|key=ann"
    money = rows["org-money"]
    assert (money["capacity"], money["asked"], money["unit"]) == (10_000_000, 2_250, "microusd")
    assert money["window_start_ms"] <= START_MS < money["window_end_ms"]
    assert (money["refill"], money["on_store_failure"], money["kind"]) == (None, "closed", "budget")
    assert rows["look"]["shadow"]
    assert not rows["look"]["refuses"]


def test_a_price_is_told_in_usd_per_million_tokens(case: Case) -> None:
    (target,) = told(case, FakeEngine())["targets"]
    assert (target["target"], target["fallback"], target["price"]["source"]) == ("big/large-1", False, "config")
    assert target["price"]["usd_per_mtok"]["input"] == 2.5
    assert target["price"]["usd_per_mtok"]["output"] == 10


def test_a_request_that_must_wait(case: Case) -> None:
    setting = Setting()
    assert case.limits is not None
    hold = run(setting.limiter.reserve(case.limits, "h", estimate(10)))
    hold.settle(use(10, 1_990))
    shown = told(case, setting.engine)
    assert not shown["admitted"]
    refused = shown["refused"]
    assert (refused["code"], refused["status"], refused["rule"]) == ("rate_limit_exceeded", 429, "key.tpm")
    assert refused["retry_after_ms"] == 96_000
    first = shown["limits"][0]
    assert (first["rule"], first["level"], first["debt"], first["wait_ms"]) == ("key.tpm", -1000, 1000, 96_000)
    assert (first["reserved"], first["estimated"]) == (None, None)


def test_a_request_that_never_fits(case: Case) -> None:
    large = case._replace(need=Need(estimate(2_000), None, {}))
    refused = told(large, FakeEngine())["refused"]
    assert (refused["code"], refused["status"], refused["retry_after_ms"]) == ("request_too_large_for_limit", 400, None)
    assert told(large, FakeEngine())["limits"][0]["max_debt"] is None


def test_what_is_refused_at_once_comes_before_what_is_left(config: Config, case: Case) -> None:
    revoked = Cases(config, PriceList(), Learned(memoryview(bytearray(8 * LEARNED.words_shared)).cast("q")), b"").of(
        case.question, ANN, revoked=True, now_ms=START_MS
    )
    refused = told(revoked, FakeEngine())["refused"]
    assert (refused["code"], refused["rule"]) == ("disabled_api_key", None)


def test_no_secret_is_told(case: Case) -> None:
    shown = json.dumps(told(case, FakeEngine()))
    assert "secret" not in shown
    assert "127.0.0.1" not in shown


def test_the_mode_of_each_limit(case: Case) -> None:
    engine = FakeEngine()
    engine.failure = away()
    assert case.limits is not None
    lines = case.limits.lines(START_MS).lines
    assert {row["rule"]: row["on_store_failure"] for row in modes(lines)} == {
        "org-money": "closed",
        "look": "shadow",
        "key.tpm": "share",
        "key.max_in_flight": "share",
    }
    words = modes_in_words(lines)
    assert words.startswith("org-money refuses (closed); look never refuses (shadow); key.tpm counts this node's part")
