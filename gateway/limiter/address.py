"""Where the store is, ready to be dialled: what its URL says (`config/storeurl.py`), and the files TLS needs.

Invariants: no text made from an address shows the password. Left out: names are looked up at every dial, so a store
that moves behind its name is found; which place to dial next (`whereabouts.py`).
"""

import ssl

import msgspec

from gateway.config import storeurl
from gateway.config.storeurl import STORE_PORT, Place


class StoreAddress(msgspec.Struct, frozen=True):
    """A store; empty strings for what is not set.

    With `service` set, host, port and `others` are sentinels that know where the primary of that name is; else
    `others` are more nodes of the same cluster.
    """

    host: str
    port: int = STORE_PORT
    user: str = ""
    password: str = ""
    db: int = 0
    tls: bool = False
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    others: tuple[Place, ...] = ()
    service: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """Everything the URL names, in its order."""
        return (Place(self.host, self.port), *self.others)

    def __repr__(self) -> str:
        scheme = ("sentinel" if self.service else "redis") + "s" * self.tls
        user = f"{self.user}@" if self.user else ""
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}://{user}{','.join(map(str, self.places))}{service}/{self.db}"

    __str__ = __repr__

    def at(self, place: Place) -> "StoreAddress":
        """The same account at this one place, which is a store."""
        return msgspec.structs.replace(self, host=place.host, port=place.port, others=(), service="")


def parse(url: str, *, ca_file: str = "", client_cert: str = "", client_key: str = "") -> StoreAddress:
    """Read a URL. Raises ValueError, which says what is wrong and never shows the password."""
    try:
        said = storeurl.read(url)
    except ValueError as error:
        raise ValueError(f"the store's URL {error}") from None
    if not said.tls and (ca_file or client_cert or client_key):
        raise ValueError("the store has TLS files, but its URL is without TLS: write rediss:// or sentinels://")
    first, *others = said.places
    return StoreAddress(
        host=first.host,
        port=first.port,
        user=said.user,
        password=said.password,
        db=said.db,
        tls=said.tls,
        ca_file=ca_file,
        client_cert=client_cert,
        client_key=client_key,
        others=tuple(others),
        service=said.service,
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
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)  # not every Python's default
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
