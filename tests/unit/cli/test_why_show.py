"""`gateway why` as people see it: a page that says what binds, and a code that scripts can wait by."""

import argparse
import asyncio
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from gateway.cli import why, why_show
from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.control import client
from gateway.control.client import AdminRefused, AdminUnreachable
from gateway.control.limits_case import Cases
from gateway.control.limits_page import document
from gateway.control.limits_question import parse
from gateway.ledger.prices import PriceList
from gateway.limiter.explain import explain
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.outstanding import Outstanding
from gateway.limiter.use import use
from tests.fakes.limits import START_MS, Setting, estimate

CONFIG = """\
admin: {{port: {port}, token: 0123456789abcdef}}
providers:
  big: {{kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: provider-secret-1}}
models:
  large: {{targets: [{{provider: big, model: large-1}}], price: {{input: 2.5, output: 10}}, fallbacks: [small]}}
  small: {{targets: [{{provider: big, model: small-1}}, {{provider: big, model: small-2, weight: 0}}]}}
limits:
  unpriced: zero
  rules:
    - {{name: org-money, per: [org], usd: 10, every: month}}
    - {{name: look, per: [org], requests: 100, every: second, shadow: true}}
    - {{name: at-big, per: [provider], tokens: 9000, every: hour, match: {{provider: big}}}}
"""
KEYS = {
    "ann": KeyRecord(
        b"a" * 32,
        "ann",
        org="acme",
        team="search",
        user="ann@example.org",
        allowance=Allowance(tpm=1000, max_in_flight=2),
    ),
    "free": KeyRecord(b"f" * 32, "fr\x1b[2Jee"),
    "eve": KeyRecord(b"e" * 32, "eve", org="acme", role="analyst", data_class="internal"),
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG.format(port=port))
    return path


class Node:
    """A node's answers, made as it makes them."""

    def __init__(self) -> None:
        self.setting = Setting()
        self.asked: list[str] = []
        self.known: Outstanding | None = Outstanding(0, 0)
        self.without_limits = False

    def answer(self, config: Config, method: str, path: str, *, timeout_s: float) -> dict[str, Any]:
        assert (method, path.partition("?")[0], timeout_s) == ("GET", "/v1/limits/explain", why_show.TIMEOUT_S)
        self.asked.append(path.partition("?")[2])
        question = parse(parse_qsl(self.asked[-1]))
        learned = Learned(memoryview(bytearray(8 * LEARNED.words_shared)).cast("q"))
        case = Cases(config, PriceList(), learned, b"").of(question, KEYS[question.key], revoked=False, now_ms=START_MS)
        lines = None if case.limits is None or self.without_limits else case.limits.lines(START_MS, "", "big")
        rows = [] if lines is None else asyncio.run(explain(self.setting.engine, lines, case.need, "big"))
        told = document(case, [(row, self.known) for row in rows], revoked=False, stored=False, now_ms=START_MS)
        plain: dict[str, Any] = json.loads(json.dumps(told))
        return plain


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(client, "ask", made.answer)
    return made


