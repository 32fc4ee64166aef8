"""Set, taken from the environment, or none."""

import pytest

from gateway.config.proxy import fault, from_environment, proxy_for

PROXY = "http://proxy:3128"
ENV = {"HTTPS_PROXY": PROXY}


def chosen(
    host: str = "api.example.com", port: int = 443, *, setting: str = "", scheme: str = "https", **env: str
) -> str:
    return proxy_for(setting, scheme, host, port, {**ENV, **env})


def test_what_is_set_wins_over_the_environment() -> None:
    assert chosen(setting="http://other:1") == "http://other:1"
    assert chosen(setting="none") == ""
    assert chosen() == PROXY
    assert proxy_for("", "https", "api.example.com", 443, {}) == ""


def test_loopback_and_plain_http_go_straight() -> None:
    for host in ("localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]"):
        assert chosen(host) == ""
    assert chosen(scheme="http") == ""
    assert chosen("127.0.0.1", setting=PROXY) == PROXY


EXCEPTIONS = [
    ("example.com", True),
    (".example.com", True),
    ("*.example.com", True),
    ("API.Example.COM", True),
    ("x, example.com ,y", True),
    ("api.example.com:443", True),
    ("api.example.com:8443", False),
    ("ample.com", False),
    ("example", False),
    ("*", True),
    (".", False),
    ("", False),
]


@pytest.mark.parametrize(("listed", "excepted"), EXCEPTIONS)
def test_names_that_are_excepted(listed: str, excepted: bool) -> None:
    assert (chosen(NO_PROXY=listed) == "") is excepted


@pytest.mark.parametrize(
    ("listed", "host", "excepted"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3:1", "10.1.2.3", False),
        ("2.3", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("fd00::2", "fd00::1", False),
    ],
)
def test_addresses_that_are_excepted(listed: str, host: str, excepted: bool) -> None:
    assert (chosen(host, no_proxy=listed) == "") is excepted


def test_lower_case_names_come_first() -> None:
    assert chosen(https_proxy="lower:1") == "http://lower:1"
    assert chosen(no_proxy="example.com", NO_PROXY="x") == ""


def test_an_unusable_proxy_is_said_without_its_password() -> None:
    for url in ("socks5://u:hidden@p:1", "http://u:hidden@p", "http://u:hidden@p:x"):
        assert "hidden" not in fault(url)
        with pytest.raises(ValueError, match=r"^HTTPS_PROXY "):
            from_environment({"HTTPS_PROXY": url})
    assert fault("http://u:p@proxy:3128/") == ""
