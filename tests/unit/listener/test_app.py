"""What connections share: ids, the cap, health, counts, and following a snapshot."""

from ipaddress import ip_network
from typing import cast

import pytest

from gateway.config.keys import digest
from gateway.config.schema import Config, Listen
from gateway.errors import InvalidCredential
from gateway.exchange import Exchange
from gateway.listener.app import Listener
from gateway.listener.connection import DownstreamConnection
from gateway.listener.head import Head
from gateway.listener.respond import Responder
from gateway.listener.settings import ListenerSettings
from tests.fakes.wired import KEY, Wired


class Wire:
    paused = False

    def __init__(self) -> None:
        self.sent = b""
        self.kept: list[bool] = []

    def write(self, data: bytes) -> None:
        self.sent += data

    def answered(self, *, keep: bool) -> None:
        self.kept.append(keep)


def listener(wired: Wired, unready: str = "", **config: object) -> Listener:
    settings = ListenerSettings.of(Config(**config))  # type: ignore[arg-type]
    return Listener(settings, wired.gateway, lambda: unready, "abc")


def exchange(path: str = "/healthz", credential: bytes = KEY, forwarded_for: bytes = b"") -> Exchange:
    head = Head("GET", version_11=True)
    head.path = path
    head.key_digest = digest(credential)
    head.forwarded_for = forwarded_for
    return Exchange("req_1", head, "10.0.0.1", keep_alive=True)


def test_ids_carry_the_process_and_never_repeat() -> None:
    one = listener(Wired())
    ids = [one.next_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(name.startswith("req_abc") for name in ids)


def test_connections_are_counted_up_to_the_cap() -> None:
    one = listener(Wired(), listen=Listen(max_connections=2))
    first, second, third = (DownstreamConnection(one) for _ in range(3))
    assert (one.admit(first), one.admit(second), one.admit(third)) == (True, True, False)
    one.left(third)
    one.left(first)
    one.left(first)
    assert one.admit(third)
    assert len(one.connections) == 2


@pytest.mark.parametrize(
    ("path", "unready", "status", "body"),
    [
        ("/healthz", "draining", b"200", b'{"status":"ok"}'),
        ("/readyz", "", b"200", b'{"status":"ok"}'),
        ("/readyz", "draining", b"503", b'{"status":"unavailable","reason":"draining"}'),
    ],
)
def test_health(path: str, unready: str, status: bytes, body: bytes) -> None:
    for body_follows in (False, True):
        one, wire, ex = listener(Wired(), unready), Wire(), exchange(path)
        one.answer_health(ex, Responder(ex, wire, ex.head.dialect, one.on_stream), body_follows=body_follows)
        assert wire.sent.split()[1] == status
        assert wire.sent.endswith(b"\r\n\r\n" + body)
        assert wire.kept == [not body_follows]


def test_a_caller_is_identified_before_its_body_is_read() -> None:
    one, ex = listener(Wired()), exchange()
    one.identify(ex, cast("Head", ex.head))
    assert (ex.principal.key_id, ex.client_ip) == ("demo", "10.0.0.1")
    unknown = exchange(credential=b"gw-unknown")
    with pytest.raises(InvalidCredential):
        one.identify(unknown, cast("Head", unknown.head))


def test_who_the_caller_is_said_to_be_is_known_even_when_it_is_refused() -> None:
    one = listener(Wired(), trusted_proxies=(ip_network("10.0.0.0/8"),))
    ex = exchange(credential=b"gw-unknown", forwarded_for=b"203.0.113.9")
    with pytest.raises(InvalidCredential):
        one.identify(ex, cast("Head", ex.head))
    assert ex.client_ip == "203.0.113.9"


def test_an_exchange_that_is_over_is_recorded() -> None:
    wired = Wired()
    listener(wired).finished(exchange())
    assert [record.exchange_id for record in wired.recorded] == ["req_1"]


def test_streams_are_counted_in_and_out() -> None:
    one = listener(Wired())
    for change in (1, 1, -1):
        one.on_stream(change)
    assert one.open_streams == 1


def test_a_snapshot_changes_everything_but_what_lives_longer() -> None:
    old, new = Wired(), Wired()
    one = listener(old)
    wheel, watch, spool = one.wheel, one.watch, one.limits.spool
    spool.take(100)
    config = Config(
        listen=Listen(max_connections=1, keepalive_s=3, header_timeout_s=2, body_timeout_s=1, max_header_bytes=1024),
        max_body_bytes=10,
        spool_bytes=5,
        spool_total_bytes=50,
        trusted_proxies=(ip_network("10.0.0.0/8"),),
    )
    one.adopt(ListenerSettings.of(config), new.gateway)
    assert one.gateway is new.gateway
    assert (one.wheel, one.watch, one.limits.spool) == (wheel, watch, spool)
    assert (spool.total, spool.used) == (50, 100)
    assert (one.limits.max_body_bytes, one.limits.spool_bytes) == (10, 5)
    assert (one.max_connections, one.max_header_bytes, one.proxy_protocol) == (1, 1024, False)
    assert (one.keepalive_ns, one.header_timeout_ns, one.body_timeout_ns) == (3 * 10**9, 2 * 10**9, 10**9)
    assert one.trust.believes("10.1.1.1")
