"""Where a store of limits is, as an operator writes it.

    redis://user:password@host:6379/0                         one server, or a name that leads to it
    redis://user:password@one:6379,two:6379                   nodes of a cluster, of which any that lives will do
    sentinel://user:password@one:26379,two:26379/main/0       sentinels, the name they know the primary by, its database

`rediss://` and `sentinels://` are the same by TLS. Account and database are those of the store.

Invariants: no message shows the password, nor what may be a part of one. Left out: names, files and connections
(`limiter/address.py`, `limiter/sentinel.py`).
"""

import re
from ipaddress import IPv6Address
from typing import Final, NamedTuple
from urllib.parse import unquote

from msgspec import Struct

STORE_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
FORMS: Final = "redis://host:6379/0, rediss://host:6379/0 or sentinel://one:26379,two:26379/main"

_SCHEMES: Final = {
    "redis": (False, STORE_PORT),
    "rediss": (True, STORE_PORT),
    "sentinel": (False, SENTINEL_PORT),
    "sentinels": (True, SENTINEL_PORT),
}
_PLACE: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]+")
_DATABASE: Final = re.compile(r"[0-9]{0,5}")
_MAX_PORT: Final = 65_535


class Place(NamedTuple):
    """One end to dial."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class StoreUrl(Struct, frozen=True):
    """What a URL says; `service` is the primary's name at the sentinels that `places` are then, else empty."""

    places: tuple[Place, ...]
    user: str = ""
    password: str = ""
    service: str = ""
    db: int = 0
    tls: bool = False


def read(url: str) -> StoreUrl:
    """Read a URL. Raises ValueError, which says what is wrong."""
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        raise ValueError("has no scheme that is known: write redis://, rediss://, sentinel:// or sentinels://")
    if "?" in rest or "#" in rest:
        raise ValueError("has a part behind ? or #: percent-encode these signs in a password")
    tls, port = _SCHEMES[scheme]
    authority, _, path = rest.partition("/")
    account, _, hosts = authority.rpartition("@")
    user, _, password = account.partition(":")
    if user and not password:
        raise ValueError("has an account without a password: write USER:PASSWORD@ or :PASSWORD@")
    places = tuple(_place(text, port) for text in hosts.split(","))
    service, db = _path(path, named=port == SENTINEL_PORT)
    return StoreUrl(places, unquote(user), unquote(password), service, db, tls)


def dialled(host: str, port: int) -> Place:
    """A place that dialling cannot choke on, whoever named it. Raises ValueError."""
    if not 0 < port <= _MAX_PORT:
        raise ValueError(f"has a port that is not 1 to {_MAX_PORT}")
    if not (_is_v6(host) if ":" in host else _NAME.fullmatch(host)):
        raise ValueError(
            "names a host that can be none: neither an address, nor parts of 1 to 63 letters, digits, - or _"
        )
    return Place(host, port)


def _is_v6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _place(text: str, port: int) -> Place:
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError("names no host: write HOST:PORT, and percent-encode the signs : / @ of a password")
    return dialled(found["v6"] or found["name"], int(found["port"] or port))


def _path(path: str, *, named: bool) -> tuple[str, int]:
    service, _, database = path.rstrip("/").partition("/") if named else ("", "", path.rstrip("/"))
    if named and not _SERVICE.fullmatch(service):
        raise ValueError("names no primary: sentinel://host:26379/NAME, as the sentinels monitor it")
    if not _DATABASE.fullmatch(database):
        raise ValueError("does not end with the number of a database, as in /0")
    return service, int(database or 0)
