"""Anthropic: both spellings of its address, its version header, and an empty account."""

import pytest

from gateway.providers.anthropic import ANTHROPIC
from gateway.providers.base import Account, Verdict


def account(base_url: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()) -> Account:
    return Account("claude", ANTHROPIC, base_url=base_url, api_key="sk-1", caller_credential=False, headers=headers)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("", "/v1"),
        ("https://api.anthropic.com", "/v1"),
        ("https://api.anthropic.com/v1", "/v1"),
        ("https://api.anthropic.com/v1/", "/v1"),
        ("http://127.0.0.1:9/proxy", "/proxy/v1"),
    ],
)
def test_both_spellings_of_an_address_are_understood(url: str, path: str) -> None:
    assert account(url).base_path == path


def test_an_account() -> None:
    one = account()
    assert one.start_line("POST", "/v1/messages") == (
        b"POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\nx-api-key: sk-1\r\n"
    )
    assert one.dialect == "anthropic"
    assert one.vendor.request_id_header == b"request-id"


def test_the_version_is_said_unless_the_caller_or_the_operator_does() -> None:
    assert account().default_lines(frozenset()) == b"anthropic-version: 2023-06-01\r\n"
    assert account().default_lines(frozenset({b"anthropic-version"})) == b""
    assert account(headers=((b"anthropic-version", b"2099-01-01"),)).default_lines(frozenset()) == b""


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (400, b'{"error":{"message":"Your credit balance is too low to access the API"}}', Verdict.OURS),
        (400, b'{"error":{"message":"messages: at least one message is required"}}', Verdict.CALLER),
        (413, b"credit balance is too low", Verdict.CALLER),
        (529, b"", Verdict.ELSEWHERE),
        (401, b"", Verdict.OURS),
    ],
)
def test_refusals(status: int, body: bytes, verdict: Verdict) -> None:
    assert ANTHROPIC.judge(status, body) is verdict
