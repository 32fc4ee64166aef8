"""TLS towards callers: certificates by server name, replaced on reload without touching the listening socket.

The context handed to the server stays the same for the life of a worker; its server-name callback switches each
handshake to the context of the current certificate. What OpenSSL copies when a connection is made cannot be switched
that way: the client authorities and the minimum version act from the next start, and the reload check says so.
"""

import ssl
from typing import Final

from gateway.config.schema import Tls

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_ALPN: Final = ["http/1.1"]


class ServerTls:
    """The data port's TLS. Raises OSError or ssl.SSLError for certificates that cannot be read."""

    def __init__(self, tls: Tls) -> None:
        self._certificates = _Certificates(tls)
        self.context = _context(tls.cert, tls.key, tls)
        self.context.sni_callback = self._choose

    def reload(self, tls: Tls) -> None:
        """Show the certificates of another snapshot from the next handshake on; raising keeps the old ones."""
        self._certificates = _Certificates(tls)

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._certificates.of(name or "")


class _Certificates:
    """One context per certificate, found by server name."""

    def __init__(self, tls: Tls) -> None:
        self._default = _context(tls.cert, tls.key, tls)
        self._by_name = {
            name.lower(): context
            for entry in tls.sni
            for context in (_context(entry.cert, entry.key, tls),)
            for name in entry.names
        }

    def of(self, name: str) -> ssl.SSLContext:
        """The context for a server name: exact, then a wildcard of one label, then the default."""
        lowered = name.lower()
        exact = self._by_name.get(lowered)
        if exact is not None:
            return exact
        return self._by_name.get("*." + lowered.partition(".")[2], self._default)


def _context(cert: str, key: str, tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.set_alpn_protocols(_ALPN)
    context.load_cert_chain(cert, key)
    if tls.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tls.client_ca)
    return context
