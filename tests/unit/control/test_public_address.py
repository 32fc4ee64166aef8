"""Which addresses are public, whatever they are dressed as, and that a name leads to no other."""

import asyncio
import socket
from typing import Any

import pytest

from gateway.control.public_address import NotPublic, PublicResolver, check_host, is_public

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"]
PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "2001:0:808:808::f7f7:f7f7",
    "2002:a00:1::",
    "2001:0:7f00:1::1",
    "",
    "example.com",
    "0x7f.1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address(address: str) -> None:
    assert is_public(address)
    check_host(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_a_public_address(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.169.254", "::ffff:10.0.0.1"])
def test_an_address_in_a_url_is_judged_without_a_resolver(address: str) -> None:
    with pytest.raises(NotPublic, match="is not a public address"):
        check_host(address)


@pytest.mark.parametrize("name", ["example.com", "localhost", "2130706433", "127.1"])
def test_a_name_is_judged_by_the_resolver(name: str) -> None:
    check_host(name)


def resolve(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> list[str]:
    async def answered(host: str, port: int, **_: object) -> list[Any]:
        assert (host, port) == ("hooks.example", 443)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    async def resolved() -> list[str]:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answered)
        resolver = PublicResolver()
        found = await resolver.resolve("hooks.example", 443, socket.AF_UNSPEC)
        await resolver.close()
        assert {(each["hostname"], each["port"]) for each in found} == {("hooks.example", 443)}
        return [each["host"] for each in found]

    return asyncio.run(resolved())


def test_of_many_addresses_the_public_ones_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(monkeypatch, ["10.0.0.1", "8.8.8.8", "::1", "2606:4700:4700::1111"]) == [
        "8.8.8.8",
        "2606:4700:4700::1111",
    ]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.1", "::1"], []])
def test_a_name_without_a_public_address_leads_nowhere(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    with pytest.raises(NotPublic, match=r"hooks\.example has no public address"):
        resolve(monkeypatch, addresses)


@pytest.mark.parametrize("name", ["localhost", "127.1", "2130706433", "0x7f.0.0.1", "0"])
def test_the_system_resolves_other_spellings_of_this_host(name: str) -> None:
    async def resolved() -> None:
        await PublicResolver().resolve(name, 80, socket.AF_UNSPEC)

    with pytest.raises(OSError, match=r"has no public address|Name or service|No address|not known"):
        asyncio.run(resolved())
