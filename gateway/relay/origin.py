"""Where a provider lives, and the limits on the connections to it: everything two connections must share to be alike.

An `Origin` is plain data made from the config once per snapshot. It reads no file and opens no socket; equal origins
may share a pool. The base path of a provider's URL is not part of it: the caller keeps that.

A proxy URL may carry a credential. It leaves this module only as the bytes of a `proxy-authorization` header; neither
`repr` nor an error shows it. Left out: which proxy applies (`HTTPS_PROXY`, `NO_PROXY`), which the config resolves,
and proxies spoken to over TLS or SOCKS, which are refused here rather than half supported.
"""

import base64
import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

import msgspec

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HOST_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_.])?")


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port of a provider, how to reach and trust it, and how many connections it may have.

    `ca_file` (PEM) replaces the system's authorities, it does not add to them. `client_cert` and `client_key` are
    PEM files; an empty `client_key` means the key is in `client_cert`. `proxy` is an http:// URL or "". Limits are
    per pool, so per worker; times are in seconds. Raises ValueError, naming the fix, for what cannot be used.
    """

    scheme: str
    host: str
    port: int
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    proxy: str = ""
    max_connections: int = 4096
    max_idle: int = 512
    idle_s: float = 60
    max_age_s: float = 600
    resolve_s: float = 30

    def __post_init__(self) -> None:
        """Refuse a proxy that cannot be used while the config is being loaded, not at the first request."""
        if self.proxy:
            _ = self.proxy_address

    def __repr__(self) -> str:
        proxied = " by way of a proxy" if self.proxy else ""
        return f"<Origin {self.scheme}://{self.authority}{proxied}>"

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken with the provider."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """What the Host header says: the port only where it is not the scheme's own, IPv6 in brackets."""
        return _bracketed(self.host) if self.port == DEFAULT_PORTS[self.scheme] else self.host_port

    @property
    def host_port(self) -> str:
        """Host and port, always both: the target of a CONNECT (RFC 9110 section 9.3.6)."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def tunnelled(self) -> bool:
        """Whether a CONNECT to the proxy comes before anything else on a connection."""
        return bool(self.proxy) and self.secure

    @property
    def target_prefix(self) -> bytes:
        """What goes before the path of a request: empty, or scheme and authority for a proxy of plain http.

        Source: absolute-form, RFC 9112 section 3.2.2.
        """
        return f"http://{self.authority}".encode() if self.proxy and not self.secure else b""

    @property
    def proxy_address(self) -> tuple[str, int]:
        """Host and port of the proxy. Raises ValueError, without repeating the URL, if it is not a usable one."""
        parts = _split(self.proxy)
        if parts.scheme != "http":
            raise ValueError("proxy must be an http:// URL: proxies spoken to over TLS or SOCKS are not supported")
        return _host_of(parts), _port_of(parts)

    @property
    def proxy_authorization(self) -> bytes:
        """The `proxy-authorization` header line with its CRLF, or empty when the proxy's URL has no user."""
        parts = _split(self.proxy)
        if not parts.username:
            return b""
        pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        return b"proxy-authorization: Basic " + base64.b64encode(pair) + b"\r\n"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("proxy is not a URL") from None  # the cause would repeat the URL


def _host_of(parts: SplitResult) -> str:
    host = parts.hostname or ""
    try:
        if ":" in host:
            return str(ipaddress.IPv6Address(host))
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError:
        raise ValueError("proxy has no valid host name") from None
    if not _HOST_NAME.fullmatch(host):
        raise ValueError("proxy has no valid host name")
    return host


def _port_of(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        raise ValueError("proxy has a port that is not a number from 1 to 65535") from None
    return DEFAULT_PORTS[parts.scheme] if port is None else port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
