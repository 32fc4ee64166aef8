"""Content codings, decoded under limits: of callers' bodies, and of answers that came encoded all the same.

Providers are asked for `identity`; one that encodes anyway would hide usage and completion from the tap, so its
answer is decoded on the way. Invariants: a decoder never yields more than its limit allows, whatever the ratio, and
an input that ends early or goes on behind its end is an error, not a short body.
"""

import zlib
from typing import Final, Protocol

import zstandard

from gateway.units import MIB

GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_FREE_BYTES: Final = 1 * MIB  # below it no ratio is suspicious: small JSON can shrink a hundredfold
MAX_RATIO: Final = 100
_STEP: Final = 256  # bytes fed at once: each four of them can hold a zstd block of 128 KiB
_ZSTD_WINDOW: Final = 8 * MIB
_OF_REQUESTS: Final = frozenset({b"gzip", b"x-gzip", b"zstd"})  # not deflate, which clients spell in two ways


class DecodeError(Exception):
    """The bytes are not what their content-encoding says, or they are cut."""


class TooMuch(Exception):
    """Decoding would exceed the size or the ratio limit."""


class Decoder(Protocol):
    """One body's decoder."""

    def feed(self, data: bytes) -> bytes:
        """Decoded bytes of this piece. Raises DecodeError."""

    def finish(self) -> bytes:
        """What is left at the end. Raises DecodeError when the body is cut."""


class _Zlib:
    def __init__(self, window: int) -> None:
        self._zlib = zlib.decompressobj(window)

    def feed(self, data: bytes) -> bytes:
        try:
            decoded = self._zlib.decompress(data)
        except zlib.error as error:
            raise DecodeError(str(error)) from error
        if self._zlib.unused_data:
            raise DecodeError("bytes behind the end of the encoded body")
        return decoded

    def finish(self) -> bytes:
        if not self._zlib.eof:
            raise DecodeError("the encoded body is cut")
        return b""


class _Zstd:
    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    def feed(self, data: bytes) -> bytes:
        try:
            decoded = self._zstd.decompress(data)
        except zstandard.ZstdError as error:
            raise DecodeError(str(error)) from error
        if self._zstd.unused_data:
            raise DecodeError("bytes behind the end of the encoded body")
        return decoded

    def finish(self) -> bytes:
        if not self._zstd.eof:
            raise DecodeError("the encoded body is cut")
        return b""


def decoder(encoding: bytes) -> Decoder | None:
    """A decoder for a content-encoding, None for one we do not read (or for several at once)."""
    name = encoding.strip().lower()
    if name in (b"gzip", b"x-gzip"):
        return _Zlib(GZIP_WINDOW)
    if name == b"deflate":
        return _Zlib(zlib.MAX_WBITS)
    if name == b"zstd":
        return _Zstd()
    return None


def decode_request(encoding: bytes, body: bytes, limit: int) -> bytes:
    """A caller's whole body, decoded: at most `limit` bytes and 100 times its size (the first MiB is free).

    Raises DecodeError when it is not what it says, TooMuch above the limits. Input is fed in small pieces, so a bomb
    is noticed after one piece's worth of output.
    """
    reader = decoder(encoding) if encoding.strip().lower() in _OF_REQUESTS else None
    if reader is None:
        raise DecodeError(f"content-encoding {encoding.decode('latin-1')!r} is not supported")
    allowed = min(limit, max(_FREE_BYTES, len(body) * MAX_RATIO))
    parts: list[bytes] = []
    total = 0
    for start in range(0, len(body), _STEP):
        parts.append(reader.feed(body[start : start + _STEP]))
        total += len(parts[-1])
        if total > allowed:
            raise TooMuch
    parts.append(reader.finish())
    return b"".join(parts)
