"""TLS to a provider as it is spoken on the wire: who is trusted, who we say we are, and how a cut stream is told."""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from gateway.errors import UpstreamConnectError, UpstreamError, UpstreamReset
from gateway.relay.origin import Origin
from gateway.relay.pool import Pool
from tests.fakes.authority import Authority
from tests.fakes.raw_provider import (
    OK,
    Handler,
    RawProvider,
    Recorder,
    exchange,
    forever,
    read_request,
    run,
    until,
)

SECRET = "s3cr3t"
UNTIL_EOF = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refusal(server: ssl.SSLContext, **options: str) -> UpstreamConnectError:
    """Why no connection comes about."""

    async def main() -> UpstreamConnectError:
        async with RawProvider(forever(OK), tls=server) as provider:
            pool = Pool(provider.origin(**options))
            with pytest.raises(UpstreamConnectError) as error:
                await pool.connect(5)
            assert pool.open == 0
            return error.value

    return run(main())


def ask(handler: Handler, server: ssl.SSLContext, **options: str) -> Recorder:
    """One exchange on a new connection."""

    async def main() -> Recorder:
        async with RawProvider(handler, tls=server) as provider:
            pool = Pool(provider.origin(**options))
            heard = await exchange(await pool.connect(5))
            pool.close()
            await until(lambda: pool.open == 0)
            return heard

    return run(main())


@contextmanager
def openssl_provider(server: ssl.SSLContext, answer: bytes, *, goodbye: bool) -> Iterator[Origin]:
    """One connection of a server that says what OpenSSL says, alerts too; uvloop's servers leave those out."""

    def serve() -> None:
        sock, _ = listener.accept()
        try:
            with server.wrap_socket(sock, server_side=True) as tls:
                tls.recv(65_536)
                tls.sendall(answer)
                if goodbye:
                    tls.unwrap()
        except OSError:  # the client was refused, or did not wait
            sock.close()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Origin("https", "127.0.0.1", listener.getsockname()[1])
    finally:
        thread.join()
        listener.close()


# --- whom we trust --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_provider_of_a_trusted_authority_answers(authority: Authority, host: str) -> None:
    async def main() -> None:
        async with RawProvider(forever(OK), tls=authority.server("localhost", "127.0.0.1")) as provider:
            pool = Pool(provider.origin(host=host, ca_file=authority.ca_file))
            for _ in range(3):
                connection = pool.take() or await pool.connect(5)
                assert (await exchange(connection)).body == b"ok"
            assert provider.connections == 1
            pool.close()
            await until(lambda: pool.open == 0)

    run(main())


def test_the_systems_authorities_do_not_know_it(authority: Authority) -> None:
    error = refusal(authority.server("127.0.0.1"))
    assert "ca_file" in error.message


def test_another_authority_does_not_know_it(authority: Authority, tmp_path: Path) -> None:
    error = refusal(authority.server("127.0.0.1"), ca_file=Authority(tmp_path, "other").ca_file)
    assert "ca_file" in error.message


def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    for names in (["other.example"], ["localhost"]):
        error = refusal(authority.server(*names), ca_file=authority.ca_file)
        assert "base_url" in error.message
        assert "127.0.0.1" not in error.message
        assert "127.0.0.1" in error.detail


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    error = refusal(authority.server("127.0.0.1", expired=True), ca_file=authority.ca_file)
    assert "expired" in error.message


def test_a_provider_without_tls_is_named_as_such(authority: Authority) -> None:
    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with RawProvider(greets) as provider:
            pool = Pool(provider.origin(scheme="https", ca_file=authority.ca_file))
            with pytest.raises(UpstreamConnectError, match="served over TLS"):
                await pool.connect(5)

    run(main())


