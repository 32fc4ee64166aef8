"""Images and audio: real files, as small as they can be, and the streams around them.

An image is a one-pixel PNG. Speech is a WAV of silence as long as the text would take, sent in pieces. A
transcription says what was uploaded, because nobody listened to it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

from bench.sim import text
from bench.sim.wire import Event, Kind, Refused, Reply, json_reply, sse, sse_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.sim.ask import Ask

SAMPLE_RATE = 8000
BYTES_PER_CHAR = 1000  # 1/16 s of sound for a character, at 16 bits and 8 kHz
AUDIO_PIECE_BYTES = 4096
MAX_SPEECH_BYTES = 1 << 20
AUDIO_TYPES = {"mp3": "audio/mpeg", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "pcm": "audio/pcm"}
MAX_IMAGES = 10
IMAGE_USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"text_tokens": 12, "image_tokens": 0},
    "output_tokens": 272,
    "total_tokens": 284,
}


def _png() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\x00\x33\x66\x99")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


PNG_B64 = base64.b64encode(_png()).decode()


def image(ask: Ask) -> Reply:
    """Answer an image request: generation, edit or variation; streamed with partial images where asked."""
    if not ask.request.path.endswith("/variations"):
        ask.require("prompt", str)
    given = str(ask.body.get("n", 1))  # a number in JSON, text in a form
    count = int(given) if given.isascii() and given.isdigit() else 0
    if not 1 <= count <= MAX_IMAGES:
        raise Refused(400, f"Invalid 'n': from 1 to {MAX_IMAGES} expected.", param="n")
    if ask.stream:
        return sse_reply(_image_events(ask))
    look = {"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
    told = {} if ask.behaviour.nousage else {"usage": IMAGE_USAGE}
    return json_reply({"created": ask.created, **look, "data": [{"b64_json": PNG_B64}] * count, **told})


def _image_events(ask: Ask) -> Iterator[Event]:
    family = "image_edit" if ask.request.path.endswith("/edits") else "image_generation"
    look = {"background": "opaque", "output_format": "png", "quality": "low", "size": "1024x1024"}
    common = {"b64_json": PNG_B64, "created_at": ask.created, **look}
    for index in range(min(3, text.integer(ask.body.get("partial_images")) or 0)):
        name = f"{family}.partial_image"
        yield Event(Kind.CONTENT, sse({"type": name, **common, "partial_image_index": index}, name))
    name = f"{family}.completed"
    yield Event(Kind.DONE, sse({"type": name, **common, "usage": IMAGE_USAGE}, name))


def speech(ask: Ask) -> Reply:
    """Answer a speech request: binary in pieces, or events when `stream_format` is sse."""
    said = text.string(ask.require("input", str))
    sound = wav(ask.behaviour.big or min(len(said) * BYTES_PER_CHAR, MAX_SPEECH_BYTES))
    slices = (sound[at : at + AUDIO_PIECE_BYTES] for at in range(0, len(sound), AUDIO_PIECE_BYTES))
    if ask.body.get("stream_format") == "sse":
        return sse_reply(_speech_events(ask, said, slices))
    kind = AUDIO_TYPES.get(text.string(ask.body.get("response_format")), "audio/wav")
    return Reply(200, [("content-type", kind)], (Event(Kind.CONTENT, piece) for piece in slices))


def wav(size: int) -> bytes:
    """A WAV file holding that many bytes of 16-bit silence."""
    size += size % 2
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size) + bytes(size)


def _speech_events(ask: Ask, said: str, slices: Iterator[bytes]) -> Iterator[Event]:
    heard = 0
    for piece in slices:
        heard += 1
        yield Event(Kind.CONTENT, sse({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}))
    asked = max(1, text.estimate(len(said)))
    usage = {"input_tokens": asked, "output_tokens": heard * 16, "total_tokens": asked + heard * 16}
    done = {"type": "speech.audio.done"}
    yield Event(Kind.DONE, sse(done if ask.behaviour.nousage else {**done, "usage": usage}))


def transcribe(ask: Ask) -> Reply:
    """Answer a transcription or translation request, in the format it names."""
    if "file" not in ask.files:
        raise Refused(400, "Missing required parameter: 'file'.", code="missing_required_parameter", param="file")
    answer = ask.answer(f"(a recording of {ask.files['file']} bytes)")
    if ask.stream:
        return sse_reply(_transcript_events(ask, answer))
    form = text.string(ask.body.get("response_format")) or "json"
    seconds = max(1, ask.files["file"] // (SAMPLE_RATE * 2))
    plain = [("content-type", "text/plain; charset=utf-8")]
    if form in ("text", "srt", "vtt"):
        return Reply(200, plain, _subtitles(form, answer.text, seconds).encode())
    usage = {} if ask.behaviour.nousage else {"usage": _transcript_usage(answer)}
    if form == "verbose_json":
        return json_reply(_verbose(ask, answer.text, seconds))
    return json_reply({"text": answer.text, **usage})


def _subtitles(form: str, said: str, seconds: int) -> str:
    end = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if form == "srt":
        return f"1\n00:00:00,000 --> {end},000\n{said}\n\n"
    return f"WEBVTT\n\n00:00:00.000 --> {end}.000\n{said}\n\n" if form == "vtt" else said + "\n"


def _transcript_usage(answer: text.Answer) -> dict[str, object]:
    heard = 100
    details = {"text_tokens": 0, "audio_tokens": heard}
    total = heard + answer.tokens
    figures = {"input_tokens": heard, "output_tokens": answer.tokens, "total_tokens": total}
    return {"type": "tokens", **figures, "input_token_details": details}


def _verbose(ask: Ask, said: str, seconds: int) -> dict[str, object]:
    scores = {"temperature": 0.0, "avg_logprob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.01}
    segment = {"id": 0, "seek": 0, "start": 0.0, "end": float(seconds), "text": said, "tokens": [50364], **scores}
    task = "translate" if ask.request.path.endswith("/translations") else "transcribe"
    whole = {"task": task, "language": "english", "duration": float(seconds), "text": said, "segments": [segment]}
    return whole if ask.behaviour.nousage else {**whole, "usage": {"type": "duration", "seconds": seconds}}


def _transcript_events(ask: Ask, answer: text.Answer) -> Iterator[Event]:
    for piece in answer.deltas():
        yield Event(Kind.CONTENT, sse({"type": "transcript.text.delta", "delta": piece}))
    done = {"type": "transcript.text.done", "text": answer.text}
    told = {} if ask.behaviour.nousage else {"usage": _transcript_usage(answer)}
    yield Event(Kind.DONE, sse({**done, **told}))
