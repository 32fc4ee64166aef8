"""From a name to a connected socket: names are remembered and survive their resolver, families race, proxies obey."""

import asyncio
import os
import socket
import ssl
import time
from pathlib import Path

import pytest

from gateway.errors import GatewayError, UpstreamConnectError, UpstreamConnectTimeout
from gateway.relay import connect
from gateway.relay.connect import Addresses, AddressInfo, Dialer, tls_context
from gateway.relay.origin import Origin
from gateway.relay.pool import Pool
from gateway.units import NS_PER_S
from tests.fakes.authority import Authority
from tests.fakes.raw_provider import OK, RawProvider, exchange, forever, read_request, run, until

SECRET = "s3cr3t"


def info(address: str, port: int = 1) -> AddressInfo:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))


class Resolver:
    """Answers with `now`, an address list or an error, and counts."""

    def __init__(self) -> None:
        self.now: list[AddressInfo] | OSError = [info("10.0.0.1")]
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, _host: str, _port: int) -> list[AddressInfo]:
        self.calls += 1
        await self.gate.wait()
        if isinstance(self.now, OSError):
            raise self.now
        return self.now


class Name:
    """A name with a resolver and a clock of its own; remembered for 30 s."""

    def __init__(self, host: str = "api.example.com") -> None:
        self.seconds = 1_000.0
        self.resolver = Resolver()
        self.addresses = Addresses(
            host, 443, resolve_s=30, now_ns=lambda: int(self.seconds * NS_PER_S), look_up=self.resolver
        )

    async def get(self) -> list[str]:
        return [str(found[4][0]) for found in await self.addresses.get()]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only their number


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_an_address_is_not_looked_up(address: str) -> None:
    async def main() -> None:
        name = Name(address)
        assert await name.get() == [address]
        assert name.resolver.calls == 0

    run(main())


def test_a_name_is_remembered_and_then_looked_up_anew() -> None:
    async def main() -> None:
        name = Name()
        assert [await name.get() for _ in range(3)] == [["10.0.0.1"]] * 3
        assert name.resolver.calls == 1
        name.resolver.now = [info("10.0.0.2"), info("::2")]
        name.seconds += 29.9
        assert await name.get() == ["10.0.0.1"]
        name.seconds += 0.1
        assert await name.get() == ["10.0.0.2", "::2"]
        assert name.resolver.calls == 2

    run(main())


def test_many_at_once_ask_once() -> None:
    async def main() -> None:
        name = Name()
        name.resolver.gate.clear()
        waiting = [asyncio.create_task(name.get()) for _ in range(50)]
        await asyncio.sleep(0.001)
        waiting[0].cancel()
        name.resolver.gate.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1:] == [["10.0.0.1"]] * 49
        assert name.resolver.calls == 1

    run(main())


def test_an_unknown_name_is_an_error_without_an_address() -> None:
    async def main() -> None:
        name = Name()
        name.resolver.now = socket.gaierror(-2, "Name or service not known")
        with pytest.raises(UpstreamConnectError, match="resolved") as error:
            await name.get()
        assert "example" not in error.value.message
        assert "api.example.com" in error.value.detail
        name.resolver.now = []
        with pytest.raises(UpstreamConnectError):
            await name.get()
        name.resolver.now = [info("10.0.0.1")]
        assert await name.get() == ["10.0.0.1"]

    run(main())


def test_a_failing_resolver_is_outlived_for_ten_minutes() -> None:
    async def main() -> None:
        name = Name()
        await name.get()
        name.resolver.now = socket.gaierror(-3, "Temporary failure in name resolution")
        name.seconds += 40
        assert [await name.get() for _ in range(5)] == [["10.0.0.1"]] * 5
        assert name.resolver.calls == 2  # it is left alone for a second
        name.seconds += 1
        await name.get()
        assert name.resolver.calls == 3
        name.seconds = 1_000 + 30 + 599
        assert await name.get() == ["10.0.0.1"]
        name.seconds += 1
        with pytest.raises(UpstreamConnectError):
            await name.get()

    run(main())


def test_a_slow_resolver_does_not_hold_up_a_known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "LOOKUP_PATIENCE_S", 0.01)

    async def main() -> None:
        name = Name()
        await name.get()
        name.resolver.now = [info("10.0.0.2")]
        name.resolver.gate.clear()
        name.seconds += 31
        assert await name.get() == ["10.0.0.1"]
        name.resolver.gate.set()
        await asyncio.sleep(0.001)
        assert await name.get() == ["10.0.0.2"]
        assert name.resolver.calls == 2

    run(main())


