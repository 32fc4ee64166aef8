"""How large a picture is, read from the first bytes of its file: PNG, JPEG, GIF, WebP, the formats vendors take.

Nothing is decoded. A JPEG may carry kilobytes of metadata before its frame header, so the caller gives a short head
first and a longer one only where `size` asks for it by answering NEEDS_MORE.

Sources: PNG (ISO/IEC 15948) IHDR; GIF89a logical screen; ITU T.81 markers; RFC 9649 for WebP.
"""

from typing import Final

Size = tuple[int, int]

UNKNOWN: Final[Size] = (0, 0)
NEEDS_MORE: Final[Size] = (-1, -1)
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_GIFS: Final = (b"GIF87a", b"GIF89a")
_JPEG: Final = b"\xff\xd8"
_MARK: Final = 0xFF  # what every marker begins with, and may be padded with
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame, of every coding process
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_HEAD_BYTES: Final = 30  # of any format but JPEG


def size(head: bytes) -> Size:
    """Width and height in pixels; UNKNOWN for what is no such picture, NEEDS_MORE where a longer head would tell."""
    if head.startswith(_JPEG):
        return _jpeg(head)
    if len(head) < _HEAD_BYTES:
        return UNKNOWN
    if head.startswith(_PNG) and head[12:16] == b"IHDR":
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(_GIFS):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    return UNKNOWN


def _jpeg(head: bytes) -> Size:
    at = len(_JPEG)
    while at + 9 <= len(head):
        if head[at] != _MARK:
            return UNKNOWN
        marker = head[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        if marker == _MARK:
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + max(int.from_bytes(head[at + 2 : at + 4], "big"), 2)
    return NEEDS_MORE


def _webp(head: bytes) -> Size:
    kind = head[12:16]
    if kind == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return UNKNOWN
