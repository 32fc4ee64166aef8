"""Anchoring at a time stamping authority (RFC 3161): a signed statement that this manifest existed at that time.

    <path>/<node>/<n>.json    the manifest's line
    <path>/<node>/<n>.tsr     the authority's answer: `openssl ts -verify -data <n>.json -in <n>.tsr -CAfile <ca_file>`

Only a hash leaves the node. A token proves that a manifest is not younger than it says; to show that it was taken away
it has to be kept somewhere else, so `path` should be out of reach of whoever has this node, or be copied from there.

Invariants: an answer is kept only if it is granted for this very hash and nonce and, where `ca_file` is set, signed by
an authority it names; without `ca_file` whoever checks the token later has to. The answer is bounded in bytes and time.
"""

import http.client
import time
import urllib.error
import urllib.request
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from gateway.config.files import replacing
from gateway.config.schema import Anchor as AnchorSettings
from gateway.journal.anchor.base import AnchorFailed, extra

TIMEOUT_S: Final = 15.0  # of one wait
TOTAL_S: Final = 30.0
MAX_BYTES: Final = 64 * 1024
_CHUNK_BYTES: Final = 4096
_GRANTED: Final = 0


class TimestampAnchor:
    """An anchor of kind rfc3161."""

    def __init__(self, settings: AnchorSettings) -> None:
        self._url = settings.url
        self._path: Final = Path(settings.path)
        self._ca_file = settings.ca_file
        self.name = f"rfc3161 {settings.url}"

    def put(self, head: bytes, n: int, node: str) -> str:
        """Have it stamped and keep the token. Raises AnchorFailed."""
        line, token = self._files(n, node)
        if token.exists():
            return self.check(head, n, node)
        client = extra("rfc3161_client", "timestamp")
        request = (
            client.TimestampRequestBuilder()
            .data(head)
            .hash_algorithm(client.HashAlgorithm.SHA256)
            .nonce(nonce=True)
            .cert_request(cert_request=True)
            .build()
        )
        answer = self._ask(request.as_bytes())
        stamped = self._judge(answer, head, client.VerifierBuilder.from_request(request), request.nonce)
        try:
            line.parent.mkdir(parents=True, exist_ok=True)
            for path, content in ((line, head), (token, answer)):  # the token last: where it is, both are
                with replacing(path) as file:
                    file.write(content)
        except OSError as error:
            raise AnchorFailed(f"{token}: a token cannot be kept: {error.strerror or error}") from error
        return f"{token} ({stamped})"

    def check(self, head: bytes, n: int, node: str) -> str:
        """Where the token is, and of what time. Raises AnchorFailed."""
        _, token = self._files(n, node)
        client = extra("rfc3161_client", "timestamp")
        try:
            answer = token.read_bytes()
        except OSError as error:
            raise AnchorFailed(f"{token}: cannot be read: {error.strerror or error}") from error
        try:
            return f"{token} ({self._judge(answer, head, client.VerifierBuilder(), None)})"
        except AnchorFailed as error:
            raise AnchorFailed(f"{token}: {error}") from error

    def _files(self, n: int, node: str) -> tuple[Path, Path]:
        stem = self._path / node / str(n)
        return stem.with_suffix(".json"), stem.with_suffix(".tsr")

    # --- the authority ----------------------------------------------------------------------------------------------

    def _ask(self, query: bytes) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - http and https alone, by the config's check
            self._url, query, {"content-type": "application/timestamp-query", "accept": "application/timestamp-reply"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
                return _bounded(answer)
        except urllib.error.HTTPError as error:
            error.close()
            raise AnchorFailed(f"{self._url}: it answers with status {error.code}: is this its address?") from error
        except (OSError, http.client.HTTPException) as error:
            raise AnchorFailed(f"{self._url}: it cannot be asked: {getattr(error, 'reason', error)}") from error

    def _judge(self, answer: bytes, head: bytes, builder: Any, nonce: int | None) -> str:  # noqa: ANN401 - as `extra`
        """The time of a token that is about `head`. Raises AnchorFailed."""
        client = extra("rfc3161_client", "timestamp")
        try:
            response = client.decode_timestamp_response(answer)
            if response.status != _GRANTED:
                raise AnchorFailed(f"{self._url}: it refuses: {', '.join(response.status_string) or response.status}")
            info = response.tst_info
            if info.message_imprint.message != sha256(head).digest() or (nonce is not None and info.nonce != nonce):
                raise AnchorFailed(f"{self._url}: what it stamped is something else than this manifest")
            if self._ca_file:
                for certificate in self._roots():
                    builder = builder.add_root_certificate(certificate)
                builder.build().verify_message(response, head)
        except ValueError as error:
            raise AnchorFailed(f"{self._url}: it answers with no token: {error}") from error
        except client.VerificationError as error:
            raise AnchorFailed(f"{self._url}: its token does not hold against {self._ca_file}: {error}") from error
        return f"{info.gen_time:%Y-%m-%dT%H:%M:%SZ}"

    def _roots(self) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(Path(self._ca_file).read_bytes())
        except (OSError, ValueError) as error:
            raise AnchorFailed(f"ca_file {self._ca_file} holds no certificates that can be read: {error}") from error


def _bounded(answer: http.client.HTTPResponse) -> bytes:
    """The body, if it comes in time and is no larger than a token. Raises OSError."""
    body, until_s = b"", time.monotonic() + TOTAL_S
    while chunk := answer.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise OSError(f"its answer is larger than {MAX_BYTES} bytes")
        if time.monotonic() > until_s:
            raise OSError(f"its answer takes longer than {TOTAL_S:g} s")
    return body
