"""Certificates that live for one run: an authority nobody else trusts, and one certificate that it signed.

Both are ECDSA on P-256, as most public servers have them today. All ends that a run speaks TLS with are on loopback, so
one certificate does for all: it is for `localhost`, which nginx verifies, and for 127.0.0.1.
"""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.speed.launch import LOOPBACK

SERVER_NAME: Final = "localhost"
VALID: Final = dt.timedelta(days=1)  # to either side of now: the longest run fits, and a clock may be wrong


@dataclass(frozen=True)
class Certificates:
    """Where they lie."""

    ca_file: Path
    cert: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """New ones, in a folder that is there."""
        found = cls(folder / "ca.pem", folder / "server.pem", folder / "server.key")
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority = x509.BasicConstraints(ca=True, path_length=0)
        ca = _builder("bench authority", ca_key).add_extension(authority, critical=True)
        names = [x509.DNSName(SERVER_NAME), x509.IPAddress(ipaddress.ip_address(LOOPBACK.address))]
        server = _builder(SERVER_NAME, key).add_extension(x509.SubjectAlternativeName(names), critical=False)
        for path, builder in ((found.ca_file, ca), (found.cert, server)):
            path.write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        found.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return found

    def trust(self) -> ssl.SSLContext:
        """For a client that believes the authority and nobody else."""
        return ssl.create_default_context(cafile=self.ca_file)


def _builder(subject: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("bench authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID)
        .not_valid_after(now + VALID)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
