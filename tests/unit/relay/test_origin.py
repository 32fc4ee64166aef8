"""An origin is what a URL says and nothing more; no credential comes out of it but as the header it is for."""

import base64

import pytest

from gateway.relay.origin import Origin

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "authority", "host_port"),
    [
        ("https://api.example.com/v1", "https", "api.example.com", 443, "api.example.com", "api.example.com:443"),
        ("HTTPS://API.Example.com:84", "https", "api.example.com", 84, "api.example.com:84", "api.example.com:84"),
        ("http://localhost:443/", "http", "localhost", 443, "localhost:443", "localhost:443"),
        ("http://10.0.0.1", "http", "10.0.0.1", 80, "10.0.0.1", "10.0.0.1:80"),
        ("https://[::1]:8000/x", "https", "::1", 8000, "[::1]:8000", "[::1]:8000"),
        ("https://[0:0::1]/x", "https", "::1", 443, "[::1]", "[::1]:443"),
        ("http://model_server:9000", "http", "model_server", 9000, "model_server:9000", "model_server:9000"),
        ("https://é.example", "https", "xn--9ca.example", 443, "xn--9ca.example", "xn--9ca.example:443"),
    ],
)  # fmt: skip
def test_what_a_url_says(url: str, scheme: str, host: str, port: int, authority: str, host_port: str) -> None:
    origin = Origin.from_url(url)
    assert (origin.scheme, origin.host, origin.port) == (scheme, host, port)
    assert (origin.authority, origin.host_port, origin.secure) == (authority, host_port, scheme == "https")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https:///v1",
        "https://api.example.com:port",
        "https://api.example.com:70000",
        "https://a b",
        "https://a\\b",
        "https://[::1",
        "https://[zz::1]",
        "https://-a-",
        f"https://{'ü' * 80}.example",
        f"https://user:{SECRET}@api.example.com",
    ],
)
def test_what_is_no_url_of_a_provider_is_refused_by_the_name_of_its_setting(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as refusal:
        Origin.from_url(url)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "proxy",
    [
        f"https://user:{SECRET}@proxy.example:3128",
        f"socks5://user:{SECRET}@proxy.example",
        f"http://user:{SECRET}@",
        f"http://user:{SECRET}@proxy.example:x",
        f"http://user:{SECRET}@[::1",
        "proxy.example:3128",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_at_load_without_its_credential(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy") as refusal:
        Origin.from_url("https://api.example.com", proxy=proxy)
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_a_tls_provider_is_reached_through_a_tunnel() -> None:
    origin = Origin.from_url("https://api.example.com", proxy="http://proxy.example:3128")
    assert origin.proxy_address == ("proxy.example", 3128)
    assert origin.tunnelled
    assert (origin.target_prefix, origin.proxy_authorization) == (b"", b"")


def test_a_plain_provider_is_named_in_each_request_to_its_proxy() -> None:
    origin = Origin.from_url("http://api.example.com:8000/v1", proxy="http://proxy.example")
    assert origin.proxy_address == ("proxy.example", 80)
    assert not origin.tunnelled
    assert origin.target_prefix == b"http://api.example.com:8000"


def test_without_a_proxy_there_is_nothing_of_it() -> None:
    for url in ("http://api.example.com", "https://api.example.com"):
        origin = Origin.from_url(url)
        assert (origin.tunnelled, origin.target_prefix, origin.proxy_authorization) == (False, b"", b"")


def test_the_credential_of_a_proxy_is_decoded_and_not_shown() -> None:
    origin = Origin.from_url("https://api.example.com", proxy=f"http://us%40er:{SECRET}%3A%2F@proxy.example:3128")
    name, _, value = origin.proxy_authorization.partition(b": Basic ")
    assert name == b"proxy-authorization"
    assert value.endswith(b"\r\n")
    assert base64.b64decode(value) == f"us@er:{SECRET}:/".encode()
    assert SECRET not in repr(origin)
    assert SECRET not in f"{origin}"
    assert "api.example.com" in repr(origin)


def test_alike_origins_are_one_and_the_limits_are_part_of_it() -> None:
    url = "https://api.example.com"
    assert {Origin.from_url(url), Origin.from_url(url + "/v1")} == {Origin.from_url(url)}
    assert Origin.from_url(url) != Origin.from_url(url, max_idle=1)
    made = Origin.from_url(
        url,
        ca_file="a",
        client_cert="b",
        client_key="c",
        max_connections=1,
        max_idle=2,
        idle_s=3,
        max_age_s=4,
        resolve_s=5,
    )
    assert made == Origin("https", "api.example.com", 443, "a", "b", "c", "", 1, 2, 3, 4, 5)
