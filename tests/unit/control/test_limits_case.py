"""What becomes of a request: as the data plane would have it, or a word that names what is not there."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.config.load import load
from gateway.control.limits_case import Case, Cases, NotThere
from gateway.control.limits_question import BadQuestion, Question
from gateway.errors import ModelNotPriced
from gateway.ledger.prices import Book, Clause, Entry, Price, PriceList, Rates, Shelf
from gateway.limiter.learned import COMPLETE, LEARNED, MIN_SAMPLES, Learned
from gateway.limiter.use import UNREAD, use

CONFIG = """\
providers:
  big: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: provider-secret-1}
  other: {kind: openai, base_url: "http://127.0.0.1:2/v1", api_key: provider-secret-2}
  mine: {kind: anthropic, base_url: "http://127.0.0.1:3", api_key: provider-secret-3}
models:
  large:
    targets: [{provider: big, model: large-1, weight: 0}, {provider: other, model: large-2}]
    fallbacks: [open/small]
    price: {input: 2.5, output: 10}
    output_prior: 300
  "open/*": {targets: [{provider: other, model: "*"}]}
  letters: {targets: [{provider: mine, model: letters-1}]}
limits:
  rules:
    - {name: org-money, per: [org], usd: 10, every: month}
    - {name: at-big, per: [provider], tokens: 1000, every: minute, match: {provider: big, org: acme}}
    - {name: of-users, per: [key, end_user], requests: 5, every: minute, match: {key: crowd}}
    - {name: by-role, per: [role, model], requests: 5, every: minute}
    - {name: by-class, per: [data_class], requests: 5, every: minute}