def test_a_resolver_that_answers_with_a_crowd_is_cut_short() -> None:
    async def main() -> None:
        name = Name()
        name.resolver.now = [info(f"10.0.0.{i}") for i in range(100)]
        assert len(await name.get()) == connect.MAX_ADDRESSES

    run(main())


def test_the_systems_resolver_is_asked() -> None:
    async def main() -> None:
        found = await connect.system_look_up("localhost", 80)
        assert {where[4][0] for where in found} <= {"127.0.0.1", "::1"}
        assert found

    run(main())


# --- TCP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families_connect(host: str) -> None:
    async def main() -> None:
        async with RawProvider(forever(OK), host) as provider:
            pool = Pool(provider.origin())
            connection = await pool.connect(5)
            assert (await exchange(connection)).body == b"ok"
            pool.close()

    run(main())


def dialer_to(origin: Origin, *addresses: AddressInfo) -> Dialer:
    """A dialer whose name has these addresses."""
    dialer = Dialer(origin, now_ns=time.monotonic_ns)

    async def look_up(_host: str, _port: int) -> list[AddressInfo]:
        return list(addresses)

    dialer._addresses = Addresses("name", origin.port, resolve_s=30, now_ns=time.monotonic_ns, look_up=look_up)
    return dialer


def test_an_address_that_refuses_gives_way_to_the_next() -> None:
    async def main() -> None:
        async with RawProvider(forever(OK)) as provider:
            closed = socket.socket(socket.AF_INET6)
            closed.bind(("::1", 0))
            dialer = dialer_to(
                provider.origin(), info("::1", closed.getsockname()[1]), info("127.0.0.1", provider.port)
            )
            await dialer.dial(asyncio.Protocol(), 5)
            closed.close()

    run(main())


def test_an_address_that_is_silent_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "STAGGER_S", 0.01)

    async def main() -> None:
        # a listener whose backlog is full accepts no further SYN: connecting to it hangs
        silent = socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=0)
        fillers = []
        for _ in range(4):
            filler = socket.socket(socket.AF_INET6)
            filler.settimeout(0)
            filler.connect_ex(silent.getsockname())
            fillers.append(filler)
        async with RawProvider(forever(OK)) as provider:
            hanging = info("::1", silent.getsockname()[1])
            protocol = asyncio.Protocol()
            await dialer_to(provider.origin(), hanging, info("127.0.0.1", provider.port)).dial(protocol, 5)
            before = open_files()
            with pytest.raises(UpstreamConnectTimeout, match="TCP") as error:
                await dialer_to(provider.origin(), hanging).dial(asyncio.Protocol(), 0.02)
            assert open_files() == before
            assert str(provider.port) not in error.value.message
        for filler in (*fillers, silent):
            filler.close()

    run(main())


def test_the_name_counts_against_the_time_limit() -> None:
    async def main() -> None:
        dialer = Dialer(Origin("http", "name.invalid", 80), now_ns=time.monotonic_ns)
        resolver = Resolver()
        resolver.gate.clear()
        dialer._addresses = Addresses("name", 80, resolve_s=30, now_ns=time.monotonic_ns, look_up=resolver)
        with pytest.raises(UpstreamConnectTimeout, match="name"):
            await dialer.dial(asyncio.Protocol(), 0.01)
        resolver.gate.set()

    run(main())


