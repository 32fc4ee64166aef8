"""Public addresses only: a resolver for requests to places that a config or a caller names.

Whoever may name a URL could otherwise make the gateway talk to what only the gateway can reach: its own admin port, a
cloud's metadata, a neighbour's database. The name is resolved here, what is not public is left out, and the connection
goes to the address that was looked at: the name is not resolved again in between. An address in a URL never comes to a
resolver, so `check_host` looks at it.

Public is what the registries of special addresses call global, and not multicast; of IPv6 it is what was ever given out
(2000::/3) and the prefix of NAT64, and an address that carries an IPv4 one (6to4, Teredo, NAT64) is judged by both.
Left out: proxies, redirects and bodies, which the
caller of this bounds.
"""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

_GIVEN_OUT: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_LAST_32: Final = 2**32 - 1


class NotPublic(OSError):
    """There is no public address at this name; the message names it."""


class PublicResolver(AbstractResolver):
    """Resolves by the system, to public addresses."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The public addresses of a name. Raises NotPublic, OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
        public = [(known, proto, sockaddr) for known, _, proto, _, sockaddr in found if is_public(str(sockaddr[0]))]
        if not public:
            raise NotPublic(f"{host} has no public address")
        return [
            ResolveResult(
                hostname=host,
                host=str(sockaddr[0]),
                port=port,
                family=known,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for known, proto, sockaddr in public
        ]

    async def close(self) -> None:
        """Nothing is held."""


def check_host(host: str) -> None:
    """Raise NotPublic for an address that is not public; names are not judged here."""
    try:
        ip_address(host)
    except ValueError:
        return
    if not is_public(host):
        raise NotPublic(f"{host} is not a public address")


def is_public(text: str) -> bool:
    """Whether this is the text of a public address; an interface named behind `%` makes it a local one."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        given_out = address in _GIVEN_OUT or address in _NAT64
        if not given_out or address.scope_id is not None or not all(map(_is_global, _carried(address))):
            return False
    return _is_global(address)


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast


def _carried(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that it may lead to."""
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield IPv4Address(int(address) & _LAST_32)
