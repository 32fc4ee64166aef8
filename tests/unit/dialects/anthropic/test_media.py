"""Tokens of media at Anthropic: the examples of its own guides, and what is assumed where nothing is known."""

import pytest

from gateway.dialects.anthropic import media
from gateway.dialects.anthropic.media import HIGH, PAGE_TEXT, PAGES, STANDARD
from gateway.dialects.media import Kind, Media

OLD, NEW = "claude-sonnet-4-6", "claude-opus-4-8"


def picture(width: int, height: int) -> Media:
    return Media(Kind.IMAGE, width, height)


@pytest.mark.parametrize(
    ("model", "image", "tokens"),
    [
        (OLD, picture(1000, 1000), 1296),
        (NEW, picture(1000, 1000), 1296),
        (NEW, picture(1920, 1080), 2691),
        (NEW, picture(3840, 2160), 4784),
        (OLD, picture(200, 200), 64),
        (OLD, picture(1, 1), 1),
        (OLD, picture(28, 29), 2),
        (OLD, picture(100, 8000), 1 * 56),  # 20 pixels wide after scaling
        (OLD, picture(0, 0), 1568),
        (NEW, picture(0, 0), 4784),
    ],
)
def test_pictures(model: str, image: Media, tokens: int) -> None:
    assert media.tokens(image, model) == tokens


def test_a_picture_above_the_budget_is_within_a_row_of_the_guides_number() -> None:
    assert 0 <= media.tokens(picture(1920, 1080), OLD) - 1560 <= 56
    assert 0 <= media.tokens(picture(4032, 3024), NEW) - 4740 <= 92


@pytest.mark.parametrize(
    "model",
    [
        "claude-3-5-sonnet-20241022",
        "claude-3-haiku-20240307",
        "claude-3.7-sonnet",
        "claude-2.1",
        "claude-instant-1.2",
        "claude-sonnet-4-20250514",
        "claude-sonnet-4-6",
        "claude-haiku-4-5-20251001",
        "claude-opus-4-20250514",
        "claude-opus-4-1-20250805",
        "claude-opus-4-6",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
    ],
)
def test_models_up_to_4_6_see_standard_resolution(model: str) -> None:
    assert media.native_of(model) == STANDARD


@pytest.mark.parametrize(
    "model", ["claude-opus-4-7", "claude-opus-4-8-20260501", "claude-opus-4-10", "claude-sonnet-5", "*"]
)
def test_later_ones_see_high_resolution(model: str) -> None:
    assert media.native_of(model) == HIGH


def test_a_page_is_its_text_and_a_picture() -> None:
    page = PAGE_TEXT + 1568
    assert media.tokens(Media(Kind.DOCUMENT, pages=5), NEW) == 5 * page
    assert media.tokens(Media(Kind.DOCUMENT), NEW) == PAGES * page
    assert 1500 < page < 3000 + 1568  # the guide: 1,500 to 3,000 tokens of text, and a picture


def test_sound_is_no_input_here() -> None:
    assert media.tokens(Media(Kind.AUDIO, ms=60_000), NEW) == 0
