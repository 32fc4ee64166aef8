"""What pictures and documents cost in tokens at Anthropic.

Source: Anthropic's guides "Vision" and "PDF support", read in November 2026. A picture is counted in patches of 28 × 28
pixels, after it was made to fit the model's native resolution: 1,568 tokens and 1,568 pixels on the longer side, or,
from the 4.7 models on, 4,784 tokens and 2,576 pixels. Each page of a document is a picture and its text, 1,500 to
3,000 tokens. The guides' examples are the test's.

Assumed, where nothing is said: a picture of unknown size fills the native resolution, a document of unknown length has
PAGES pages, a page has the lesser text (the guide's own whole documents come to 2,300 to 3,000 tokens a page).
Sound is not an input of this dialect.
"""

import math
import re
from typing import Final, NamedTuple

from gateway.dialects.media import Kind, Media

PAGES: Final = 8
PAGE_TEXT: Final = 1500
_PATCH: Final = 28


class Native(NamedTuple):
    """The resolution a model sees."""

    side: int
    tokens: int


STANDARD: Final = Native(1568, 1568)
HIGH: Final = Native(2576, 4784)
_STANDARD_MODELS: Final = re.compile(
    r"claude-(?:instant|[23]\b|[23][.-])"  # up to 3.7, which are named version first
    r"|(?:sonnet|haiku)-4\b"
    r"|opus-4(?!-(?:[7-9]|[1-9]\d)\b)"
)
_PAGE: Final = Media(Kind.IMAGE, 1212, 1568)  # of letter shape, as large as it is ever seen at standard resolution


def tokens(media: Media, model: str) -> int:
    """Tokens of one medium at a model."""
    native = native_of(model)
    if media.kind is Kind.IMAGE:
        return _picture(media, native)
    if media.kind is Kind.DOCUMENT:
        return (media.pages or PAGES) * (PAGE_TEXT + _picture(_PAGE, STANDARD))
    return 0


def native_of(model: str) -> Native:
    """The resolution of a model; one that is not known has the high one, as all new ones have."""
    return STANDARD if _STANDARD_MODELS.search(model.lower()) else HIGH


def _picture(media: Media, native: Native) -> int:
    if media.width <= 0 or media.height <= 0:
        return native.tokens
    longest = max(media.width, media.height)
    shrink = min(native.side / longest, 1.0)
    needed = _cover(media.width * shrink, media.height * shrink)
    if needed <= native.tokens:
        return needed
    return native.tokens  # the largest size that fits: at most a row or a column below the budget


def _cover(width: float, height: float) -> int:
    return math.ceil(width / _PATCH) * math.ceil(height / _PATCH)