def test_sockets_are_probed_and_do_not_wait_for_more_to_send() -> None:
    class Keeps(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

    async def main() -> None:
        async with RawProvider(forever(OK)) as provider:
            protocol = Keeps()
            await Dialer(provider.origin(), now_ns=time.monotonic_ns).dial(protocol, 5)
            sock = protocol.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 45
            protocol.transport.close()

    run(main())


# --- proxies --------------------------------------------------------------------------------------------------------


def refused_tunnel(reply: bytes) -> GatewayError:
    """What connecting says when the proxy answers CONNECT with `reply`."""
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(reply)

    async def main() -> GatewayError:
        async with RawProvider(handle) as proxy:
            origin = Origin("https", "api.example.com", 443, proxy=f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
            before = open_files()
            with pytest.raises(UpstreamConnectError) as error:
                await Dialer(origin, now_ns=time.monotonic_ns).dial(asyncio.Protocol(), 5)
            await until(lambda: open_files() == before)
            return error.value

    error = run(main())
    assert seen[0].startswith(
        b"CONNECT api.example.com:443 HTTP/1.1\r\nhost: api.example.com:443\r\nproxy-authorization: "
    )
    assert SECRET not in f"{error.message}{error.detail}{error!r}"
    return error


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n\r\n", "407"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\nnope", "status 403"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "status 502"),
        (b"HTTP/1.1 200 OK\r\n\r\n\x16\x03", "bytes of its own"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "check `proxy`"),
        (b"HTTP/1.1 200 OK\r\n", "check `proxy`"),
        (b"", "check `proxy`"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5000, "check `proxy`"),
    ],
)
def test_a_proxy_that_does_not_connect_us_is_named(reply: bytes, words: str) -> None:
    assert words in refused_tunnel(reply).message


def test_a_silent_proxy_runs_into_the_time_limit() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        async with RawProvider(silent) as proxy:
            origin = Origin("https", "api.example.com", 443, proxy=f"http://127.0.0.1:{proxy.port}")
            with pytest.raises(UpstreamConnectTimeout, match="proxy"):
                await Dialer(origin, now_ns=time.monotonic_ns).dial(asyncio.Protocol(), 0.02)

    run(main())


def test_a_proxy_that_is_not_there_is_named() -> None:
    async def main() -> None:
        async with RawProvider(forever(OK)) as gone:
            origin = Origin("https", "api.example.com", 443, proxy=f"http://me:{SECRET}@127.0.0.1:{gone.port}")
        await asyncio.sleep(0)
        with pytest.raises(UpstreamConnectError, match="proxy") as error:
            await Dialer(origin, now_ns=time.monotonic_ns).dial(asyncio.Protocol(), 5)
        assert SECRET not in f"{error.value.message}{error.value.detail}"

    run(main())


# --- TLS options, without a connection ------------------------------------------------------------------------------


def test_an_unusable_tls_file_is_refused_at_load_by_its_setting(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    missing = str(tmp_path / "missing.pem")
    for setting in ("ca_file", "client_cert"):
        for file, words in ((missing, "cannot be read: No such file"), (str(junk), "PEM")):
            with pytest.raises(ValueError, match=setting) as error:
                Pool(Origin("https", "api.example.com", 443, **{setting: file}))  # type: ignore[arg-type]
            assert words in str(error.value)
            assert file in str(error.value)


def test_a_plain_provider_needs_no_tls_files() -> None:
    pool = Pool(Origin("http", "api.example.com", 80, ca_file="/nowhere"))
    assert pool.open == 0


def test_a_key_that_wants_a_password_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("client", password=b"open sesame")
    with pytest.raises(ValueError, match="unencrypted"):
        tls_context(Origin("https", "api.example.com", 443, client_cert=cert, client_key=key))


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, _ = authority.issue("client")
    _, key = authority.issue("other")
    with pytest.raises(ValueError, match="client_key"):
        tls_context(Origin("https", "api.example.com", 443, client_cert=cert, client_key=key))


def test_tls_settings_are_made_once_until_a_file_changes(tmp_path: Path) -> None:
    ca_file = Authority(tmp_path).ca_file
    origin = Origin("https", "api.example.com", 443, ca_file=ca_file)
    first = tls_context(origin)
    assert tls_context(Origin("https", "other.example.com", 443, ca_file=ca_file)) is first
    assert tls_context(Origin("https", "other.example.com", 443)) is not first
    os.utime(ca_file, ns=(1, 1))
    assert tls_context(origin) is not first


def test_verification_is_always_on(tmp_path: Path) -> None:
    for options in ({}, {"ca_file": Authority(tmp_path).ca_file}):
        context = tls_context(Origin("https", "api.example.com", 443, **options))  # type: ignore[arg-type]
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_few_tls_settings_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connect, "_MAX_CONTEXTS", 2)
    monkeypatch.setattr(connect, "_contexts", {})
    for number in range(4):
        tls_context(Origin("https", "api.example.com", 443, ca_file=Authority(tmp_path, f"ca-{number}").ca_file))
    assert len(connect._contexts) == 2
