"""What pictures, sound and documents cost in tokens at OpenAI.

Source: OpenAI's guide "Images and vision", sections "Model sizing behavior" and "Calculating costs", read in November
2026; for sound "Managing costs" of the Realtime API: one token per 100 ms of what a user says; for documents "File
inputs": the text of each page and a picture of it. The guide's examples are the test's.

Pictures are counted in patches of 32 × 32 pixels, times a factor, up to a budget; or, by older models, in tiles of 512
pixels square after two scalings. Families are recognised by the beginning of the model's name, the longest first. A
model that none names is counted as the current family: also what other servers of this dialect serve.

Assumed, where nothing is said: a picture of unknown size fills its model's budget, or PICTURE where there is none; a
document of unknown length has PAGES pages; a page holds PAGE_TEXT tokens of text and a letter-size picture.
"""

import math
from typing import Final, NamedTuple

from gateway.dialects.media import Kind, Media

PICTURE: Final = (2048, 2048)
PAGES: Final = 8
PAGE_TEXT: Final = 750  # 3,000 bytes: a page of prose
PAGE: Final = Media(Kind.IMAGE, 768, 994)
AUDIO_MS_PER_TOKEN: Final = 100
_UNLIMITED: Final = 2**40
_PATCH: Final = 32
_TILE: Final = 512
_SIDE: Final = 2048
_SHORT_SIDE: Final = 768
_LOW: Final = 512  # detail low: the picture is made this small


class Patches(NamedTuple):
    """A family counted in patches; `auto` is the detail it takes where none is asked."""

    budget: int = 1536
    factor_percent: int = 100
    original: int = 0  # budget of detail "original", 0 where there is none
    auto: str = "high"


class Tiles(NamedTuple):
    """A family counted in tiles."""

    base: int
    tile: int


_CURRENT: Final = Patches(2500, original=_UNLIMITED, auto="original")
FAMILIES: Final[dict[str, Patches | Tiles]] = {
    "gpt-5.6": _CURRENT,
    "gpt-5.5": Patches(2500, original=10_000, auto="original"),
    "gpt-5.4": Patches(2500, original=10_000),
    "gpt-5.4-mini": Patches(factor_percent=162),
    "gpt-5.4-nano": Patches(factor_percent=246),
    "gpt-5.3": Patches(),
    "gpt-5.2": Patches(),
    "gpt-5.1": Tiles(70, 140),
    "gpt-5.1-codex-mini": Patches(),
    "gpt-5": Tiles(70, 140),
    "gpt-5-codex-mini": Patches(),
    "gpt-5-mini": Patches(factor_percent=162),
    "gpt-5-nano": Patches(factor_percent=246),
    "gpt-4.1-mini": Patches(factor_percent=162),
    "gpt-4.1-nano": Patches(factor_percent=246),
    "gpt-4": Tiles(85, 170),
    "gpt-4o-mini": Tiles(2833, 5667),
    "chatgpt-4o": Tiles(85, 170),
    "o1": Tiles(75, 150),
    "o3": Tiles(75, 150),
    "o4-mini": Patches(factor_percent=172),
    "computer-use-preview": Tiles(65, 129),
}
_BY_LENGTH: Final = sorted(FAMILIES, key=len, reverse=True)


def tokens(media: Media, model: str) -> int:
    """Tokens of one medium at a model."""
    if media.kind is Kind.AUDIO:
        return -(-media.ms // AUDIO_MS_PER_TOKEN)
    family = family_of(model)
    if media.kind is Kind.DOCUMENT:
        return (media.pages or PAGES) * (PAGE_TEXT + _picture(PAGE, family))
    return _picture(media, family)


def family_of(model: str) -> Patches | Tiles:
    """How a model counts pictures."""
    name = model.lower().rpartition("/")[2].removeprefix("ft:")
    return next((FAMILIES[prefix] for prefix in _BY_LENGTH if name.startswith(prefix)), _CURRENT)


def _picture(media: Media, family: Patches | Tiles) -> int:
    size = (media.width, media.height) if media.width > 0 and media.height > 0 else PICTURE
    if isinstance(family, Tiles):
        return family.base if media.detail == "low" else family.base + family.tile * _tiles(*size)
    detail = family.auto if media.detail in {"", "auto"} else media.detail
    if detail == "low":
        patches = _patches(*_within(size, _LOW), family.budget)
    elif detail == "original" and family.original == _UNLIMITED:
        patches = _patches(*size, _UNLIMITED)
    elif detail == "original" and family.original:
        patches = _patches(*_within(size, 6000), family.original)
    else:
        patches = _patches(*_within(size, _SIDE), family.budget)
    return -(-patches * family.factor_percent // 100)


def _tiles(width: int, height: int) -> int:
    width, height = _within((width, height), _SIDE)
    shrink = min(_SHORT_SIDE / min(width, height), 1.0)
    return math.ceil(int(width * shrink) / _TILE) * math.ceil(int(height * shrink) / _TILE)


def _patches(width: int, height: int, budget: int) -> int:
    """Patches that cover a picture, after it was made small enough for the budget."""
    needed = _cover(width, height)
    if needed <= budget:
        return needed
    shrink = math.sqrt(_PATCH * _PATCH * budget / (width * height))
    across, down = width * shrink / _PATCH, height * shrink / _PATCH
    shrink *= min(math.floor(across) / across, math.floor(down) / down)
    return min(_cover(int(width * shrink), int(height * shrink)), budget)


def _cover(width: int, height: int) -> int:
    return max(math.ceil(width / _PATCH), 1) * max(math.ceil(height / _PATCH), 1)


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size scaled down to fit a square, keeping its shape."""
    longest = max(size)
    if longest <= side:
        return size
    return max(size[0] * side // longest, 1), max(size[1] * side // longest, 1)
