"""The message inside a provider's error answer, in the spellings that servers of every dialect use.

`{"error": {"message"}}`, `{"error": "…"}`, `{"message"}`, `{"detail"}`. Bounded, because it is shown to callers.
"""

from typing import Final

import msgspec

from gateway.dialects.events import ABSENT, said

MAX_MESSAGE_CHARS: Final = 2048


class _Said(msgspec.Struct, gc=False):
    message: msgspec.Raw = ABSENT


class _Answer(msgspec.Struct, gc=False):
    error: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT
    detail: msgspec.Raw = ABSENT


_answer: Final = msgspec.json.Decoder(_Answer)
_said: Final = msgspec.json.Decoder(_Said)
_text: Final = msgspec.json.Decoder(str)


def read(body: bytes) -> str:
    """The message, "" when there is none to be read."""
    try:
        answer = _answer.decode(body)
    except (ValueError, RecursionError):
        return ""
    if not said(answer.error):
        return _as_text(answer.message) or _as_text(answer.detail)
    try:
        return _as_text(_said.decode(answer.error).message)
    except ValueError:
        return _as_text(answer.error)


def _as_text(raw: msgspec.Raw) -> str:
    try:
        return _text.decode(raw)[:MAX_MESSAGE_CHARS]
    except ValueError:
        return ""
