"""Sizes of pictures, from the bytes that real encoders write at the beginning of a file."""

import struct

import pytest

from gateway.dialects import pixels
from gateway.dialects.pixels import NEEDS_MORE, UNKNOWN

PAD = b"\0" * 32
SOF = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, 600, 800) + PAD  # 800 wide, 600 high
EXIF = b"\xff\xe1" + struct.pack(">H", 20_002) + b"E" * 20_000


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + PAD


def webp(kind: bytes, rest: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 99) + b"WEBP" + kind + struct.pack("<I", 50) + rest + PAD


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (png(1920, 1080), (1920, 1080)),
        (b"GIF89a" + struct.pack("<HH", 320, 200) + PAD, (320, 200)),
        (b"GIF87a" + struct.pack("<HH", 1, 2) + PAD, (1, 2)),
        (b"\xff\xd8" + SOF, (800, 600)),
        (b"\xff\xd8" + b"\xff\xc2" + SOF[2:], (800, 600)),  # progressive
        (b"\xff\xd8" + EXIF + SOF, (800, 600)),
        (b"\xff\xd8" + b"\xff\xc4\x00\x04\x00\x00" + SOF, (800, 600)),  # a table is no frame
        (b"\xff\xd8" + b"\xff\xff\xff\xd0" + SOF, (800, 600)),  # padding, and a marker without a length
        (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640 | 0x4000, 480)), (640, 480)),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", (640 - 1) | (480 - 1) << 14)), (640, 480)),
        (
            webp(b"VP8X", b"\0\0\0\0" + (4000 - 1).to_bytes(3, "little") + (3000 - 1).to_bytes(3, "little")),
            (4000, 3000),
        ),
    ],
)
def test_sizes(head: bytes, size: tuple[int, int]) -> None:
    assert pixels.size(head) == size


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dJUNK" + PAD,
        b"BM" + PAD,
        b"%PDF-1.7" + PAD,
        webp(b"ALPH", b""),
        b"RIFF" + b"\0" * 4 + b"WAVE" + PAD,
        b"\xff\xd8" + b"no marker here",
    ],
)
def test_what_is_no_picture_has_no_size(head: bytes) -> None:
    assert pixels.size(head) == UNKNOWN


@pytest.mark.parametrize(
    "head", [b"\xff\xd8", b"\xff\xd8" + EXIF[:100], b"\xff\xd8" + EXIF, b"\xff\xd8\xff\xe0\x00\x00"]
)
def test_a_long_opening_asks_for_more(head: bytes) -> None:
    assert pixels.size(head) == NEEDS_MORE


def test_a_segment_that_claims_no_length_does_not_stop_the_walk() -> None:
    assert pixels.size(b"\xff\xd8" + b"\xff\xe0\x00\x00" * 5_000) in {NEEDS_MORE, UNKNOWN}
