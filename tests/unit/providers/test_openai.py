"""OpenAI, and who speaks like it."""

from gateway.providers.base import Account, Verdict
from gateway.providers.openai import OPENAI


def test_an_account() -> None:
    account = Account("openai", OPENAI, base_url="", api_key="sk-1", caller_credential=False, headers=())
    assert account.start_line("POST", account.base_path + "/chat/completions") == (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\nauthorization: Bearer sk-1\r\n"
    )
    assert (account.dialect, account.scheme, account.port) == ("openai", "https", 443)
    assert account.default_lines(frozenset()) == b""


def test_a_server_that_speaks_like_it_keeps_its_own_path() -> None:
    for url, path in (("http://127.0.0.1:11434/v1", "/v1"), ("http://127.0.0.1/openai/v1/", "/openai/v1")):
        account = Account("local", OPENAI, base_url=url, api_key="", caller_credential=False, headers=())
        assert account.base_path == path


def test_refusals() -> None:
    assert OPENAI.judge(401, b"") is Verdict.OURS
    assert OPENAI.judge(429, b'{"error":{"code":"insufficient_quota"}}') is Verdict.ELSEWHERE
    assert OPENAI.judge(400, b"") is Verdict.CALLER
