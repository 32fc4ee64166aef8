"""A time stamping authority (RFC 3161) that lives for one test: `openssl ts` behind a small HTTP server.

Its certificates are made on the spot. `answer` replaces what it says next, for authorities that fail in some way.
"""

import datetime as dt
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = dt.timedelta(days=1)
_CONFIG = """
[tsa]
default_tsa = fake
[fake]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
ess_cert_id_alg = sha256
"""


class Answer:
    """What the authority says instead of a token."""

    def __init__(self, body: bytes, status: int = 200, content_type: str = "application/timestamp-reply") -> None:
        self.body = body
        self.status = status
        self.content_type = content_type


class Stamper:
    """Stamps without a network. `ca_file` is what its tokens are checked against."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.ca_file = str(folder / "ca.pem")
        self._make_certificates()
        (folder / "serial").write_text("01\n")
        (folder / "openssl.cnf").write_text(_CONFIG.format(folder=folder))

    def stamp(self, query: bytes) -> bytes:
        """The answer of `openssl ts` to a query, granted or refused."""
        question, reply = self._folder / "query.tsq", self._folder / "reply.tsr"
        question.write_bytes(query)
        config = self._folder / "openssl.cnf"
        subprocess.run(
            ["openssl", "ts", "-reply", "-config", config, "-queryfile", question, "-out", reply],
            check=True,
            capture_output=True,
        )
        return reply.read_bytes()

    def _make_certificates(self) -> None:
        root, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority = (
            _builder("root", root.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(root, hashes.SHA256())
        )
        certificate = (
            _builder("time stamps", signer.public_key())
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
            .sign(root, hashes.SHA256())
        )
        Path(self.ca_file).write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        (self._folder / "signer.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self._folder / "signer.key").write_bytes(
            signer.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


class TimestampAuthority(Stamper):
    """Serves at `url`. `asked` counts requests."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked = 0
        self.answer: Callable[[bytes], Answer] = lambda query: Answer(self.stamp(query))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}/tsr"

    def hold(self) -> Callable[[], None]:
        """Say nothing until the returned function is called."""
        go_on = threading.Event()

        def held(query: bytes) -> Answer:
            go_on.wait(10)
            return Answer(self.stamp(query))

        self.answer = held
        return go_on.set

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _builder(subject: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )


def _handler_of(authority: TimestampAuthority) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            authority.asked += 1
            assert self.headers["content-type"] == "application/timestamp-query"
            answer = authority.answer(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(answer.status)
            self.send_header("content-type", answer.content_type)
            self.send_header("content-length", str(len(answer.body)))
            with suppress(ConnectionError):  # whoever asked has left
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
