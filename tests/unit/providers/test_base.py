"""Accounts: how a vendor joined with an operator's settings begins every request, and whose trouble a refusal is."""

from typing import Any

import pytest

from gateway.providers.base import Account, Vendor, Verdict, judge_status


def _credential(api_key: str) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"x-key", api_key.encode()),)


VENDOR = Vendor(
    kind="own",
    dialect="openai",
    base_url="https://api.own.test/base",
    credential=_credential,
    default_headers=((b"own-version", b"1"),),
)


def account(**options: Any) -> Account:
    given: dict[str, Any] = {"base_url": "", "api_key": "secret", "caller_credential": False, "headers": ()}
    return Account("acc", VENDOR, **{**given, **options})


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parts", "host"),
    [
        ("", ("https", "api.own.test", 443, "/base"), b"api.own.test"),
        ("http://127.0.0.1:9100/v1/", ("http", "127.0.0.1", 9100, "/v1"), b"127.0.0.1:9100"),
        ("http://x.test", ("http", "x.test", 80, ""), b"x.test"),
        ("https://[::1]:8443/a", ("https", "::1", 8443, "/a"), b"[::1]:8443"),
        ("https://[::1]", ("https", "::1", 443, ""), b"[::1]"),
    ],
)
def test_addresses(url: str, parts: tuple[str, str, int, str], host: bytes) -> None:
    one = account(base_url=url)
    assert (one.scheme, one.host, one.port, one.base_path) == parts
    assert b"\r\nhost: " + host + b"\r\n" in one.start_line("GET", "/")


def test_a_start_line_holds_all_that_is_the_accounts() -> None:
    one = account(headers=((b"x-team", b"a"),))
    assert one.start_line("POST", "/base/x?q=1") == (
        b"POST /base/x?q=1 HTTP/1.1\r\nhost: api.own.test\r\nx-key: secret\r\nx-team: a\r\n"
    )
    assert one.start_line("GET", "/x", prefix=b"http://a").startswith(b"GET http://a/x HTTP/1.1\r\n")
    assert one.overrides == {b"x-key", b"x-team"}


# --- credentials ----------------------------------------------------------------------------------------------------


def test_the_callers_credential_passes_only_where_the_account_says_so() -> None:
    ours, theirs = account(), account(caller_credential=True)
    assert ours.caller_lines(b"mine") == b""
    assert theirs.caller_lines(b"mine") == b"x-key: mine\r\n"
    assert theirs.caller_lines(b"") == b""
    assert b"secret" not in theirs.start_line("GET", "/")


def test_no_credential_is_shown() -> None:
    shown = repr(account(headers=((b"x-team", b"hidden"),)))
    assert shown == "Account('acc', own, https://api.own.test:443/base)"


# --- the vendor's own headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "headers", "lines"),
    [
        (frozenset(), (), b"own-version: 1\r\n"),
        (frozenset({b"own-version"}), (), b""),
        (frozenset(), ((b"own-version", b"2"),), b""),
    ],
)
def test_a_vendors_headers_are_sent_unless_someone_says_otherwise(
    sent: frozenset[bytes], headers: tuple[tuple[bytes, bytes], ...], lines: bytes
) -> None:
    assert account(headers=headers).default_lines(sent) == lines


# --- whose trouble --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, Verdict.CALLER),
        (405, Verdict.CALLER),
        (413, Verdict.CALLER),
        (422, Verdict.CALLER),
        (401, Verdict.OURS),
        (402, Verdict.OURS),
        (403, Verdict.OURS),
        (404, Verdict.OURS),
        (301, Verdict.OURS),
        (408, Verdict.ELSEWHERE),
        (429, Verdict.ELSEWHERE),
        (500, Verdict.ELSEWHERE),
        (529, Verdict.ELSEWHERE),
        (599, Verdict.ELSEWHERE),
    ],
)
def test_whose_trouble_a_status_is(status: int, verdict: Verdict) -> None:
    assert judge_status(status) is verdict
    assert account().judge(status, b"") is verdict


@pytest.mark.parametrize(
    ("status", "verdict"), [(401, Verdict.CALLER), (404, Verdict.CALLER), (301, Verdict.OURS), (429, Verdict.ELSEWHERE)]
)
def test_a_credential_of_the_callers_own_is_its_own_trouble(status: int, verdict: Verdict) -> None:
    assert account(caller_credential=True).judge(status, b"") is verdict
