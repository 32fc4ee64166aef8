"""Sizes of a body that is of none of our shapes: every string of it is looked at, and counted for what it seems to be.

Providers take more than they publish, and callers send what providers take. Slower than `measure.py` and coarser, so
that it can never be the reason a request fails: text is every string but what is base64 by its look, a file where its
key says so. Nothing is learned from such a request.
"""

import re
from typing import Final

from gateway.dialects import media
from gateway.dialects.asked import Asked
from gateway.dialects.media import Media

_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_FILES: Final = frozenset({"data", "file_data", "b64_json", "image"})
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=-]{256}")  # no language does without spaces for so long
_PICTURE: Final = "data:image/"
_SOUND: Final = "data:audio/"


def read(document: object) -> Asked:
    """What a decoded body asks for, as far as can be seen."""
    top = document if isinstance(document, dict) else {}
    found: list[Media] = []
    limits = [limit for name in _LIMITS if (limit := _whole(top.get(name))) is not None]
    limited = bool(limits) and min(limits) > 0  # as `measure.py` reads them
    messages = top.get("messages")
    return Asked(
        _text_bytes("", document, found),
        len(messages) if isinstance(messages, list) else 0,
        media=tuple(found),
        max_output=max(limits) if limited else None,
        n=_answers(top),
        stream=top.get("stream") is True,
        whole=False,
    )


def _answers(top: dict[str, object]) -> int:
    """How many answers are asked for: for each prompt as many as are written to choose from."""
    prompts = top.get("prompt")
    parts = prompts if isinstance(prompts, list) else ()
    several = 1 if any(isinstance(part, int) for part in parts) else max(len(parts), 1)  # tokens are of one
    return several * max(_whole(top.get("n")) or 1, _whole(top.get("best_of")) or 1, 1)


def _text_bytes(key: str, value: object, found: list[Media]) -> int:
    if isinstance(value, dict):
        return sum(_text_bytes(str(name), member, found) for name, member in value.items())
    if isinstance(value, list):
        return sum(_text_bytes(key, item, found) for item in value)
    if not isinstance(value, str):
        return 0
    medium = _medium(key, value)
    if medium is not None:
        found.append(medium)
    elif not _opaque(value):
        return len(value.encode())
    return 0


def _medium(key: str, text: str) -> Media | None:
    """The file that a string is, None for text."""
    if text.startswith(_PICTURE):
        return media.image(text)
    if text.startswith(_SOUND):
        return media.audio(text)
    if text.startswith("data:"):
        return media.document(text) if media.text_size(text) < 0 else None
    if key not in _FILES or not _BASE64.match(text):
        return None
    picture = media.image(text)
    return picture if picture.width else media.document(text)


def _opaque(text: str) -> bool:
    """Base64 that is no file: signatures, encrypted reasoning."""
    return _BASE64.match(text) is not None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
