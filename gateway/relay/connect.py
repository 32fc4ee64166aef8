"""From an origin to a connected transport: name, TCP, the proxy's tunnel, TLS, all under one time limit.

- Names are looked up by the system's resolver in the loop's thread pool, one lookup at a time per dialer, and
  remembered for `resolve_s`; then they are looked up anew. When that fails, or takes longer than half a second, what
  was known before is used for up to ten minutes more: a resolver that is down must not take a provider with it.
- IPv6 and IPv4 addresses are tried by RFC 8305, 250 ms apart.
- TLS verifies the chain and the name, always. `ca_file` replaces the system's authorities, it does not add to them.
- No error shows a credential, and the part of an error that is meant for callers shows no address.

Left out: the system's authorities are read once per process, so a change there needs a restart; a change of `ca_file`,
`client_cert` or `client_key` is noticed when the next dialer is made, that is at a reload.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohappyeyeballs

from gateway.errors import UpstreamConnectError, UpstreamConnectTimeout
from gateway.relay.origin import Origin
from gateway.tasks import spawn
from gateway.tls import TlsConnection
from gateway.units import NS_PER_S

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]  # what getaddrinfo answers
LookUp = Callable[[str, int], Awaitable[list[AddressInfo]]]

STAGGER_S: Final = 0.25  # RFC 8305 section 5, "Connection Attempt Delay"
LOOKUP_PATIENCE_S: Final = 0.5  # how long a known but aged address waits for a newer one
LOOKUP_RETRY_S: Final = 1  # after a failed lookup, aged addresses are used that long without trying again
STALE_S: Final = 600  # how long beyond `resolve_s` an address may be used while it cannot be looked up
MAX_ADDRESSES: Final = 16
MAX_PROXY_HEAD_BYTES: Final = 16 * 1024
TLS_HANDSHAKE_S: Final = 60  # a bound of last resort: `timeouts.connect_s` is over long before
TLS_GOODBYE_S: Final = 2  # how long a closed connection waits for the provider's close_notify
_MAX_CONTEXTS: Final = 256

# An idle connection, or one whose model thinks for minutes, is probed before a NAT or balancer forgets it (60-350 s).
_SOCKET_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 45),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
_PROXY_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
# OpenSSL's verify results, x509_vfy.h
_WRONG_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_WRONG_TIME: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED

_contexts: Final[dict[tuple[object, ...], ssl.SSLContext]] = {}


async def system_look_up(host: str, port: int) -> list[AddressInfo]:
    """Ask the system's resolver for the stream addresses of a name. Raises OSError."""
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


class Addresses:
    """The addresses of one host and port, remembered for `resolve_s` seconds."""

    def __init__(
        self, host: str, port: int, *, resolve_s: float, now_ns: Callable[[], int], look_up: LookUp = system_look_up
    ) -> None:
        self._host = host
        self._port = port
        self._resolve_ns = int(resolve_s * NS_PER_S)
        self._now_ns = now_ns
        self._ask = look_up
        self._literal = _literal(host, port)
        self._found: list[AddressInfo] = []
        self._fresh_until_ns = 0
        self._usable_until_ns = 0
        self._lookup: asyncio.Task[str] | None = None

    async def get(self) -> list[AddressInfo]:
        """At least one address. Raises UpstreamConnectError if none is known and the name cannot be resolved."""
        if self._literal:
            return self._literal
        now_ns = self._now_ns()
        if self._found and now_ns < self._fresh_until_ns:
            return self._found
        aged = self._found if now_ns < self._usable_until_ns else []
        lookup = self._lookup
        if lookup is None:
            lookup = self._lookup = spawn(self._look_up(), name="resolve")
        # wait() leaves the lookup alone when we are cancelled: others may be waiting for it
        await asyncio.wait({lookup}, timeout=LOOKUP_PATIENCE_S if aged else None)
        failure = lookup.result() if lookup.done() else "the resolver is slow"
        if not failure:
            return self._found
        if aged:
            return aged
        raise UpstreamConnectError(
            "The provider's host name could not be resolved: check `base_url` and the resolver.",
            detail=f"{self._host}: {failure}",
        )

    async def _look_up(self) -> str:
        """Look the name up; returns why it failed, or an empty string."""
        failure = "no address"
        found: list[AddressInfo] = []
        try:
            found = (await self._ask(self._host, self._port))[:MAX_ADDRESSES]
        except (OSError, UnicodeError) as error:
            failure = str(error)
        finally:
            self._lookup = None
        now_ns = self._now_ns()
        if not found:
            self._fresh_until_ns = min(now_ns + LOOKUP_RETRY_S * NS_PER_S, self._usable_until_ns)
            return failure
        self._found = found
        self._fresh_until_ns = now_ns + self._resolve_ns
        self._usable_until_ns = self._fresh_until_ns + STALE_S * NS_PER_S
        return ""


