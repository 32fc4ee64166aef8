"""The certificate is believed by those who trust the run's authority, for its names, and by nobody else."""

import ssl
from pathlib import Path

import pytest

from bench.speed.certificates import Certificates


def handshake(trust: ssl.SSLContext, made: Certificates, name: str) -> None:
    """A client and a server in memory; raises where the client does not believe the server."""
    serves = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serves.load_cert_chain(made.cert, made.key)
    asked, answered = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(answered, asked, server_hostname=name)
    server = serves.wrap_bio(asked, answered, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client.do_handshake()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_it_is_for_both_names_of_loopback(name: str, tmp_path: Path) -> None:
    made = Certificates.make(tmp_path)
    handshake(made.trust(), made, name)


@pytest.mark.parametrize("name", ["example.com", "127.0.0.2"])
def test_it_is_for_no_other_name(name: str, tmp_path: Path) -> None:
    made = Certificates.make(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made.trust(), made, name)


def test_another_runs_authority_is_not_believed(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    trust = Certificates.make(ours).trust()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(trust, Certificates.make(theirs), "localhost")