teams: {search: {rpm: 60}}
routes:
  - {name: answers, match: {path: /v1/responses}}
  - {name: secrets, match: {path: /passthrough/other/*}, data_class: secret}
"""
ANN = KeyRecord(b"a" * 32, "ann", org="acme", team="search", allowance=Allowance(tpm=1000))
CLASSED = KeyRecord(b"c" * 32, "classed", role="analyst", data_class="internal")
FREE = KeyRecord(b"f" * 32, "free")
RATES = Rates(2, 4, 1, 2, 4, 2, 4)
BOOK = Book(
    "prices of the tests",
    (
        Shelf(
            "openai",
            "-",
            Clause("equals", "openai"),
            (Entry(Clause("equals", "small"), Price(RATES, source="shelf", context_tokens=5_000)),),
        ),
    ),
)
NOW_MS = 1_800_000_000_000


@pytest.fixture
def learned() -> Learned:
    return Learned(memoryview(bytearray(8 * LEARNED.words_shared)).cast("q"))


@pytest.fixture
def cases(tmp_path: Path, learned: Learned) -> Cases:
    file = tmp_path / "gateway.yaml"
    file.write_text(CONFIG)
    return Cases(load(file), PriceList(BOOK), learned, b"")


def of(cases: Cases, key: KeyRecord = ANN, *, revoked: bool = False, **words: Any) -> Case:
    return cases.of(Question(key.id, **{"model": "large", **words}), key, revoked=revoked, now_ms=NOW_MS)


def rules(case: Case, provider: str = "") -> list[str]:
    assert case.limits is not None
    return [line.rule for line in case.limits.lines(NOW_MS, "", provider).lines]


def test_entry_route_targets_and_limits(cases: Cases) -> None:
    case = of(cases, path="/v1/responses")
    assert (case.entry, case.route) == ("large", "answers")
    assert [(aim.provider, aim.model, aim.weight, aim.fallback) for aim in case.targets] == [
        ("other", "large-2", 1, False),
        ("big", "large-1", 0, False),
        ("other", "small", 1, True),
    ]
    assert case.providers == ("other", "big")
    assert rules(case) == ["org-money", "key.tpm", "team.rpm"]
    assert rules(case, "big") == ["org-money", "key.tpm", "team.rpm", "at-big"]
    assert case.refused is None


def test_prices_are_those_of_each_target(cases: Cases) -> None:
    own, _, fallback = (aim.price for aim in of(cases).targets)
    assert own is not None
    assert (own.source, own.rates.input, own.rates.output) == ("config", 2_500_000, 10_000_000)
    assert fallback is not None
    assert (fallback.source, fallback.rates) == ("shelf", RATES)


def test_a_pattern_s_star_is_the_target_s_model(cases: Cases) -> None:
    case = of(cases, model="open/small")
    assert case.entry == "open/*"
    assert [(aim.model, aim.price is not None) for aim in case.targets] == [("small", True)]


def test_a_role_and_a_class_of_data_are_limited_as_the_data_plane_has_them(cases: Cases) -> None:
    case = of(cases, CLASSED)
    assert (case.data_class, rules(case)) == ("internal", ["by-role", "by-class"])
    raw = of(cases, CLASSED, model="", path="/passthrough/other/x")
    assert (raw.route, raw.data_class) == ("secrets", "secret")
    assert raw.limits is not None
    names = [line.bucket for line in raw.limits.lines(NOW_MS).lines]
    assert names == ["by-role|role=analyst|model=", "by-class|data_class=secret"]
    assert of(cases).data_class == ""


# --- what is reserved ---


def test_tokens_that_are_said_are_all_it_takes(cases: Cases) -> None:
    case = of(cases, tokens=400)
    assert case.need.estimate.full == use(400, 0, 1_000)
    assert case.need.estimate.prompt == case.need.estimate.full
    assert case.need.at_most is None  # how long an answer may be is not known of every target


def test_an_answer_s_length_that_is_said_is_the_longest(cases: Cases) -> None:
    case = of(cases, tokens=400, output_tokens=100)
    assert case.need.estimate.full == case.need.at_most == use(400, 100, 2_000)
    assert case.need.estimate.prompt == use(400, 0, 1_000)


def test_nothing_said_is_what_the_gateway_would_reserve(cases: Cases, learned: Learned) -> None:
    assert of(cases).need.estimate.full == use(0, 300, 3_000)
    for _ in range(MIN_SAMPLES):
        learned.saw_answer(COMPLETE, "acme", "large", 7)
    assert of(cases).need.estimate.full.output_tokens == 7


def test_a_model_s_context_bounds_its_answer(cases: Cases) -> None:
    case = of(cases, model="open/small", tokens=1_000)
    assert case.need.at_most == use(1_000, 4_000, 1)
    case = of(cases, model="open/small", tokens=1_000, output_tokens=10**9)
    assert case.need.at_most == case.need.estimate.full == use(1_000, 5_000, 1)


def test_the_config_says_how_large_a_context_is(tmp_path: Path, learned: Learned) -> None:
    file = tmp_path / "sized.yaml"
    sized = CONFIG.replace("output_prior: 300", "output_prior: 300\n    context_tokens: 2000")
    file.write_text(sized.replace('model: "*"}]', 'model: "*"}], context_tokens: 3000'))
    cases = Cases(load(file), PriceList(BOOK), learned, b"")
    case = of(cases, tokens=400, output_tokens=10**9)
    assert [aim.context_tokens for aim in case.targets] == [2_000, 2_000, 3_000]
    assert [aim.price.context_tokens for aim in case.targets if aim.price] == [2_000, 2_000, 3_000]
    assert case.need.estimate.full.output_tokens == 3_000
    unpriced = of(cases, FREE, model="open/unheard", tokens=400, output_tokens=10**9)
    assert unpriced.need.estimate.full == use(400, 3_000, 0)


# --- what is refused at once ---


@pytest.mark.parametrize(
    ("key", "words", "code", "said"),
    [
        (ANN, {"revoked": True}, "disabled_api_key", "key 'ann' was revoked"),
        (KeyRecord(b"d" * 32, "dis", disabled=True), {}, "disabled_api_key", "key 'dis' is disabled"),
        (KeyRecord(b"e" * 32, "exp", expires_ms=NOW_MS), {}, "expired_api_key", "key 'exp' has expired"),
        (
            KeyRecord(b"l" * 32, "lim", models=("open/*", "letters")),
            {},
            "model_not_allowed",
            "key 'lim' may not use model 'large': its `models` are open/*, letters",
        ),
        (
            KeyRecord(b"l" * 32, "many", models=tuple(f"m{number}" for number in range(12))),
            {},
            "model_not_allowed",
            "m8, m9 and 2 more",
        ),
        (ANN, {"model": "letters"}, "invalid_request", "'letters' is not served on /v1/chat/completions"),
        (ANN, {"model": "open/unheard"}, "model_not_priced", "'open/unheard' has no price, and the limit org-money"),
        (
            KeyRecord(b"l" * 32, "lim", models=("large",)),
            {"path": "/passthrough/big/x", "model": ""},
            "model_not_allowed",
            "passthrough",
        ),
    ],
)
def test_what_is_refused_whatever_is_left(
    cases: Cases, key: KeyRecord, words: dict[str, Any], code: str, said: str
) -> None:
    refused = of(cases, key, **words).refused
    assert refused is not None
    assert refused.code == code
    assert said in refused.message


def test_without_a_money_limit_a_model_needs_no_price(cases: Cases) -> None:
    case = of(cases, FREE, model="open/unheard")
    assert case.refused is None
    assert [aim.price for aim in case.targets] == [None]


def test_nothing_limits_a_key_without_limits(cases: Cases) -> None:
    assert of(cases, FREE, model="letters", path="/v1/messages").limits is None


# --- paths without a model ---


def test_a_passthrough_path_names_its_provider_and_no_model(cases: Cases) -> None:
    case = of(cases, model="", path="/passthrough/big/v1/things")
    assert (case.entry, case.need.estimate, case.providers) == ("", UNREAD, ("big",))
    assert rules(case, "big") == ["org-money", "key.tpm", "team.rpm", "at-big"]


def test_what_a_passthrough_request_costs_is_not_known(cases: Cases, tmp_path: Path, learned: Learned) -> None:
    refused = of(cases, model="", path="/passthrough/big/v1/things").refused
    assert isinstance(refused, ModelNotPriced)
    assert "org-money counts money" in refused.message
    assert of(cases, FREE, model="", path="/passthrough/big/v1/things").refused is None
    file = tmp_path / "zero.yaml"
    file.write_text(CONFIG.replace("limits:", "limits:\n  unpriced: zero"))
    free = Cases(load(file), PriceList(BOOK), learned, b"")
    assert of(free, model="", path="/passthrough/big/v1/things").refused is None


# --- what is not there ---


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ({"model": "larg"}, "model_not_found", "no entry of `models` answers to 'larg'; did you mean \"large\"?"),
        ({"provider": "mine"}, "provider_not_found", "model 'large' has no target at 'mine'; it has other, big"),
        ({"model": "", "path": "/passthrough/bigg/x"}, "provider_not_found", '; did you mean "big"?'),
    ],
)
def test_what_is_not_there_is_named(cases: Cases, words: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(NotThere) as error:
        of(cases, **words)
    assert error.value.code == code
    assert said in str(error.value)


def test_a_provider_beside_a_path_that_names_another(cases: Cases) -> None:
    with pytest.raises(BadQuestion, match="provider: the path is of 'big'"):
        of(cases, model="", path="/passthrough/big/x", provider="other")


def test_one_provider_s_targets(cases: Cases) -> None:
    assert [aim.model for aim in of(cases, provider="other").targets] == ["large-2", "small"]
