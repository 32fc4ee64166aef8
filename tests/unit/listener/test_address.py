"""Who is at the other end: PROXY headers in any split, and x-forwarded-for believed from proxies only."""

import ipaddress
import socket

import pytest

from gateway.errors import MalformedHTTP
from gateway.listener.address import V2_SIGNATURE, Trust, read_proxy_header

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"


def v2(ip: str, *, local: bool = False, extra: bytes = b"") -> bytes:
    six = ":" in ip
    family = socket.AF_INET6 if six else socket.AF_INET
    address = socket.inet_pton(family, ip)
    payload = address * 2 + b"\x00\x50\x01\xbb" + extra
    command, kind = (0x20, 0) if local else (0x21, 0x21 if six else 0x11)
    return V2_SIGNATURE + bytes([command, kind]) + len(payload).to_bytes(2, "big") + payload


@pytest.mark.parametrize(
    ("header", "ip"),
    [
        (V1, "192.0.2.7"),
        (V1_6, "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", ""),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""),
        (v2("192.0.2.9"), "192.0.2.9"),
        (v2("2001:db8::9"), "2001:db8::9"),
        (v2("192.0.2.9", extra=b"\x03\x00\x04abcd"), "192.0.2.9"),
        (v2("192.0.2.9", local=True), ""),
    ],
)
def test_a_header_is_read_at_every_split_and_never_past_its_end(header: bytes, ip: str) -> None:
    for size in range(1, len(header)):
        assert read_proxy_header(header[:size]) is None
    found = read_proxy_header(header + b"POST / HTTP/1.1\r\n")
    assert found is not None
    assert (found.client_ip, found.size) == (ip, len(header))


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\n",
        b"PROXY TCP4 nonsense 198.51.100.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"PROXY TCP5 192.0.2.7 192.0.2.7 1 2\r\n",
        b"PROXY " + b"x" * 200,
        V2_SIGNATURE + b"\x99\x11\x00\x0c" + b"x" * 12,
        V2_SIGNATURE + b"\x21\x11\xff\xff",
        b"\r\n\r\n\x00\r\nQUIX",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedHTTP):
        read_proxy_header(data)


TRUST = Trust([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("10.1.1.1", b"203.0.113.5", "203.0.113.5"),
        ("10.1.1.1", b"6.6.6.6, 203.0.113.5, 10.2.2.2", "203.0.113.5"),
        ("10.1.1.1", b"6.6.6.6,nonsense,10.2.2.2", "10.2.2.2"),
        ("fd00::1", b"[2001:db8::5]:4711", "2001:db8::5"),
        ("10.1.1.1", b"203.0.113.5:8080", "203.0.113.5"),
        ("::ffff:10.1.1.1", b"203.0.113.5", "203.0.113.5"),
        ("198.51.100.9", b"203.0.113.5", "198.51.100.9"),
        ("10.1.1.1", b"", "10.1.1.1"),
    ],
)
def test_forwarded_for_is_walked_from_the_right(peer: str, header: bytes, client: str) -> None:
    assert TRUST.client_ip(peer, header) == client


def test_nobody_is_believed_by_default() -> None:
    assert not Trust([]).believes("127.0.0.1")
    assert Trust([]).client_ip("127.0.0.1", b"203.0.113.5") == "127.0.0.1"
