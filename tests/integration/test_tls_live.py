"""TLS on both sides of the running gateway: certificates by name, replaced on reload, asked of callers; and upstream.

How a connection to a provider is made is proved one by one in test_upstream_tls.py; here a request goes all the way.
"""

import signal
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes.authority import Authority
from tests.fakes.gateway_node import PROVIDER_KEY, GatewayNode, chat_body, running, simulated

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"


class Secured(NamedTuple):
    """A gateway with TLS on both sides, and those who sign."""

    node: GatewayNode
    authority: Authority
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    cert, key = authority.issue("localhost")
    api_cert, api_key = authority.issue("api.example.com")
    wild_cert, wild_key = authority.issue("*.example.org")
    client_cert, client_key = authority.issue("gateway.internal")
    server_cert, server_key = authority.issue("localhost", "127.0.0.1")
    theirs = ["--api-key", PROVIDER_KEY, "--tls-cert", server_cert, "--tls-key", server_key]
    with ExitStack() as stack:
        provider = stack.enter_context(simulated(*theirs)).url
        strict = stack.enter_context(simulated(*theirs, "--tls-client-ca", authority.ca_file)).url

        def target(url: str, **more: str) -> dict[str, Any]:
            return {"kind": "openai", "base_url": f"{url}/v1", "api_key": PROVIDER_KEY, **more}

        own = {"client_cert": client_cert, "client_key": client_key}
        config = {
            "listen": {
                "tls": {
                    "cert": cert,
                    "key": key,
                    "min_version": "1.3",
                    "sni": [
                        {"names": ["api.example.com"], "cert": api_cert, "key": api_key},
                        {"names": "*.example.org", "cert": wild_cert, "key": wild_key},
                    ],
                }
            },
            "providers": {
                "trusted": target(provider, ca_file=authority.ca_file),
                "unknown": target(provider),
                "known-to-it": target(strict, ca_file=authority.ca_file, **own),
                "stranger": target(strict, ca_file=authority.ca_file),
            },
            "models": {
                "trusted-*": {"targets": [{"provider": "trusted", "model": "*"}]},
                "unknown": {"targets": [{"provider": "unknown", "model": "m"}], "fallbacks": ["known-to-it"]},
                "known-to-it": {"targets": [{"provider": "known-to-it", "model": "m"}]},
                "stranger": {"targets": [{"provider": "stranger", "model": "m"}]},
            },
        }
        node = stack.enter_context(running(config, tls=ssl.create_default_context(cafile=authority.ca_file)))
        yield Secured(node, authority, Path(cert), Path(key))


@pytest.mark.parametrize("name", ["localhost", "api.example.com", "API.example.com", "any.example.org"])
def test_the_certificate_is_the_one_for_the_name_that_is_asked(secured: Secured, name: str) -> None:
    with secured.node.open(secured.node.request(CHAT, chat_body("sim-m")), server_name=name) as call:
        assert isinstance(call.socket, ssl.SSLSocket)
        assert call.socket.version() == "TLSv1.3"
        assert call.answer().status == 200


def test_a_name_nobody_has_gets_the_default_and_an_old_version_gets_nothing(secured: Secured) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        secured.node.open(server_name="deep.any.example.org")
    old = ssl.create_default_context(cafile=secured.authority.ca_file)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        secured.node.open(tls=old)


def test_streams_and_their_ends_over_tls_on_both_sides(secured: Secured) -> None:
    node = secured.node
    whole = node.chat("trusted-m+big=3000000+split=5000", stream=True)
    assert (whole.status, whole.ended) == (200, "whole")
    assert whole.body.endswith(b"data: [DONE]\n\n")
    cut = node.chat("trusted-m+tokens=20+truncate=5", stream=True)
    assert cut.ended == "cut"
    assert cut.events[-1]["error"]["code"] == "upstream_truncated"
    body = b'{"model":"trusted-m","messages":[{"role":"user","content":"%b"}]}' % (b"x" * 2_000_000)
    assert node.post(CHAT, body).status == 200


def test_a_provider_is_verified_and_verifies_us(secured: Secured) -> None:
    node = secured.node
    assert node.chat("known-to-it").status == 200
    doubted = node.chat("unknown")
    assert doubted.status == 200
    assert doubted.header("x-gateway-attempts").startswith("2; unknown/m=upstream_connect_error ")
    refused = node.chat("stranger")
    assert refused.status == 502
    assert refused.json["error"]["code"] in ("upstream_connect_error", "upstream_reset")  # TLS 1.3 tells us late


def test_a_reload_shows_the_new_certificate_and_cuts_nobody(secured: Secured) -> None:
    node = secured.node

    def serial() -> object:
        with node.open() as call:
            assert isinstance(call.socket, ssl.SSLSocket)
            return (call.socket.getpeercert() or {})["serialNumber"]

    before = serial()
    with node.open(node.request(CHAT, chat_body("trusted-m+tokens=40+token-ms=20", stream=True))) as running_call:
        running_call.head()
        cert, key = secured.authority.issue("localhost")
        secured.key.write_bytes(Path(key).read_bytes())
        secured.cert.write_bytes(Path(cert).read_bytes())
        assert node.process is not None
        node.process.send_signal(signal.SIGHUP)
        node.until(lambda: serial() != before, "the new certificate")
        assert b"".join(running_call.pieces()).endswith(b"data: [DONE]\n\n")


def test_callers_may_have_to_show_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("localhost")
    friend = ssl.create_default_context(cafile=authority.ca_file)
    friend.load_cert_chain(*authority.issue("a-service"))
    stranger = ssl.create_default_context(cafile=authority.ca_file)
    config = {"listen": {"tls": {"cert": cert, "key": key, "client_ca": authority.ca_file}}}
    with running(config, tls=friend) as node:
        assert node.chat("sim-m").status == 200
        stranger.maximum_version = ssl.TLSVersion.TLSv1_2  # where the refusal comes within the handshake
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            node.open(tls=stranger)
