"""Addresses of stores: from a URL to what can be dialled, the files of TLS, and that no text shows the password."""

from pathlib import Path

import pytest

from gateway.config.storeurl import Place
from gateway.limiter.address import StoreAddress, parse, tls_context
from tests.fakes.authority import Authority


def test_a_url_becomes_what_can_be_dialled() -> None:
    assert parse("redis://store") == StoreAddress("store")
    assert parse("rediss://gw:x@[::1]:6380/3") == StoreAddress("::1", 6380, "gw", "x", db=3, tls=True)
    nodes = parse("redis://one:7000,two")
    assert nodes == StoreAddress("one", 7000, others=(Place("two", 6379),))
    assert nodes.places == (("one", 7000), ("two", 6379))
    told = parse("sentinels://one,two:1/main", ca_file="ca.pem")
    assert told == StoreAddress("one", 26379, tls=True, ca_file="ca.pem", others=(Place("two", 1),), service="main")


def test_what_is_wrong_is_said_as_of_the_url() -> None:
    with pytest.raises(ValueError, match="the store's URL does not end with the number of a database"):
        parse("redis://store/zero")


def test_no_text_shows_the_password() -> None:
    address = parse("rediss://gw:hunter2@store:6380/1")
    assert str(address) == repr(address) == "rediss://gw@store:6380/1"
    assert str(parse("redis://:hunter2@[::1]")) == "redis://[::1]:6379/0"
    many = parse("sentinel://gw:hunter2@one,[::1]:7/main/2")
    assert str(many) == "sentinel://gw@one:26379,[::1]:7/main/2"
    with pytest.raises(ValueError, match="scheme") as wrong:
        parse("reds://gw:hunter2@store")
    assert "hunter2" not in str(wrong.value)


def test_the_same_account_at_one_place_of_several() -> None:
    address = parse("rediss://gw:x@store:6380,other/0", ca_file="ca.pem")
    here = StoreAddress("10.0.0.2", 7001, "gw", "x", tls=True, ca_file="ca.pem")
    assert address.at(Place("10.0.0.2", 7001)) == here
    assert parse("sentinels://gw:x@one,two/main", ca_file="ca.pem").at(Place("10.0.0.2", 7001)) == here


def test_files_for_tls_need_tls() -> None:
    with pytest.raises(ValueError, match="write rediss:// or sentinels://"):
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
