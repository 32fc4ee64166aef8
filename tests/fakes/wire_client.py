"""A caller that sees bytes: what was answered, in what pieces, and how the answer ended.

An answer ends `whole` (as its framing promised), `cut` (the connection closed too early: no last zero chunk, or too
few bytes) or `reset`. That difference is what a truncated stream is told by, and what most clients hide.
"""

import contextlib
import http.client
import json
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tests.fakes.patience import PATIENCE_S

_PIECE_BYTES = 65536


@dataclass
class Answer:
    """One answer, read to its end."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    ended: str = "whole"
    pieces: list[bytes] = field(default_factory=list, repr=False)

    def header(self, name: str) -> str:
        """The one value of a header, "" when it is absent; two are a mistake."""
        found = [value for given, value in self.headers if given.lower() == name]
        assert len(found) <= 1, found
        return found[0] if found else ""

    def has(self, name: str) -> bool:
        return any(given.lower() == name for given, _ in self.headers)

    @property
    def json(self) -> Any:  # noqa: ANN401 - a test reads what it expects, and fails where it is not
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON payloads of an event stream, without [DONE]."""
        lines = self.body.decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


class Call:
    """One connection with one answer read from it at a time."""

    def __init__(
        self,
        port: int,
        raw: bytes = b"",
        method: str = "POST",
        *,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
    ) -> None:
        self._method = method
        self._response: http.client.HTTPResponse | None = None
        self.socket = socket.socket()
        try:
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(PATIENCE_S)
            self.socket.connect(("127.0.0.1", port))
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        except OSError:
            self.socket.close()
            raise
        if raw:
            self.send(raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, raw: bytes) -> None:
        """Send bytes; a peer that has refused may not take them all, which its answer tells."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(raw)

    def head(self) -> Answer:
        """Wait for the head alone."""
        self._response = http.client.HTTPResponse(self.socket, method=self._method)
        self._response.begin()
        return Answer(self._response.status, self._response.getheaders())

    def pieces(self) -> Iterator[bytes]:
        """The body's bytes as they come in. Raises IncompleteRead or ConnectionResetError where they break off."""
        assert self._response is not None
        while data := self._response.read1(_PIECE_BYTES):
            yield data
        if self._response.length:
            raise http.client.IncompleteRead(b"")

    def answer(self) -> Answer:
        """Wait for the whole answer, however it ends."""
        answer = self.head()
        try:
            answer.pieces.extend(self.pieces())
        except http.client.IncompleteRead:
            answer.ended = "cut"
        except ConnectionResetError:
            answer.ended = "reset"
        answer.body = b"".join(answer.pieces)
        return answer

    def closed(self) -> bool:
        """Wait for the end of the connection; what still comes is thrown away. False for a reset."""
        try:
            while self.socket.recv(_PIECE_BYTES):
                pass
        except ConnectionResetError:
            return False
        return True

    def close(self) -> None:
        """Leave, as a program that ends."""
        if self._response is not None:
            self._response.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def request(method: str, path: str, body: object, headers: Mapping[str, str] | None = None) -> bytes:
    """A request's bytes; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Host": "gateway.test", **(headers or {})}
    framed = {"transfer-encoding", "content-length"} & {name.lower() for name in given}
    if not framed and (content or method == "POST"):
        given["Content-Length"] = str(len(content))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content
