"""Encoded bodies: decoded exactly, or refused, and never larger on the way than they may be."""

import gzip
import tracemalloc
import zlib

import pytest
import zstandard

from gateway.relay.decode import DecodeError, TooMuch, decode_request, decoder
from gateway.units import KIB, MIB

BODY = b'{"model":"m","messages":[]}' * 50
CODED = {b"gzip": gzip.compress(BODY), b"zstd": zstandard.compress(BODY)}
LIMIT = 4 * MIB


@pytest.mark.parametrize("coding", CODED)
def test_a_whole_body(coding: bytes) -> None:
    assert decode_request(coding, CODED[coding], LIMIT) == BODY
    assert decode_request(b" " + coding.upper(), CODED[coding], len(BODY)) == BODY


@pytest.mark.parametrize("coding", CODED)
def test_what_is_not_one_whole_body_is_refused(coding: bytes) -> None:
    coded = CODED[coding]
    for broken in (b"", coded[:-1], coded[: len(coded) // 2], coded + b"x", coded + coded, BODY, b"\0" * 300):
        with pytest.raises(DecodeError):
            decode_request(coding, broken, LIMIT)


@pytest.mark.parametrize("coding", [b"", b"br", b"deflate", b"gzip, gzip", b"identity", b"\xff"])
def test_other_codings_are_refused(coding: bytes) -> None:
    with pytest.raises(DecodeError, match="not supported"):
        decode_request(coding, zlib.compress(BODY), LIMIT)


@pytest.mark.parametrize("coding", CODED)
def test_size_and_ratio_are_limited(coding: bytes) -> None:
    coded = CODED[coding]
    with pytest.raises(TooMuch):
        decode_request(coding, coded, len(BODY) - 1)
    pack = gzip.compress if coding == b"gzip" else zstandard.compress
    assert len(decode_request(coding, pack(b"x" * MIB), LIMIT)) == MIB  # the first MiB is free
    with pytest.raises(TooMuch):
        decode_request(coding, pack(b"x" * (MIB + 1)), LIMIT)


@pytest.mark.parametrize("sized", [True, False])
def test_a_bomb_never_unfolds(sized: bool) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=sized).compress(b"x" * (200 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(TooMuch):
            decode_request(b"zstd", bomb, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b"deflate", b"zstd"])
@pytest.mark.parametrize("size", [1, 7, 4 * KIB])
def test_answers_are_decoded_piece_by_piece(coding: bytes, size: int) -> None:
    coded = {**CODED, b"x-gzip": CODED[b"gzip"], b"deflate": zlib.compress(BODY)}[coding]
    reader = decoder(coding)
    assert reader is not None
    pieces = [reader.feed(coded[at : at + size]) for at in range(0, len(coded), size)]
    assert b"".join([*pieces, reader.finish()]) == BODY


def test_an_answer_in_a_coding_nobody_reads_has_no_decoder() -> None:
    assert decoder(b"br") is None
    assert decoder(b"gzip, br") is None


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"zstd"])
def test_an_answer_cut_anywhere_or_followed_by_anything_is_no_answer(coding: bytes) -> None:
    coded = {**CODED, b"deflate": zlib.compress(BODY)}[coding]
    for cut in range(len(coded)):
        reader = decoder(coding)
        assert reader is not None
        if cut:
            reader.feed(coded[:cut])
        with pytest.raises(DecodeError):
            reader.finish()
    whole = decoder(coding)
    assert whole is not None
    whole.feed(coded)
    with pytest.raises(DecodeError):
        whole.feed(b"x")


def test_a_window_that_would_take_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wide = packer.compress(b"x" * (16 * MIB)) + packer.flush()
    with pytest.raises(DecodeError):
        decode_request(b"zstd", wide, 100 * MIB)
