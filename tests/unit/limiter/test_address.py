"""Addresses of stores: what a URL may say, what is wrong with it in words, and that no text shows the password."""

from pathlib import Path

import pytest

from gateway.limiter.address import StoreAddress, parse, tls_context
from tests.fakes.authority import Authority


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://store", StoreAddress("store")),
        ("redis://store/", StoreAddress("store")),
        ("redis://10.0.0.1:7000/3", StoreAddress("10.0.0.1", 7000, db=3)),
        ("redis://[::1]:7000", StoreAddress("::1", 7000)),
        ("redis://:secret@store", StoreAddress("store", password="secret")),
        ("redis://gw:p%40ss%2Fword@store:1/0", StoreAddress("store", 1, "gw", "p@ss/word")),
        ("rediss://gw:x@store:6380", StoreAddress("store", 6380, "gw", "x", tls=True)),
    ],
)
def test_what_a_url_may_say(url: str, address: StoreAddress) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://store", "begins with 'http'"),
        ("store:6379", "must begin with redis://"),
        ("redis:///0", "names no host"),
        ("redis://store:port", "cannot be read"),
        ("redis://store:99999", "cannot be read"),
        ("redis://store/zero", "ends with '/zero', must end with the number"),
        ("redis://store/-1", "must end with the number"),
        ("redis://u:hun#ter2@store", "cannot be read|names no host|part behind"),
        ("redis://store?db=1", "part behind"),
    ],
)
def test_what_is_wrong_is_said(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(url)


def test_no_text_shows_the_password() -> None:
    address = parse("rediss://gw:hunter2@store:6380/1")
    assert str(address) == repr(address) == "rediss://gw@store:6380/1"
    assert str(parse("redis://:hunter2@[::1]")) == "redis://[::1]:6379/0"
    with pytest.raises(ValueError, match="begins with") as wrong:
        parse("reds://gw:hunter2@store")
    assert "hunter2" not in str(wrong.value)


def test_a_cluster_sends_to_another_node_with_the_same_account() -> None:
    address = parse("rediss://gw:x@store:6380/0")
    assert address.moved("10.0.0.2", 7001) == StoreAddress("10.0.0.2", 7001, "gw", "x", tls=True)
    assert address.moved("", 7001).host == "store"


def test_files_for_tls_need_tls() -> None:
    with pytest.raises(ValueError, match="write rediss://"):
        parse("redis://store", ca_file="ca.pem")
    assert tls_context(parse("redis://store")) is None


def test_tls_verifies_with_the_files_given(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway")
    url = "rediss://store"
    context = tls_context(parse(url, ca_file=authority.ca_file, client_cert=certificate, client_key=key))
    assert context is not None
    assert context.check_hostname
    assert [ca["subject"][0][0][1] for ca in context.get_ca_certs()] == ["authority"]


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("gateway")
    _, locked = authority.issue("gateway", password=b"x")
    nothing = str(tmp_path / "nothing.pem")
    (tmp_path / "text.pem").write_text("no certificate")
    for ca_file in (nothing, str(tmp_path / "text.pem")):
        with pytest.raises(ValueError, match=f"ca_file {ca_file}"):
            tls_context(parse("rediss://store", ca_file=ca_file))
    for client_key in (nothing, locked, ""):
        with pytest.raises(ValueError, match=f"client_cert {certificate} and client_key"):
            tls_context(parse("rediss://store", client_cert=certificate, client_key=client_key))
