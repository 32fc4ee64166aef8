"""Addresses, files and times of one struct."""

from pathlib import Path

import pytest

from gateway.config.localcheck import (
    check_anchor,
    check_database,
    check_files,
    check_provider,
    check_timeouts,
    check_webhook,
)
from gateway.config.schema import Anchor, Database, Provider, Timeouts, Tls, Webhook
from gateway.config.secrets import Secret

KEY = Secret("x")


def found(provider: Provider) -> list[str]:
    return [f"{path[-1]}: {message}" for path, message, _ in check_provider(("p",), provider)]


GOOD = [
    "",
    "https://api.example.com/v1",
    "https://api.example.com:8443",
    "http://127.0.0.1:9100/v1",
    "http://localhost:1/v1",
    "http://[::1]:9100",
    "http://127.8.8.8",
    "http://sim.localhost:9100",
]


@pytest.mark.parametrize("url", GOOD)
def test_addresses_that_keep_a_key_secret(url: str) -> None:
    assert found(Provider(kind="openai", api_key=KEY, base_url=url)) == []


BAD = [
    ("http://api.example.com/v1", "use https://"),
    ("http://10.0.0.7:8000/v1", "use https://"),
    ("http://127.0.0.1.example.com", "use https://"),
    ("http://localhost.example.com", "use https://"),
    ("ftp://x/y", "must be an address"),
    ("api.example.com/v1", "must be an address"),
    ("https://", "must be an address"),
    ("https://x:99999/", "is not a URL"),
    ("https://[::1/", "is not a URL"),
    ("https://u:p@x/", "must end with its path"),
    ("https://x/?key=1", "must end with its path"),
    ("https://x/?", "must end with its path"),
    ("https://x/#a", "must end with its path"),
    ("https://ex ample.com", "must be an address"),
]


@pytest.mark.parametrize(("url", "said"), BAD)
def test_addresses_that_do_not(url: str, said: str) -> None:
    (complaint,) = found(Provider(kind="openai", api_key=KEY, base_url=url))
    assert said in complaint


def test_plain_http_can_be_allowed_where_the_network_is_trusted() -> None:
    assert found(Provider(kind="openai", api_key=KEY, base_url="http://10.0.0.7/v1", allow_plain_http=True)) == []


def test_a_password_in_an_address_is_not_shown() -> None:
    provider = Provider(kind="openai", api_key=KEY, base_url="https://u:hidden@x/", proxy="ftp://u:hidden@x")
    assert "hidden" not in str(list(check_provider(("p",), provider)))


def test_a_provider_has_its_own_key_or_takes_the_callers_never_both() -> None:
    assert "api_key: is missing" in found(Provider(kind="openai"))[0]
    assert "would never be used" in found(Provider(kind="openai", api_key=KEY, credential="caller"))[0]
    assert found(Provider(kind="openai", credential="caller")) == []


def test_a_client_certificate_is_two_files() -> None:
    assert found(Provider(kind="openai", api_key=KEY, client_cert="/c")) == [
        "client_cert: needs `client_key` beside it"
    ]
    assert found(Provider(kind="openai", api_key=KEY, client_key="/k")) == ["client_key: needs `client_cert` beside it"]


@pytest.mark.parametrize(
    ("proxy", "good"),
    [
        ("", True),
        ("none", True),
        ("http://p:3128", True),
        ("http://u:p@p:3128/", True),
        ("p:3128", False),
        ("http://p", False),
        ("socks5://p:1", False),
        ("http://p:1/x", False),
        ("http://p:x", False),
    ],
)
def test_proxies(proxy: str, good: bool) -> None:
    assert (found(Provider(kind="openai", api_key=KEY, proxy=proxy)) == []) is good


ANCHORS = [
    (Anchor(kind="file", path="/a"), []),
    (Anchor(kind="file"), ["path"]),
    (Anchor(kind="s3", bucket="b", access_key=KEY, secret_key=KEY), []),
    (Anchor(kind="s3", access_key=KEY), ["bucket", "access_key"]),
    (Anchor(kind="s3", bucket="b", secret_key=KEY, url="b.example.com"), ["secret_key", "url"]),
    (Anchor(kind="rfc3161", url="https://t", path="/a"), []),
    (Anchor(kind="rfc3161"), ["path", "url"]),
]


@pytest.mark.parametrize(("anchor", "faults"), ANCHORS)
def test_what_an_anchor_cannot_do_without(anchor: Anchor, faults: list[str]) -> None:
    assert [path[-1] for path, _, _ in check_anchor((), anchor)] == faults


@pytest.mark.parametrize(("url", "good"), [("postgresql://h/d", True), ("postgres://h", True), ("sqlite:///x", False)])
def test_a_database_is_a_postgres_server(url: str, good: bool) -> None:
    assert (list(check_database((), Database(url=Secret(url)))) == []) is good
    assert list(check_database((), Database())) == []


def test_a_part_cannot_take_longer_than_the_whole() -> None:
    faults = check_timeouts((), Timeouts(connect_s=9, first_byte_s=8, first_content_s=7, idle_s=9, total_s=5))
    assert sorted({str(path[-1]) for path, _, _ in faults}) == [
        "connect_s",
        "first_byte_s",
        "first_content_s",
        "idle_s",
    ]


def test_times_are_compared_only_where_both_are_said() -> None:
    assert list(check_timeouts((), Timeouts(total_s=1))) == []
    assert list(check_timeouts((), Timeouts(connect_s=1, first_byte_s=2, first_content_s=2, idle_s=1, total_s=2))) == []


def test_files_must_be_there_and_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("x")
    tls = Tls(cert=str(cert), key=str(tmp_path / "missing"), client_ca=str(tmp_path))
    assert [(path[-1], message) for path, message, _ in check_files((), tls)] == [
        ("key", "is not there, or is not a file"),
        ("client_ca", "is not there, or is not a file"),
    ]
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    assert "cannot be read by this user" in next(check_files((), Tls(cert=str(cert), key=str(cert))))[1]


@pytest.mark.parametrize(
    ("url", "private", "said"),
    [
        ("https://hooks.example.com/x?token=1", False, ""),
        ("http://10.0.0.7:9000/x", True, ""),
        ("http://hooks.example.com/x", False, "use https://"),
        ("https://127.0.0.1/x", False, "is not a public address"),
        ("https://[::1]/x", False, "is not a public address"),
        ("https://u:p@hooks.example.com/", True, "must not name a user"),
        ("hooks.example.com", True, "must be an address"),
        ("https://[::1", True, "is not a URL"),
    ],
)
def test_where_events_may_go(url: str, private: bool, said: str) -> None:
    webhook = Webhook(name="w", url=Secret(url), secret=KEY, allow_private=private)
    told = [message for _, message, _ in check_webhook(("w",), webhook)]
    assert said in "".join(told)
    assert bool(told) == bool(said)


def test_events_are_signed() -> None:
    webhook = Webhook(name="w", url=Secret("https://hooks.example.com"), secret=Secret(""))
    ((path, message, shown),) = check_webhook(("w",), webhook)
    assert (path, shown) == (("w", "secret"), "")
    assert "is empty" in message
