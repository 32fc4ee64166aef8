"""Content codings, decoded under limits: of callers' bodies, and of answers that came encoded all the same.

Providers are asked for `identity`; one that encodes anyway would hide usage and completion from the tap, so its
answer is decoded on the way. What a read of one may unfold to is bounded in bytes, since that is what it costs, and not
by its ratio: hundreds of equal embeddings shrink a thousandfold. The bound is per read and not over the answer, where
megabytes of honest text would save up for one read that unfolds to gigabytes; between reads a slow caller stops them.
Events cost by their lines, more than by their bytes (25 MiB of empty ones kept a worker busy for half a minute), so a
read of those is bounded in lines too.

Invariants: a decoder never yields more than its limit allows, whatever the ratio, and holds at most `_STEP` bytes'
worth beyond it for a moment; an input that ends early or goes on behind its end is an error, not a short body.
"""

import zlib
from typing import Final, Protocol

import zstandard

from gateway.units import KIB, MIB

GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_FREE_BYTES: Final = 1 * MIB  # below it no ratio is suspicious: small JSON can shrink a hundredfold
MAX_RATIO: Final = 100
READ_BYTES: Final = 25 * MIB  # of one read of an answer, decoded: 28 ms of zstd, 76 ms of gzip; an honest one takes 10
READ_LINES: Final = 256 * KIB  # of one read of events, decoded: as many as fit into one that was never encoded
_STEP: Final = 256  # bytes given to zstd at once, which knows no limit: each four of them can hold a block of 128 KiB
_ZSTD_WINDOW: Final = 8 * MIB
_BEHIND: Final = "bytes behind the end of the encoded body"
_CUT: Final = "the encoded body is cut"
_OF_REQUESTS: Final = frozenset({b"gzip", b"x-gzip", b"zstd"})  # not deflate, which clients spell in two ways


class DecodeError(Exception):
    """The bytes are not what their content-encoding says, or they are cut."""


class TooMuch(Exception):
    """Decoding would exceed the size or the ratio limit."""


class Decoder(Protocol):
    """One body's decoder; of no use after it has raised."""

    def feed(self, data: bytes, limit: int) -> bytes:
        """Decoded bytes of this piece. Raises DecodeError, and TooMuch when they are more than `limit`."""

    def finish(self) -> None:
        """The body has ended. Raises DecodeError when it is cut."""


class _Zlib:
    def __init__(self, window: int) -> None:
        self._zlib = zlib.decompressobj(window)

    def feed(self, data: bytes, limit: int) -> bytes:
        try:
            decoded = self._zlib.decompress(data, limit + 1)
        except zlib.error as error:
            raise DecodeError(str(error)) from error
        if len(decoded) > limit:
            raise TooMuch
        if self._zlib.unused_data:
            raise DecodeError(_BEHIND)
        return decoded

    def finish(self) -> None:
        if not self._zlib.eof:
            raise DecodeError(_CUT)


class _Zstd:
    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    def feed(self, data: bytes, limit: int) -> bytes:
        parts: list[bytes] = []
        for start in range(0, len(data), _STEP):
            parts.append(self._step(data[start : start + _STEP]))
            limit -= len(parts[-1])
            if limit < 0:
                raise TooMuch
        return b"".join(parts)

    def finish(self) -> None:
        if not self._zstd.eof:
            raise DecodeError(_CUT)

    def _step(self, data: bytes) -> bytes:
        try:
            decoded = self._zstd.decompress(data)
        except zstandard.ZstdError as error:
            raise DecodeError(str(error)) from error
        if self._zstd.unused_data:
            raise DecodeError(_BEHIND)
        return decoded


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


def decode_read(reader: Decoder, data: bytes) -> bytes:
    """One read of an answer, decoded: at most READ_BYTES. Raises DecodeError, also above that."""
    try:
        return reader.feed(data, READ_BYTES)
    except TooMuch:
        raise DecodeError(f"{len(data)} bytes unfold to more than {READ_BYTES}") from None


def decode_events(reader: Decoder, data: bytes) -> bytes:
    """One read of an event stream, decoded: as `decode_read`, and with at most READ_LINES line ends."""
    decoded = decode_read(reader, data)
    if decoded.count(b"\n") + decoded.count(b"\r") > READ_LINES:
        raise DecodeError(f"{len(data)} bytes unfold to more than {READ_LINES} lines")
    return decoded


def decode_request(encoding: bytes, body: bytes, limit: int) -> bytes:
    """A caller's whole body, decoded: at most `limit` bytes and 100 times its size (the first MiB is free).

    Raises DecodeError when it is not what it says, TooMuch above the limits.
    """
    reader = decoder(encoding) if encoding.strip().lower() in _OF_REQUESTS else None
    if reader is None:
        raise DecodeError(f"content-encoding {encoding.decode('latin-1')!r} is not supported")
    decoded = reader.feed(body, min(limit, _allowed(body)))
    reader.finish()
    return decoded


def _allowed(data: bytes) -> int:
    return max(_FREE_BYTES, len(data) * MAX_RATIO)