def run(config: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    why.add_why(parser.add_subparsers())
    given = parser.parse_args(["why", "--config", str(config), *words])
    return int(given.run(given))


@pytest.mark.usefixtures("node")
def test_a_page(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--key", "ann", "--model", "large", "--tokens", "500", "--output-tokens", "100") == 0
    assert capsys.readouterr().out.splitlines() == [
        "key      ann (org acme, team search, user ann@example.org)",
        "model    large, entry large; path /v1/chat/completions; route default",
        "request  500 tokens, and 100 of its answer, 0.00225 USD",
        "targets  big/large-1: 2.5 USD in, 10 USD out per million tokens (config)",
        "         big/small-1 (fallback): unpriced",
        "         big/small-2 (fallback, weight 0): unpriced",
        "",
        "admitted: such a request would pass its limits now",
        "",
        "limits, what binds first:",
        "  ✓ key.tpm: 1000 tokens a minute for key ann: 1000 of 1000 left; 600 fits now",
        "      bucket key.tpm|key=ann; refills 1000 every minute",
        "  ✓ key.max_in_flight: 2 requests in flight for key ann: 2 of 2 left; 1 fits now",
        "      bucket key.max_in_flight|key=ann; 0 in flight",
        "  ✓ at-big: 9000 tokens an hour for provider big: 9000 of 9000 left; 600 fits now",
        "      bucket at-big|provider=big; of attempts at big; refills 9000 every hour",
        "  ✓ org-money: 10 USD a month for org acme: 10 USD of 10 USD left; 0.00225 USD fits now",
        "      bucket org-money|org=acme; from 2027-01-01T00:00:00Z to 2027-02-01T00:00:00Z",
        "  ~ look: 100 requests a second for org acme: 100 of 100 left; 1 fits now (shadow: never refuses)",
        "      bucket look|org=acme; refills 100 every second",
    ]


def test_what_is_reserved_and_what_debt_there_may_be(
    config: Path, node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.known = Outstanding(5_000, 2_000)
    run(config, "--key", "ann", "--model", "large", "--tokens", "500", "--output-tokens", "900")
    out = capsys.readouterr().out
    assert "0.005 USD reserved by requests in flight; 0.002 USD charged as estimated, to be settled from" in out
    assert "refills 1000 every minute; 5 reserved by requests in flight; 2 charged as estimated" in out
    assert "from the journal; at most 800 of debt\n" in out  # two in flight, each 400 above the limit


def test_a_refusal_stands_first_and_is_the_code(config: Path, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    limits = (
        Cases(load(config), PriceList(), Learned(memoryview(bytearray(8 * LEARNED.words_shared)).cast("q")), b"")
        .of(parse([("key", "ann"), ("model", "large")]), KEYS["ann"], revoked=False, now_ms=START_MS)
        .limits
    )
    assert limits is not None
    hold = asyncio.run(node.setting.limiter.reserve(limits, "h", estimate(1), providers=["big"]))
    hold.settle(use(1, 1_999))
    node.known = None
    assert run(config, "--key", "ann", "--model", "large", "--tokens", "1000") == 1
    out = capsys.readouterr().out
    assert "\nrefused: 429 rate_limit_exceeded: the limit key.tpm (1000 tokens a minute for key ann) is used up" in out
    first = out.partition("limits, what binds first:\n")[2].splitlines()
    assert first[0] == ("  ✗ key.tpm: 1000 tokens a minute for key ann: 1000 in debt, of 1000; 1000 fits in 2 min 0 s")
    assert first[1] == "      bucket key.tpm|key=ann; refills 1000 every minute; how far into debt is not known"


def test_a_key_that_nothing_limits(config: Path, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.without_limits = True
    assert run(config, "--key", "free", "--model", "large") == 0
    out = capsys.readouterr().out
    assert out.endswith("no limits apply to key fr\N{REPLACEMENT CHARACTER}[2Jee there\n")
    assert "\x1b" not in out


def test_a_path_without_a_model(config: Path, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--key", "ann", "--path", "/passthrough/big/x") == 0
    assert "model    none; path /passthrough/big/x; route default\n" in capsys.readouterr().out
    assert node.asked == ["key=ann&path=%2Fpassthrough%2Fbig%2Fx"]


def test_a_role_and_a_class_of_data_are_shown(config: Path, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--key", "eve", "--model", "large") == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "key      eve (org acme, role analyst)",
        "model    large, entry large; path /v1/chat/completions; route default; data class internal",
    ]
    assert node.asked == ["key=eve&model=large"]


def test_json_is_the_document(config: Path, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--key", "ann", "--model", "large", "--tokens", "2000", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["admitted"], told["refused"]["code"]) == (False, "request_too_large_for_limit")
    assert node.asked == ["key=ann&model=large&tokens=2000"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--key", "ann"], "gateway: --model: say which model is asked for"),
        (["--key", "ann", "--model", "m", "--output-tokens", "x"], "gateway: --output-tokens: 'x' is no whole number"),
        (["--key", "", "--model", "m"], "gateway: --key: say whose request it is"),
    ],
)
def test_wrong_words_are_not_asked(
    config: Path, node: Node, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(config, *words) == 2
    assert said in capsys.readouterr().err
    assert node.asked == []


def test_a_node_that_refuses_is_quoted(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AdminRefused("there is no key with the id 'anne'; did you mean \"ann\"?")

    monkeypatch.setattr(client, "ask", refuse)
    assert run(config, "--key", "anne", "--model", "large") == 1
    assert capsys.readouterr().err == "gateway: there is no key with the id 'anne'; did you mean \"ann\"?\n"


def test_without_a_node_nothing_is_known(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "--key", "ann", "--model", "large") == 1
    assert "gateway: only a running node knows what is left of its limits: no admin API" in capsys.readouterr().err


def test_a_config_with_a_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("modles: {}\n")
    assert run(config, "--key", "ann", "--model", "large") == 1
    assert "modles" in capsys.readouterr().err


def test_an_unreachable_node_is_told_apart(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: object, **__: object) -> None:
        raise AdminUnreachable("the config has no admin port")

    monkeypatch.setattr(client, "ask", leave)
    assert run(config, "--key", "ann", "--model", "large") == 1
    assert "the config has no admin port" in capsys.readouterr().err
