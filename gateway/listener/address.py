"""Who is at the other end: the socket's peer, or what a trusted proxy says of it.

Two ways a balancer names the caller: the PROXY protocol in front of the first byte (v1 text, v2 binary) and
`x-forwarded-for`. Both are believed only from `trusted_proxies`: from anyone else they are claims of the caller.

Invariants: a PROXY header is read completely or not at all, and never past its own length; `x-forwarded-for` is
walked from the right, and the first address that is not a trusted proxy is the caller. Source: the PROXY protocol
specification (haproxy, 2020/03/05).
"""

import ipaddress
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.errors import MalformedHTTP

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD: Final = 16
_V1_MAX: Final = 107
_V1_PARTS: Final = 6
_MAX_V2: Final = 4096
_MAX_HOPS: Final = 32
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_REMEMBERED: Final = 4096


class ProxyHeader(NamedTuple):
    """A PROXY header: the caller's address ("" when the proxy speaks for itself) and the bytes it took."""

    client_ip: str
    size: int


class Trust:
    """The networks whose word is believed."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._known: dict[str, bool] = {}

    def believes(self, ip: str) -> bool:
        """Whether an address is one of our proxies."""
        if not self._networks:
            return False
        known = self._known.get(ip)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[ip] = self._look(ip)
        return known

    def client_ip(self, peer_ip: str, forwarded_for: bytes) -> str:
        """The caller's address: the peer's, or the rightmost of `x-forwarded-for` that is no proxy of ours."""
        if not forwarded_for or not self.believes(peer_ip):
            return peer_ip
        client = peer_ip
        for hop in reversed(forwarded_for.decode("latin-1").split(",")[-_MAX_HOPS:]):
            ip = _plain_ip(hop.strip())
            if not ip:
                break
            client = ip
            if not self.believes(ip):
                break
        return client

    def _look(self, ip: str) -> bool:
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


class Preface:
    """What comes in front of the first request where the PROXY protocol is on, gathered until it is complete."""

    def __init__(self, trust: Trust, peer_ip: str) -> None:
        self._trust = trust
        self._peer_ip = peer_ip
        self._data = b""

    def feed(self, data: bytes) -> tuple[str, bytes] | None:
        """The caller's address and the bytes behind the header; None when more is needed.

        Raises MalformedHTTP for anything but a PROXY header of a trusted proxy.
        """
        if not self._trust.believes(self._peer_ip):
            raise MalformedHTTP("a PROXY protocol header is accepted from trusted_proxies only")
        self._data += data
        header = read_proxy_header(self._data)
        if header is None:
            return None
        return header.client_ip or self._peer_ip, self._data[header.size :]


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The PROXY header at the start of a connection; None when more bytes are needed.

    Raises MalformedHTTP when the bytes cannot be one.
    """
    if data.startswith(V2_SIGNATURE):
        return _read_v2(data)
    if data.startswith(b"PROXY "):
        return _read_v1(data)
    if V2_SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise MalformedHTTP("a PROXY protocol header was expected: the listener has proxy_protocol on")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _V1_MAX)
    if end < 0:
        if len(data) >= _V1_MAX:
            raise MalformedHTTP("the PROXY protocol line is too long")
        return None
    parts = data[:end].decode("latin-1").split(" ")
    if parts[1] == "UNKNOWN":
        return ProxyHeader("", end + 2)
    if len(parts) != _V1_PARTS or parts[1] not in ("TCP4", "TCP6") or not _plain_ip(parts[2]):
        raise MalformedHTTP("the PROXY protocol line cannot be read")
    return ProxyHeader(_plain_ip(parts[2]), end + 2)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEAD:
        return None
    command, family = data[12], data[13]
    size = _V2_HEAD + int.from_bytes(data[14:16], "big")
    if size > _MAX_V2 or command not in (_LOCAL, _PROXY):
        raise MalformedHTTP("the PROXY protocol header cannot be read")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader("", size)
    if family == _TCP4 and size >= _V2_HEAD + 12:
        return ProxyHeader(str(ipaddress.IPv4Address(data[16:20])), size)
    if family == _TCP6 and size >= _V2_HEAD + 36:
        return ProxyHeader(str(ipaddress.IPv6Address(data[16:32])), size)
    return ProxyHeader("", size)


def _plain_ip(text: str) -> str:
    """An address without brackets, port or zone; "" when it is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return ""
