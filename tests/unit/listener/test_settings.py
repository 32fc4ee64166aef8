"""The listener's part of a config, in its own units."""

from ipaddress import ip_network

from gateway.config.schema import Config, Listen
from gateway.listener.settings import ListenerSettings


def test_every_limit_is_taken_over_in_the_units_of_the_listener() -> None:
    listen = Listen(
        keepalive_s=1.5, header_timeout_s=2, body_timeout_s=0.25, max_header_bytes=2048, max_connections=7,
        proxy_protocol=True,
    )  # fmt: skip
    proxies = (ip_network("10.0.0.0/8"),)
    config = Config(listen=listen, trusted_proxies=proxies, max_body_bytes=10, spool_bytes=20, spool_total_bytes=30)
    assert ListenerSettings.of(config) == ListenerSettings(
        header_timeout_ns=2_000_000_000,
        body_timeout_ns=250_000_000,
        keepalive_ns=1_500_000_000,
        max_header_bytes=2048,
        max_connections=7,
        proxy_protocol=True,
        trusted_proxies=proxies,
        max_body_bytes=10,
        spool_bytes=20,
        spool_total_bytes=30,
    )
