"""TLS towards callers, with real handshakes: which certificate whom is shown, and what a reload changes."""

import asyncio
import ssl
from pathlib import Path
from typing import Literal

import pytest

from gateway.config.schema import SniCertificate, Tls
from gateway.listener.tls import ServerTls
from gateway.units import KIB
from tests.fakes.authority import Authority
from tests.fakes.provider import WHOLE
from tests.fakes.served import chat, get, served
from tests.fakes.transfer import run

Subject = dict[str, str]


def client(authority: Authority, **options: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    for name, value in options.items():
        setattr(context, name, value)
    return context


def tls(authority: Authority, *names: str, **options: object) -> Tls:
    cert, key = authority.issue(*(names or ("gateway.test",)))
    return Tls(cert=cert, key=key, **options)  # type: ignore[arg-type]


def entry(authority: Authority, *names: str) -> SniCertificate:
    cert, key = authority.issue(*names)
    return SniCertificate(names=names, cert=cert, key=key)


async def shown(server: ServerTls, context: ssl.SSLContext, name: str) -> tuple[str, str]:
    """The common name of the certificate that a caller of this name is shown, and the protocol agreed on."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server.context)
    try:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = secured.getpeercert()
        assert certificate is not None
        await reader.read()
        writer.close()
        subject = dict(pair for row in certificate["subject"] for pair in row)  # type: ignore[misc]
        return str(subject["commonName"]), secured.selected_alpn_protocol() or ""
    finally:
        listening.close()


def test_certificates_are_chosen_by_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        sni = (entry(authority, "one.test", "two.test"), entry(authority, "*.many.test"))
        server = ServerTls(tls(authority, "gateway.test", sni=sni))
        context = client(authority)
        assert await shown(server, context, "gateway.test") == ("gateway.test", "http/1.1")
        assert await shown(server, context, "one.test") == ("one.test", "http/1.1")
        assert await shown(server, context, "TWO.test") == ("one.test", "http/1.1")
        assert await shown(server, context, "x.many.test") == ("*.many.test", "http/1.1")
        for other in ("a.b.many.test", "other.test"):
            with pytest.raises(ssl.SSLCertVerificationError):
                await shown(server, context, other)

    run(main())


def test_a_reload_shows_new_certificates_from_the_next_handshake_on(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        server = ServerTls(tls(authority, "old.test"))
        held = server.context
        server.reload(tls(authority, "new.test", sni=(entry(authority, "one.test"),)))
        assert server.context is held
        assert (await shown(server, client(authority), "new.test"))[0] == "new.test"
        assert (await shown(server, client(authority), "one.test"))[0] == "one.test"

    run(main())


def test_a_reload_that_cannot_be_read_keeps_what_was(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")

    async def main() -> None:
        server = ServerTls(tls(authority, "old.test"))
        for cert in (str(broken), str(tmp_path / "absent.pem")):
            with pytest.raises(OSError, match=r".*"):
                server.reload(Tls(cert=cert, key=cert))
        assert (await shown(server, client(authority), "old.test"))[0] == "old.test"

    run(main())


def test_what_cannot_be_read_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ServerTls(Tls(cert=str(tmp_path / "absent"), key=str(tmp_path / "absent")))


@pytest.mark.parametrize("least", ["1.2", "1.3"])
def test_the_least_version(tmp_path: Path, least: Literal["1.2", "1.3"]) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        server = ServerTls(tls(authority, min_version=least))
        old = client(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
        if least == "1.2":
            assert (await shown(server, old, "gateway.test"))[0] == "gateway.test"
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shown(server, old, "gateway.test")

    run(main())


def test_callers_must_show_a_certificate_where_one_is_asked_for(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")

    async def main() -> None:
        server = ServerTls(tls(authority, client_ca=authority.ca_file)).context
        good, none, foreign = client(authority), client(authority), client(authority)
        good.load_cert_chain(*authority.issue("caller.test"))
        foreign.load_cert_chain(*stranger.issue("caller.test"))
        async with served(tls=(server, good)) as node:
            assert (await node.call(chat())).body == WHOLE
            for refused in (none, foreign):
                node._tls = refused
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    await node.call(chat())

    run(main())


def test_a_connection_over_tls_serves_request_after_request(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        contexts = (ServerTls(tls(authority)).context, client(authority))
        async with served(tls=contexts) as node:
            caller = await node.caller()
            await caller.sends(chat() + get() + chat())
            assert [(await caller.answer()).status for _ in range(3)] == [200, 200, 200]

    run(main())


def test_an_early_refusal_over_tls_arrives_whole_while_the_body_is_still_on_its_way(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def main() -> None:
        contexts = (ServerTls(tls(authority)).context, client(authority))
        async with served(tls=contexts) as node:
            for _ in range(5):
                caller = await node.caller()
                await caller.sends(chat(b"", key=b"", length=False)[:-2] + b"content-length: 500000\r\n\r\n")
                await caller.sends(*[b"x" * (50 * KIB)] * 8)
                answered = await caller.answer()
                assert (answered.status, answered.whole) == (401, True)
                caller.closes()

    run(main())
