"""docs/limits.md and docs/limits-store.md say what the code does: examples load, and numbers and names are its own."""

import re
from pathlib import Path

import pytest

from gateway import errors
from gateway.config.limitcheck import MAX_AT_ONCE
from gateway.config.limits import RESOURCES, SCOPES, Limits, Rule, RuleMatch
from gateway.config.load import read_text
from gateway.config.schema import Config
from gateway.config.storeurl import read
from gateway.control import limits_keeper, pricing
from gateway.control.budget_events import ACTION
from gateway.dialects.anthropic import media as anthropic
from gateway.dialects.openai import media as openai
from gateway.limiter import breaker, deny, estimate, learned, limiter, sentinel, store, tokens
from gateway.telemetry.families import FAMILIES

DOCS = Path(__file__).parents[3] / "docs"
LIMITS = (DOCS / "limits.md").read_text()
STORE = (DOCS / "limits-store.md").read_text()
PAGES = {"limits.md": LIMITS, "limits-store.md": STORE}
EXAMPLES = [
    (name, example)
    for name, text in PAGES.items()
    for example in re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
]
ENV = {
    "OPENAI_API_KEY": "k1",
    "DEMO_KEY": "gw-demo",
    "LIMIT_STORE": "redis://store.internal:6379/0",
    "LIMIT_SECRET": "0123456789abcdef",
}
SPANS = ("second", "minute", "hour", "day", "week", "month")


def flowing(text: str) -> str:
    """Without line ends, which stand anywhere."""
    return " ".join(text.split())


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_example_loads(name: str, example: str, tmp_path: Path) -> None:
    for file in re.findall(r"[\w./-]+\.pem", example):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("a certificate")
    assert read_text(example, name, tmp_path, (), ENV).config != Config()


def test_there_are_examples_on_both_pages() -> None:
    assert {name for name, _ in EXAMPLES} == set(PAGES)
    assert len(EXAMPLES) >= 8


def test_every_resource_scope_and_time_is_told() -> None:
    for word in (*RESOURCES, *SCOPES, *RuleMatch.__struct_fields__, *SPANS):
        assert f"`{word}`" in LIMITS, word
    for mode in ("closed", "open", "share"):
        assert f"`{mode}`" in LIMITS
        assert f"`{mode}`" in STORE


def test_settings_that_are_told_exist() -> None:
    told = set(re.findall(r"`limits\.([a-z_]+)`", LIMITS + STORE))
    assert told
    assert told <= set(Limits.__struct_fields__)
    assert {"capacity", "alerts", "shadow", "budget", "time_zone"} <= set(Rule.__struct_fields__)


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "request_too_large_for_limit", "model_not_priced"])
def test_refusals_are_told_with_their_status(code: str) -> None:
    (error,) = [one for one in vars(errors).values() if getattr(one, "code", "") == code]
    assert f"| `{code}` | {error.status} |" in LIMITS


def test_metrics_that_are_told_exist() -> None:
    known = {family.name for family in FAMILIES}
    told = set(re.findall(r"gateway_[a-z_]+", LIMITS + STORE))
    assert told
    assert told <= known


@pytest.mark.parametrize(
    "said",
    [
        f"At most {MAX_AT_ONCE} limits",
        f"at most {tokens.MAX_INLINE_BYTES // 1024} KiB",
        f"{learned.PRIOR_RATIO:g} until known, always within {learned.LEAST_RATIO:g} and {learned.MOST_RATIO:g}",
        f"{estimate.MESSAGE_TOKENS} tokens each, and {estimate.ANSWER_TOKENS} for the answer",
        f"once {learned.MIN_SAMPLES} are known; else the model's `output_prior` ({estimate.OUTPUT_PRIOR:,})",
        f"a token for {openai.AUDIO_MS_PER_TOKEN} ms",
        f"(a URL, a file id), {openai.PAGES};",
        f"up to {deny.REQUESTS_CAP_MS // 1000} s, others up to {deny.CAP_MS} ms",
        f"record in the journal (`{ACTION}`)",
    ],
)
def test_numbers_of_limits_are_those_of_the_code(said: str) -> None:
    assert said in flowing(LIMITS)


def test_numbers_that_are_told_in_words() -> None:
    assert anthropic.PAGES == openai.PAGES
    assert limiter.LEASE_MS < 10_000
    assert "at most ten seconds after" in flowing(LIMITS)
    assert pricing.LOOK_S == 600
    assert "noticed within ten minutes" in flowing(LIMITS)
    assert sentinel.ANSWER_S == 0.5
    assert "at most half a second" in flowing(STORE)
    assert breaker.STRIKES == 3
    assert "three turns in a row" in flowing(STORE)


@pytest.mark.parametrize(
    "said",
    [
        f"{store.DEADLINE_S * 1000:g} ms to be answered",
        f"rests {breaker.REST_S:g} s at first and up to {breaker.MAX_REST_S:g} s",
        f"({store.SPREAD_REST_S:g} s with sentinels or several nodes)",
        f"({limiter.MAX_OWED:,} settlements a worker)",
        f"up to {limits_keeper.MARKED_US // 3_600_000_000} hours",
        f"within {limiter.LEASE_MS // 3000} s",
    ],
)
def test_numbers_of_the_store_are_those_of_the_code(said: str) -> None:
    assert said in flowing(STORE)


def test_every_form_of_url_that_is_told_can_be_read() -> None:
    urls = re.findall(r"(?:redis|sentinel)s?://[^`\"\s…]+", STORE)
    read_urls = [read(url) for url in urls]
    assert {bool(said.service) for said in read_urls} == {said.tls for said in read_urls} == {True, False}
    assert any(len(said.places) == 3 for said in read_urls)
