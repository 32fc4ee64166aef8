"""Where the store is: `redis://user:password@host:port/db`, or `rediss://` for TLS, and the files TLS needs.

Invariants: an address that was made can be dialled as it is; no text made from it shows the password. Left out: names
are looked up at every dial, so a store that moves behind its name is found; a list of hosts (sentinels, a cluster's
nodes) is not an address.
"""

import ssl
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

DEFAULT_PORT: Final = 6379
SCHEMES: Final = {"redis": False, "rediss": True}


class StoreAddress(msgspec.Struct, frozen=True):
    """A store; empty strings for what is not set."""

    host: str
    port: int = DEFAULT_PORT
    user: str = ""
    password: str = ""
    db: int = 0
    tls: bool = False
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""

    def __repr__(self) -> str:
        scheme = "rediss" if self.tls else "redis"
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{user}{host}:{self.port}/{self.db}"

    __str__ = __repr__

    def moved(self, host: str, port: int) -> "StoreAddress":
        """The same account at another node of a cluster; an empty host is the one that said so."""
        return msgspec.structs.replace(self, host=host or self.host, port=port)


def parse(url: str, *, ca_file: str = "", client_cert: str = "", client_key: str = "") -> StoreAddress:
    """Read a URL. Raises ValueError, which says what is wrong and never shows the password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"the store's URL cannot be read: {error}") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the store's URL begins with {parts.scheme!r}, must begin with redis:// or rediss://")
    if not host:
        raise ValueError("the store's URL names no host: redis://host:6379/0")
    if parts.query or parts.fragment:
        raise ValueError("the store's URL has a part behind ? or #; percent-encode these signs in a password")
    tls = SCHEMES[parts.scheme]
    if not tls and (ca_file or client_cert or client_key):
        raise ValueError("the store has TLS files, but its URL is redis://: write rediss://")
    return StoreAddress(
        host=host,
        port=port or DEFAULT_PORT,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        db=_db(parts),
        tls=tls,
        ca_file=ca_file,
        client_cert=client_cert,
        client_key=client_key,
    )


def tls_context(address: StoreAddress) -> ssl.SSLContext | None:
    """How to verify the store and identify ourselves, None without TLS. Reads files.

    Raises ValueError, naming the file, if one cannot be read or used.
    """
    if not address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_file or None)
    except OSError as error:
        raise ValueError(f"ca_file {address.ca_file} is not a file of PEM certificates: {error}") from None
    if address.client_cert:
        try:
            # An empty password, or OpenSSL would ask for one on the terminal and hang the process.
            context.load_cert_chain(address.client_cert, address.client_key or None, password="")
        except OSError as error:
            raise ValueError(
                f"client_cert {address.client_cert} and client_key are not a PEM certificate and its unencrypted key: "
                f"{error}"
            ) from None
    return context


def _db(parts: SplitResult) -> int:
    text = parts.path.strip("/")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the store's URL ends with {parts.path!r}, must end with the number of a database, as in /0")
    return int(text)
