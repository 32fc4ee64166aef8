"""The listener's part of a config, in the units it works in."""

from typing import Self

import msgspec

from gateway.config.schema import Config
from gateway.listener.address import Network
from gateway.units import NS_PER_S


class ListenerSettings(msgspec.Struct, frozen=True):
    """Limits and timeouts of the caller's side; sizes in bytes, times in nanoseconds."""

    header_timeout_ns: int
    body_timeout_ns: int
    keepalive_ns: int
    max_header_bytes: int
    max_connections: int
    proxy_protocol: bool
    trusted_proxies: tuple[Network, ...]
    max_body_bytes: int
    spool_bytes: int
    spool_total_bytes: int

    @classmethod
    def of(cls, config: Config) -> Self:
        """What a config says."""
        listen = config.listen
        return cls(
            header_timeout_ns=int(listen.header_timeout_s * NS_PER_S),
            body_timeout_ns=int(listen.body_timeout_s * NS_PER_S),
            keepalive_ns=int(listen.keepalive_s * NS_PER_S),
            max_header_bytes=listen.max_header_bytes,
            max_connections=listen.max_connections,
            proxy_protocol=listen.proxy_protocol,
            trusted_proxies=config.trusted_proxies,
            max_body_bytes=config.max_body_bytes,
            spool_bytes=config.spool_bytes,
            spool_total_bytes=config.spool_total_bytes,
        )
