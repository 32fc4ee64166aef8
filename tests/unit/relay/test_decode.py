"""Encoded bodies: decoded exactly, or refused, and never larger on the way than they may be."""

import gzip
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from gateway.relay.decode import (
    READ_LINES,
    DecodeError,
    TooMuch,
    decode_events,
    decode_read,
    decode_request,
    decoder,
)
from gateway.units import KIB, MIB

BODY = b'{"model":"m","messages":[]}' * 50
CODED = {b"gzip": gzip.compress(BODY), b"zstd": zstandard.compress(BODY)}
ANSWERS = {**CODED, b"x-gzip": CODED[b"gzip"], b"deflate": zlib.compress(BODY)}
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
    coded = ANSWERS[coding]
    reader = decoder(coding)
    assert reader is not None
    pieces = [decode_read(reader, coded[at : at + size]) for at in range(0, len(coded), size)]
    reader.finish()
    assert b"".join(pieces) == BODY


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"zstd"])
def test_an_answer_may_be_split_anywhere(coding: bytes) -> None:
    coded = ANSWERS[coding]
    for at in range(1, len(coded)):
        reader = decoder(coding)
        assert reader is not None
        assert decode_read(reader, coded[:at]) + decode_read(reader, coded[at:]) == BODY
        reader.finish()


def test_an_answer_in_a_coding_nobody_reads_has_no_decoder() -> None:
    assert decoder(b"br") is None
    assert decoder(b"gzip, br") is None


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"zstd"])
def test_an_answer_cut_anywhere_is_no_answer(coding: bytes) -> None:
    coded = ANSWERS[coding]
    for cut in range(len(coded)):
        reader = decoder(coding)
        assert reader is not None
        if cut:
            decode_read(reader, coded[:cut])
        with pytest.raises(DecodeError):
            reader.finish()


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"zstd"])
@pytest.mark.parametrize("behind", ["a byte", "another body"])
@pytest.mark.parametrize("apart", [True, False])
def test_an_answer_followed_by_anything_is_no_answer(coding: bytes, behind: str, apart: bool) -> None:
    coded = ANSWERS[coding]
    more = b"x" if behind == "a byte" else coded
    reader = decoder(coding)
    assert reader is not None
    if apart:
        decode_read(reader, coded)
    with pytest.raises(DecodeError):
        decode_read(reader, more if apart else coded + more)


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_a_read_of_an_answer_never_unfolds_to_more_than_it_may(coding: bytes) -> None:
    bomb = ten_gigabytes() if coding == b"gzip" else zstandard.compress(b"x" * (200 * MIB))
    reader = decoder(coding)
    assert reader is not None
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="unfold to more than"):
            decode_read(reader, bomb[: 256 * KIB])  # the longest read there is
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("coding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"zstd", zstandard.compress)]
)
def test_an_honest_answer_may_shrink_a_hundredfold_and_more(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    embedding = [random.Random(1).uniform(-1, 1) for _ in range(1_536)]
    answer = json.dumps({"data": [{"embedding": embedding, "index": index} for index in range(500)]}).encode()
    reader = decoder(coding)
    assert reader is not None
    assert decode_read(reader, pack(answer)) == answer
    reader.finish()


@pytest.mark.parametrize("events", [b"\n" * READ_LINES, b"data: 1\r\n" * (READ_LINES // 2)])
def test_a_read_of_events_holds_so_many_lines_and_no_more(events: bytes) -> None:
    for more in (b"", b"\n"):
        reader = decoder(b"gzip")
        assert reader is not None
        packed = gzip.compress(events + more)
        if more:
            with pytest.raises(DecodeError, match=f"unfold to more than {READ_LINES} lines"):
                decode_events(reader, packed)
        else:
            assert decode_events(reader, packed) == events


def test_honest_text_before_a_bomb_saves_nothing_up_for_it() -> None:
    reader = decoder(b"gzip")
    assert reader is not None
    packer = zlib.compressobj(wbits=31)
    text = random.Random(1).randbytes(4 * MIB)
    honest = packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)
    assert decode_read(reader, honest) == text
    unfolding = packer.compress(bytes(64 * MIB)) + packer.flush()
    with pytest.raises(DecodeError, match="unfold to more than"):
        decode_read(reader, unfolding)


def test_in_small_reads_whatever_an_answer_unfolds_to_passes_bit_by_bit() -> None:
    reader = decoder(b"gzip")
    assert reader is not None
    packed = gzip.compress(bytes(8 * MIB))
    pieces = [decode_read(reader, packed[at : at + 512]) for at in range(0, len(packed), 512)]
    reader.finish()
    assert sum(map(len, pieces)) == 8 * MIB
    assert max(map(len, pieces)) < MIB


def ten_gigabytes() -> bytes:
    """Ten megabytes of gzip that unfold to ten gigabytes: zeros packed once, and that block again and again."""
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(64 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * 160


def test_a_window_that_would_take_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wide = packer.compress(b"x" * (16 * MIB)) + packer.flush()
    with pytest.raises(DecodeError):
        decode_request(b"zstd", wide, 100 * MIB)
