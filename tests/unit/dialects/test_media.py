"""How much of a medium there is: read from the file, never from the length of its base64 as text."""

import struct
from base64 import b64encode

import pytest

from gateway.dialects import media
from gateway.dialects.media import Kind, Media

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 1024, 768) + b"\0" * 5_000
JPEG = (
    b"\xff\xd8\xff\xe1"
    + struct.pack(">H", 60_002)
    + b"E" * 60_000
    + b"\xff\xc0"
    + struct.pack(">HBHH", 17, 8, 600, 800)
    + b"\0" * 32
)


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def wav(seconds: int, bytes_per_s: int) -> bytes:
    head = b"RIFF" + b"\0" * 4 + b"WAVEfmt " + struct.pack("<IHHII", 16, 1, 1, 24_000, bytes_per_s)
    return head.ljust(44, b"\0") + b"\0" * (seconds * bytes_per_s)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("data:image/png;base64," + b64(PNG), (1024, 768)),
        (b64(PNG), (1024, 768)),
        ("data:image/jpeg;base64," + b64(JPEG), (800, 600)),
        ("https://example.org/a.png", (0, 0)),
        ("data:image/png;base64,", (0, 0)),
        ("data:image/png", (0, 0)),
        ("data:image/png;base64,!!!!", (0, 0)),
        ("", (0, 0)),
        ("é" * 200, (0, 0)),
        (b64(JPEG[:50_000]), (0, 0)),  # ends before its frame
    ],
)
def test_pictures(source: str, size: tuple[int, int]) -> None:
    assert media.image(source, "low") == Media(Kind.IMAGE, *size, detail="low")


def test_a_wav_file_says_its_own_length() -> None:
    assert media.audio(b64(wav(seconds=7, bytes_per_s=48_000))) == Media(Kind.AUDIO, ms=7_000)
    assert media.audio("data:audio/wav;base64," + b64(wav(seconds=7, bytes_per_s=48_000))).ms == 7_000


@pytest.mark.parametrize("bytes_per_s", [0, 999, 2**31])
def test_a_wav_file_with_an_absurd_rate_is_not_believed(bytes_per_s: int) -> None:
    head = wav(0, 48_000)[:28] + struct.pack("<I", bytes_per_s) + b"\0" * 16_012
    assert media.audio(b64(head)).ms == len(head) * 1000 // 8_000


def test_compressed_sound_is_as_long_as_speech_at_64_kbit() -> None:
    assert media.audio(b64(b"\xff\xfb" + b"m" * 79_998)) == Media(Kind.AUDIO, ms=10_000)


@pytest.mark.parametrize("pages", [1, 12])
def test_the_pages_of_a_document_are_counted(pages: int) -> None:
    page = b"4 0 obj << /Type /Page /Parent 2 0 R >> endobj\n"
    pdf = b"%PDF-1.4\n<< /Type /Pages /Count 99 >>\n<< /Type/PageLabel >>" + page * pages
    assert media.document("data:application/pdf;base64," + b64(pdf)) == Media(Kind.DOCUMENT, pages=pages)


@pytest.mark.parametrize(("size", "pages"), [(1, 1), (20_000, 1), (20_001, 2), (1_000_000, 50)])
def test_a_document_that_names_no_pages_is_taken_by_its_size(size: int, pages: int) -> None:
    assert media.document(b64(b"p" * size)).pages == pages


def test_a_huge_document_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "_MAX_DECODED", 1_000)
    assert media.document(b64(b"/Type /Page " * 10_000)).pages == 6


@pytest.mark.parametrize(
    ("data", "media_type", "filename", "size"),
    [
        ("data:text/plain;base64," + b64(b"x" * 300), "", "", 300),
        (b64(b"x" * 300), "text/csv", "", 300),
        (b64(b"x" * 300), "", "notes.TXT", 300),
        (b64(b"x" * 300), "", "notes.pdf", -1),
        (b64(b"x" * 300), "application/pdf", "named.txt", -1),
        ("data:application/pdf;base64," + b64(b"x" * 300), "", "named.txt", -1),
        ("data:application/json;charset=utf-8;base64," + b64(b"x" * 300), "", "", 300),
        ("", "", "", -1),
    ],
)
def test_files_of_plain_text(data: str, media_type: str, filename: str, size: int) -> None:
    assert media.text_size(data, media_type, filename) == size