class Dialer:
    """Opens connections to one origin.

    Making one reads the TLS files, so make it when a config is loaded, not in a request. Raises ValueError, naming
    the setting, if they cannot be used.
    """

    def __init__(self, origin: Origin, *, now_ns: Callable[[], int]) -> None:
        host, port = origin.proxy_address if origin.proxy else (origin.host, origin.port)
        self._origin = origin
        self._addresses = Addresses(host, port, resolve_s=origin.resolve_s, now_ns=now_ns)
        self._tls = tls_context(origin) if origin.secure else None

    async def dial(self, protocol: asyncio.Protocol, timeout_s: float) -> None:
        """Connect `protocol`, within `timeout_s` for all steps together.

        Raises UpstreamConnectTimeout or UpstreamConnectError; nothing stays open then.
        """
        step = "the name"
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._addresses.get()
                step = "TCP"
                sock = await self._open(addresses)
                try:
                    if self._origin.tunnelled:
                        step = "the proxy"
                        await _tunnel(sock, self._origin)
                    step = "TLS"
                    await self._attach(sock, protocol)
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError:
            raise UpstreamConnectTimeout(
                f"No connection to the provider within {timeout_s:g} s (waiting for {step}).",
                detail=self._origin.host_port,
            ) from None

    async def _open(self, addresses: list[AddressInfo]) -> socket.socket:
        try:
            sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=STAGGER_S, interleave=1)
        except OSError as error:
            whom = "The proxy in front of the provider" if self._origin.proxy else "The provider"
            raise UpstreamConnectError(
                f"{whom} could not be reached.", detail=f"{self._origin.host_port}: {error}"
            ) from None
        for option in _SOCKET_OPTIONS:
            sock.setsockopt(*option)
        return sock

    async def _attach(self, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._tls is None:
                await loop.create_connection(lambda: protocol, sock=sock)
            else:
                await self._secure(sock, protocol, self._tls)
        except OSError as error:
            _raise_tls(error, self._origin)

    async def _secure(self, sock: socket.socket, protocol: asyncio.Protocol, context: ssl.SSLContext) -> None:
        """Connect it over TLS; raises what the handshake did, and nothing stays open when we are cancelled."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        connection = TlsConnection(
            lambda: protocol,
            context,
            server_hostname=self._origin.host,
            ready=ready,
            handshake_s=TLS_HANDSHAKE_S,
            goodbye_s=TLS_GOODBYE_S,
        )
        await loop.create_connection(lambda: connection, sock=sock)
        try:
            await ready
        except BaseException:
            connection.abort()
            raise


def tls_context(origin: Origin) -> ssl.SSLContext:
    """The TLS settings of an origin, made once per set of files and their state on disk.

    Raises ValueError, naming the setting and the file, if one cannot be read or used.
    """
    files = ("ca_file", origin.ca_file), ("client_cert", origin.client_cert), ("client_key", origin.client_key)
    key = tuple(_state(setting, name) for setting, name in files)
    context = _contexts.get(key)
    if context is None:
        while len(_contexts) >= _MAX_CONTEXTS:
            del _contexts[next(iter(_contexts))]
        context = _contexts[key] = _new_context(origin)
    return context


def _new_context(origin: Origin) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=origin.ca_file or None)
    except ssl.SSLError as error:
        raise ValueError(f"ca_file {origin.ca_file} is not a list of PEM certificates: {error.reason}") from None
    # Not every Python's default: Debian's leaves it to openssl.cnf, which may also ask for more.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.set_alpn_protocols(["http/1.1"])
    if origin.client_cert:
        try:
            # An empty password, or OpenSSL would ask for one on the terminal and hang the process.
            context.load_cert_chain(origin.client_cert, origin.client_key or None, password="")
        except ssl.SSLError as error:
            raise ValueError(
                f"client_cert {origin.client_cert} and client_key are not a PEM certificate and its unencrypted key: "
                f"{error.reason}"
            ) from None
    return context


def _state(setting: str, name: str) -> tuple[object, ...]:
    if not name:
        return ()
    try:
        stat = Path(name).stat()
        with Path(name).open("rb"):
            pass  # it exists; may we read it?
    except OSError as error:
        raise ValueError(f"{setting} {name} cannot be read: {error.strerror}") from None
    return name, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _raise_tls(error: OSError, origin: Origin) -> NoReturn:
    """Say in words what an operator can change; what OpenSSL said goes to the log."""
    message = "The provider ended the connection while it was being set up."
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAME:
            message = "The provider's certificate is for another host name: check `base_url`."
        elif error.verify_code in _WRONG_TIME:
            message = "The provider's certificate has expired or is not valid yet: check the clock, then the provider."
        else:
            message = (
                "The provider's certificate comes from no trusted authority: set `ca_file` of this provider to "
                "the PEM file of the authority that issued it."
            )
    elif isinstance(error, ssl.SSLError):
        message = (
            "TLS with the provider failed: check that `base_url` is served over TLS, and set `client_cert` and "
            "`client_key` if it asks for a client certificate."
        )
    raise UpstreamConnectError(message, detail=f"{origin.host_port}: {error}") from None


async def _tunnel(sock: socket.socket, origin: Origin) -> None:
    """Have the proxy connect us through to the provider: CONNECT, RFC 9110 section 9.3.6."""
    loop = asyncio.get_running_loop()
    target = origin.host_port.encode("ascii")
    request = b"CONNECT " + target + b" HTTP/1.1\r\nhost: " + target + b"\r\n" + origin.proxy_authorization + b"\r\n"
    reply = b""
    try:
        await loop.sock_sendall(sock, request)
        while b"\r\n\r\n" not in reply and len(reply) <= MAX_PROXY_HEAD_BYTES:
            data = await loop.sock_recv(sock, 4096)
            if not data:
                break
            reply += data
    except OSError as error:
        raise UpstreamConnectError("The proxy closed the connection.", detail=str(error)) from None
    _check_tunnel(reply)


def _check_tunnel(reply: bytes) -> None:
    head, end, early = reply.partition(b"\r\n\r\n")
    match = _PROXY_STATUS.match(head + end)
    if not end or match is None:
        raise UpstreamConnectError("The proxy did not answer CONNECT with HTTP: check `proxy`.")
    status = int(match[1])
    if status == 407:  # noqa: PLR2004
        raise UpstreamConnectError("The proxy wants other credentials (407): check the user in `proxy`.")
    if not 200 <= status <= 299:  # noqa: PLR2004
        raise UpstreamConnectError(f"The proxy did not connect us to the provider (status {status}).")
    if early:  # the provider waits for our TLS hello, so this is not from it
        raise UpstreamConnectError("The proxy sent bytes of its own into the tunnel.")


def _literal(host: str, port: int) -> list[AddressInfo]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    family, where = (socket.AF_INET, (host, port)) if address.version == 4 else (socket.AF_INET6, (host, port, 0, 0))  # noqa: PLR2004
    return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)]