def test_a_handshake_that_breaks_off_is_an_error_and_leaks_nothing() -> None:
    async def leaves(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def main() -> None:
        async with RawProvider(leaves) as provider:
            pool = Pool(provider.origin(scheme="https"))
            await asyncio.sleep(0.01)
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only their number
            for _ in range(20):
                with pytest.raises(UpstreamConnectError):
                    await pool.connect(5)
            await until(lambda: len(os.listdir("/proc/self/fd")) == before)  # noqa: PTH208
            assert pool.open == 0

    run(main())


# --- who we say we are ----------------------------------------------------------------------------------------------


def test_the_name_we_ask_for_and_the_protocol_we_speak_are_announced(authority: Authority) -> None:
    asked: list[str | None] = []
    server = authority.server("localhost")
    server.set_alpn_protocols(["h2", "http/1.1"])
    server.sni_callback = lambda _tls, name, _context: asked.append(name)
    spoken: list[str | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        spoken.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        writer.write(OK)

    assert ask(handle, server, host="localhost", ca_file=authority.ca_file).body == b"ok"
    assert (asked, spoken) == (["localhost"], ["http/1.1"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_is_shown_when_asked_for(authority: Authority, version: ssl.TLSVersion) -> None:
    server = authority.server("127.0.0.1")
    server.minimum_version = server.maximum_version = version
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(authority.ca_file)
    cert, key = authority.issue("gateway.example")
    trusted = {"ca_file": authority.ca_file}
    assert ask(forever(OK), server, **trusted, client_cert=cert, client_key=key).body == b"ok"
    joined = Path(cert).with_suffix(".pem")
    joined.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
    assert ask(forever(OK), server, **trusted, client_cert=str(joined)).body == b"ok"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_missing_client_certificate_is_named(authority: Authority, version: ssl.TLSVersion) -> None:
    server = authority.server("127.0.0.1")
    server.minimum_version = server.maximum_version = version
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(authority.ca_file)

    async def main(origin: Origin) -> UpstreamError | None:
        try:
            connection = await Pool(msgspec.structs.replace(origin, ca_file=authority.ca_file)).connect(5)
        except UpstreamConnectError as error:  # TLS 1.2 refuses in the handshake
            return error
        return (await exchange(connection)).error  # in TLS 1.3 the provider objects when we believe to be connected

    with openssl_provider(server, OK, goodbye=True) as origin:
        error = run(main(origin))
    assert isinstance(error, UpstreamConnectError if version is ssl.TLSVersion.TLSv1_2 else UpstreamReset)
    assert "client_cert" in error.message


# --- what TLS changes about an answer -------------------------------------------------------------------------------


def test_a_large_answer_and_a_large_request_pass(authority: Authority) -> None:
    body = os.urandom(1_000_000)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + request[-1_000_000:])
        await writer.drain()
        await reader.read()

    async def main() -> None:
        async with RawProvider(echo, tls=authority.server("127.0.0.1")) as provider:
            pool = Pool(provider.origin(ca_file=authority.ca_file))
            heard = await exchange(await pool.connect(5), b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n", body)
            assert heard.body == body
            assert pool.idle == 1
            pool.close()
            await until(lambda: pool.open == 0)

    run(main())


@pytest.mark.parametrize("goodbye", [True, False])
def test_only_a_goodbye_ends_a_body_of_unknown_length(authority: Authority, goodbye: bool) -> None:
    async def main(origin: Origin) -> Recorder:
        return await exchange(await Pool(msgspec.structs.replace(origin, ca_file=authority.ca_file)).connect(5))

    with openssl_provider(authority.server("127.0.0.1"), UNTIL_EOF, goodbye=goodbye) as origin:
        heard = run(main(origin))
    assert heard.body == b"hello"
    assert heard.events == ["head", "body", "end" if goodbye else "lost"]


def test_a_paused_answer_resumes_under_tls(authority: Authority) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x" * 100_000)
            await writer.drain()
        await reader.read()

    async def main() -> None:
        async with RawProvider(handle, tls=authority.server("127.0.0.1")) as provider:
            pool = Pool(provider.origin(ca_file=authority.ca_file))
            connection = await pool.connect(5)

            class Slow(Recorder):
                def on_body(self, data: bytes) -> None:
                    super().on_body(data)
                    connection.pause()

            heard = Slow()
            connection.start(b"GET / HTTP/1.1\r\n\r\n", b"", heard)
            while not heard.over.is_set():
                connection.resume()
                await asyncio.sleep(0)
            assert heard.body == b"x" * 10_000_000
            pool.close()
            await until(lambda: pool.open == 0)

    run(main())


# --- through a proxy ------------------------------------------------------------------------------------------------


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


def test_a_tunnel_ends_at_the_provider_not_at_the_proxy(authority: Authority) -> None:
    seen: list[bytes] = []

    async def main() -> None:
        async with RawProvider(forever(OK), tls=authority.server("localhost")) as provider:

            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                onward = await asyncio.open_connection(provider.host, provider.port)
                for part in (b"HTTP/1.1 200 Connection", b" established\r\nvia: 1.1 proxy\r\n", b"\r\n"):
                    writer.write(part)
                    await asyncio.sleep(0.001)
                await asyncio.gather(pipe(reader, onward[1]), pipe(onward[0], writer))

            async with RawProvider(handle) as proxy:
                origin = Origin(
                    "https",
                    "localhost",
                    provider.port,
                    ca_file=authority.ca_file,
                    proxy=f"http://me:{SECRET}@127.0.0.1:{proxy.port}",
                )
                pool = Pool(origin)
                connection = await pool.connect(5)
                assert connection.target_prefix == b""
                for _ in range(2):
                    heard = await exchange(pool.take() or connection)
                    assert heard.body == b"ok"
                pool.close()
                await until(lambda: pool.open == 0)
            assert seen == [
                b"CONNECT localhost:%d HTTP/1.1\r\nhost: localhost:%d\r\n" % (provider.port, provider.port)
                + origin.proxy_authorization
                + b"\r\n"
            ]

    run(main())


def test_a_proxy_cannot_pose_as_the_provider(authority: Authority, tmp_path: Path) -> None:
    """An intercepting proxy answers CONNECT and then speaks TLS itself, with a certificate of its own."""
    own = Authority(tmp_path, "intercepting").server("localhost")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.start_tls(own)

    async def main() -> None:
        async with RawProvider(handle) as proxy:
            origin = Origin(
                "https", "localhost", 443, ca_file=authority.ca_file, proxy=f"http://127.0.0.1:{proxy.port}"
            )
            with pytest.raises(UpstreamConnectError, match="ca_file"):
                await Pool(origin).connect(5)

    run(main())
