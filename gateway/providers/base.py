"""What a vendor is: how its accounts are addressed, how we prove ourselves to it, and what its refusals mean.

A `Vendor` is the row one file of this package contributes; an `Account` is a vendor joined with the operator's
settings, compiled once at load into the bytes every request starts with. Both are pure: an account knows the address
of its server, and nothing of sockets.

Invariants: an account's `repr` shows no credential; a header set by the operator or by the vendor wins over the
caller's; the caller's own credential goes upstream only where the account says `credential: caller`.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final
from urllib.parse import urlsplit

import msgspec

HeaderPairs = tuple[tuple[bytes, bytes], ...]


class Verdict(IntEnum):
    """Whose trouble a provider's status is."""

    CALLER = 0  # returned as it came: another target would say the same
    OURS = 1  # our credential, account or model name: another target may serve
    ELSEWHERE = 2  # the provider's own trouble


_OURS: Final = frozenset({401, 402, 403, 404})
_TRANSIENT: Final = frozenset({408, 429})
_SERVER_ERROR: Final = 500
_CLIENT_ERROR: Final = 400


def judge_status(status: int) -> Verdict:
    """The verdict HTTP itself suggests; vendors refine it where they are known to differ. Raises nothing."""
    if status in _TRANSIENT or status >= _SERVER_ERROR:
        return Verdict.ELSEWHERE
    if status in _OURS or status < _CLIENT_ERROR:  # a redirect is a base_url that points at the wrong place
        return Verdict.OURS
    return Verdict.CALLER


class Vendor(msgspec.Struct, frozen=True):
    """One kind of provider. `judge(status, body)` says whose trouble an answer other than 2xx is."""

    kind: str
    dialect: str
    base_url: str
    credential: Callable[[str], HeaderPairs]
    base_path: Callable[[str], str] = str  # from the configured path to the one that upstream paths are joined to
    default_headers: HeaderPairs = ()  # sent unless the caller sends its own
    request_id_header: bytes = b"x-request-id"
    judge: Callable[[int, bytes], Verdict] = lambda status, _body: judge_status(status)


class Account:
    """A vendor as one operator configured it: address, credential and fixed headers, ready as bytes."""

    def __init__(
        self,
        name: str,
        vendor: Vendor,
        *,
        base_url: str,
        api_key: str,
        caller_credential: bool,
        headers: HeaderPairs,
        dedicated_to: frozenset[str] = frozenset(),
    ) -> None:
        url = urlsplit(base_url or vendor.base_url)
        self.name = name
        self.vendor = vendor
        self.dialect = vendor.dialect
        self.scheme = url.scheme
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self.base_path = vendor.base_path(url.path.rstrip("/"))
        self.raw_path = url.path.rstrip("/")
        self.caller_credential = caller_credential
        self.dedicated_to = dedicated_to
        own = () if caller_credential else vendor.credential(api_key)
        self.overrides = frozenset(name for name, _ in (*own, *headers))
        self._fixed = _lines(own + headers)
        self._host = _host_line(self.host, url.port)

    def start_line(self, method: str, path: str, *, prefix: bytes = b"") -> bytes:
        """Request line, host, credential and fixed headers, to be followed by the caller's and a blank line.

        `path` is the full path with its query; `prefix` is the absolute form's origin when a plain proxy asks for it.
        """
        line = b"%b %b%b HTTP/1.1\r\n" % (method.encode(), prefix, path.encode())
        return line + self._host + self._fixed

    def caller_lines(self, credential: bytes) -> bytes:
        """The header lines that carry the caller's own provider credential; empty for accounts of ours."""
        if not self.caller_credential or not credential:
            return b""
        return _lines(self.vendor.credential(credential.decode("latin-1")))

    def default_lines(self, sent: frozenset[bytes]) -> bytes:
        """The vendor's headers that the caller has not sent itself."""
        missing = tuple(pair for pair in self.vendor.default_headers if pair[0] not in sent)
        return _lines(tuple(pair for pair in missing if pair[0] not in self.overrides))

    def judge(self, status: int, body: bytes) -> Verdict:
        """Whose trouble this status is; a refused credential is the caller's where it brought its own."""
        verdict = self.vendor.judge(status, body)
        if verdict is Verdict.OURS and self.caller_credential and status in _OURS:
            return Verdict.CALLER
        return verdict

    def __repr__(self) -> str:
        return f"Account({self.name!r}, {self.vendor.kind}, {self.scheme}://{self.host}:{self.port}{self.base_path})"


def _lines(pairs: HeaderPairs) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in pairs)


def _host_line(host: str, port: int | None) -> bytes:
    shown = f"[{host}]" if ":" in host else host
    return f"host: {shown}{f':{port}' if port else ''}\r\n".encode()
