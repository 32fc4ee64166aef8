"""Pictures, sound and documents inside a request: how much there is of each, whatever the vendor charges for it.

Base64 is never text: four characters of it are three bytes of a file, which no tokenizer sees. So what counts is read
from the file: a picture's pixels, a recording's length, a document's pages. Where the file is not in the request (a
URL, an id), or says nothing, the amount is 0, which means "not known"; the vendors' rules (`<dialect>/media.py`) say
what they assume then. No URL is ever fetched.

Left out: tokens. Amounts become tokens by the rules of the target's vendor and model.
"""

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from enum import IntEnum
from typing import Final

import msgspec

from gateway.dialects import pixels

_SHORT: Final = 128  # base64 characters that tell the size of any picture but some JPEGs
_LONG: Final = 128 * 1024  # metadata in front of a JPEG's frame is at most 64 KiB a segment; two of them
_MAX_DECODED: Final = 16 * 1024 * 1024  # of base64 characters of a document whose pages are counted
_PAGE: Final = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_BYTES_PER_PAGE: Final = 20_000  # a document whose page objects are compressed: an ordinary page of text and figures
_WAV_HEAD: Final = 44
_WAV_RATES: Final = range(1_000, 2_000_000)
_BYTES_PER_S: Final = 8_000  # 64 kbit/s: the least that speech is commonly sent with; what is denser counts as longer
_MS_PER_S: Final = 1000
_PLAIN_TEXT: Final = ("text/", "application/json", "application/xml", "application/yaml")
_TEXT_NAMES: Final = (".txt", ".md", ".json", ".csv", ".tsv", ".xml", ".html", ".yaml", ".yml", ".log", ".py", ".js")


class Kind(IntEnum):
    """What sort of medium."""

    IMAGE = 0
    AUDIO = 1
    DOCUMENT = 2


class Media(msgspec.Struct, frozen=True, gc=False):
    """One medium. The amount that its kind has is set, or 0 where it is not known."""

    kind: Kind
    width: int = 0  # IMAGE, pixels
    height: int = 0
    detail: str = ""  # IMAGE: as the caller asked, "" where it did not
    ms: int = 0  # AUDIO
    pages: int = 0  # DOCUMENT


def image(source: str, detail: str = "") -> Media:
    """A picture, given as a URL, a data URL or bare base64."""
    if source.startswith(("http:", "https:")):
        return Media(Kind.IMAGE, detail=detail)
    start = _start_of_data(source)
    found = pixels.size(_decoded(source[start : start + _SHORT]))
    if found == pixels.NEEDS_MORE:
        found = pixels.size(_decoded(source[start : start + _LONG]))
    width, height = found if found != pixels.NEEDS_MORE else pixels.UNKNOWN
    return Media(Kind.IMAGE, width, height, detail)


def audio(data: str) -> Media:
    """A recording, given as base64: a WAV file's own length, and of what is compressed an upper estimate."""
    start = _start_of_data(data)
    head = _decoded(data[start : start + _SHORT])
    size = _decoded_size(data, start)
    rate = int.from_bytes(head[28:32], "little") if head.startswith(b"RIFF") and head[8:12] == b"WAVE" else 0
    if rate in _WAV_RATES:
        return Media(Kind.AUDIO, ms=max(size - _WAV_HEAD, 0) * _MS_PER_S // rate)
    return audio_of(size)


def audio_of(size: int) -> Media:
    """A recording of which only the bytes are known: as long as speech of 64 kbit/s would be."""
    return Media(Kind.AUDIO, ms=size * _MS_PER_S // _BYTES_PER_S)


def document(data: str) -> Media:
    """A document, given as base64: the pages its objects name, or its size where those are compressed."""
    start = _start_of_data(data)
    size = _decoded_size(data, start)
    pages = len(_PAGE.findall(_decoded(data[start:]))) if len(data) - start <= _MAX_DECODED else 0
    return Media(Kind.DOCUMENT, pages=pages or -(-size // _BYTES_PER_PAGE))


def text_size(data: str, media_type: str = "", filename: str = "") -> int:
    """Bytes of a file that is plain text, sent as base64; -1 for one that is not."""
    start = _start_of_data(data)
    declared = media_type or data[5 : data.find(";", 0, start)] if start else media_type
    if declared.startswith(_PLAIN_TEXT) or (not declared and filename.lower().endswith(_TEXT_NAMES)):
        return _decoded_size(data, start)
    return -1


def _start_of_data(source: str) -> int:
    """Where the base64 begins: behind the comma of a data URL."""
    return source.find(",", 0, 256) + 1 if source.startswith("data:") else 0


def _decoded_size(data: str, start: int) -> int:
    return max(len(data) - start, 0) * 3 // 4 - data[-2:].count("=")


def _decoded(data: str) -> bytes:
    """The bytes of base64, cut anywhere; b"" for what is none."""
    try:
        return a2b_base64(data[: len(data) // 4 * 4])
    except (NotBase64, ValueError):
        return b""
