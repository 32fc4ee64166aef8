"""An origin names its provider and its proxy; no credential comes out of it but as the header it is for."""

import base64

import pytest

from gateway.relay.origin import Origin

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("scheme", "host", "port", "authority", "host_port"),
    [
        ("https", "api.example.com", 443, "api.example.com", "api.example.com:443"),
        ("https", "api.example.com", 84, "api.example.com:84", "api.example.com:84"),
        ("http", "localhost", 443, "localhost:443", "localhost:443"),
        ("http", "10.0.0.1", 80, "10.0.0.1", "10.0.0.1:80"),
        ("https", "::1", 8000, "[::1]:8000", "[::1]:8000"),
        ("https", "::1", 443, "[::1]", "[::1]:443"),
    ],
)
def test_how_it_is_named(scheme: str, host: str, port: int, authority: str, host_port: str) -> None:
    origin = Origin(scheme, host, port)
    assert (origin.authority, origin.host_port, origin.secure) == (authority, host_port, scheme == "https")


@pytest.mark.parametrize(
    ("proxy", "address"),
    [
        ("HTTP://Proxy.Example.com:84", ("proxy.example.com", 84)),
        ("http://10.0.0.1/", ("10.0.0.1", 80)),
        ("http://[0:0::1]:8000", ("::1", 8000)),
        ("http://model_proxy:9000", ("model_proxy", 9000)),
        ("http://é.example", ("xn--9ca.example", 80)),
    ],
)
def test_where_its_proxy_is(proxy: str, address: tuple[str, int]) -> None:
    assert Origin("https", "api.example.com", 443, proxy=proxy).proxy_address == address


@pytest.mark.parametrize(
    "proxy",
    [
        f"https://user:{SECRET}@proxy.example:3128",
        f"socks5://user:{SECRET}@proxy.example",
        f"http://user:{SECRET}@",
        f"http://user:{SECRET}@proxy.example:x",
        f"http://user:{SECRET}@[::1",
        "proxy.example:3128",
        "http://",
        "http:///v1",
        f"http://user:{SECRET}@proxy.example:70000",
        "http://a b",
        "http://a\\b",
        "http://[zz::1]",
        "http://-a-",
        f"http://{'ü' * 80}.example",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_at_load_without_its_credential(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy") as refusal:
        Origin("https", "api.example.com", 443, proxy=proxy)
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_a_tls_provider_is_reached_through_a_tunnel() -> None:
    origin = Origin("https", "api.example.com", 443, proxy="http://proxy.example:3128")
    assert origin.proxy_address == ("proxy.example", 3128)
    assert origin.tunnelled
    assert (origin.target_prefix, origin.proxy_authorization) == (b"", b"")


def test_a_plain_provider_is_named_in_each_request_to_its_proxy() -> None:
    origin = Origin("http", "api.example.com", 8000, proxy="http://proxy.example")
    assert origin.proxy_address == ("proxy.example", 80)
    assert not origin.tunnelled
    assert origin.target_prefix == b"http://api.example.com:8000"


def test_without_a_proxy_there_is_nothing_of_it() -> None:
    for scheme in ("http", "https"):
        origin = Origin(scheme, "api.example.com", 443)
        assert (origin.tunnelled, origin.target_prefix, origin.proxy_authorization) == (False, b"", b"")


def test_the_credential_of_a_proxy_is_decoded_and_not_shown() -> None:
    origin = Origin("https", "api.example.com", 443, proxy=f"http://us%40er:{SECRET}%3A%2F@proxy.example:3128")
    name, _, value = origin.proxy_authorization.partition(b": Basic ")
    assert name == b"proxy-authorization"
    assert value.endswith(b"\r\n")
    assert base64.b64decode(value) == f"us@er:{SECRET}:/".encode()
    assert SECRET not in repr(origin)
    assert SECRET not in f"{origin}"
    assert "api.example.com" in repr(origin)


def test_alike_origins_are_one_and_the_limits_are_part_of_it() -> None:
    one, same, other = (Origin("https", "api.example.com", 443, max_idle=idle) for idle in (2, 2, 1))
    assert {one, same} == {one}
    assert one != other
