"""Public addresses only: a resolver for requests to places that a config or a caller names.

Whoever may name a URL could otherwise make the gateway talk to what only the gateway can reach: its own admin port, a
cloud's metadata, a neighbour's database. The name is resolved here, what is not public is left out, and the connection
goes to the address that was looked at: the name is not resolved again in between. An address in a URL never comes to a
resolver, so `check_host` looks at it.

Public is what the registries of special addresses call global, and not multicast; of IPv6 it is what was ever given out
(2000::/3) and the prefix of NAT64, where the IPv4 address that it carries is judged, too. 6to4 and Teredo, which carry
some as well, were given up, and are not public whatever they carry: not all Pythons say so. Left out: proxies,
redirects and bodies, which the caller of this bounds.
"""

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

_GIVEN_OUT: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_GIVEN_UP: Final = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))
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
        if address in _NAT64 and not _is_global(IPv4Address(int(address) & _LAST_32)):
            return False
        if address.scope_id is not None or not (address in _GIVEN_OUT or address in _NAT64):
            return False
        if any(address in network for network in _GIVEN_UP):
            return False
    return _is_global(address)


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast
