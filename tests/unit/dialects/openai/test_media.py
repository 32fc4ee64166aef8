"""Tokens of media at OpenAI: the examples of its own guide, and what is assumed where nothing is known."""

import pytest

from gateway.dialects.media import Kind, Media
from gateway.dialects.openai import media
from gateway.dialects.openai.media import FAMILIES, PAGE_TEXT, PAGES, Patches, Tiles


def picture(width: int, height: int, detail: str = "") -> Media:
    return Media(Kind.IMAGE, width, height, detail)


@pytest.mark.parametrize(
    ("model", "image", "tokens"),
    [
        # the guide's examples
        ("gpt-4o", picture(1024, 1024, "high"), 765),
        ("gpt-4o", picture(2048, 4096, "high"), 1105),
        ("gpt-4o", picture(4096, 8192, "low"), 85),
        ("gpt-5.2", picture(1024, 1024), 1024),
        ("gpt-5.2", picture(1800, 2400), 1452),
        # its tables
        ("gpt-4.1-mini-2025-04-14", picture(1024, 1024), 1659),
        ("gpt-4.1-nano", picture(1800, 2400), 3572),
        ("o4-mini", picture(1024, 1024), 1762),
        ("gpt-4o-mini", picture(1024, 1024), 2833 + 4 * 5667),
        ("gpt-4.1", picture(512, 512), 255),
        ("gpt-5", picture(512, 512), 210),
        ("gpt-5-mini", picture(64, 64), 7),
        ("o3-2025-04-16", picture(128, 64, "low"), 75),
        ("computer-use-preview", picture(1024, 768), 65 + 4 * 129),
        ("gpt-5.4", picture(2048, 1536), 57 * 43),
        ("gpt-5.4", picture(4000, 3000, "original"), 115 * 86),
        ("gpt-5.4-mini", picture(1024, 1024), 1659),
        ("gpt-5.5", picture(3200, 3200), 10_000),
        ("gpt-5.5", picture(3200, 3200, "low"), 256),
        ("gpt-5.6-pro", picture(4000, 3000), 125 * 94),
        ("gpt-5.6-pro", picture(4000, 3000, "high"), 57 * 43),
        # names
        ("openai/gpt-4o", picture(1024, 1024), 765),
        ("ft:gpt-4o:acme::1", picture(1024, 1024), 765),
        ("GPT-4o-2024-11-20", picture(1024, 1024), 765),
        ("qwen2.5-vl", picture(1024, 1024), 1024),
        # small, thin and of unknown size
        ("gpt-4o", picture(1, 1), 255),
        ("gpt-5.2", picture(1, 100_000), 64),
        ("gpt-4o", picture(0, 0), 85 + 4 * 170),
        ("gpt-5.2", picture(0, 0), 1521),
    ],
)
def test_pictures(model: str, image: Media, tokens: int) -> None:
    assert media.tokens(image, model) == tokens


@pytest.mark.parametrize(
    ("model", "family"),
    [("gpt-4o-mini-2024", Tiles(2833, 5667)), ("gpt-5.1-codex-mini", Patches()), ("o1", Tiles(75, 150))],
)
def test_the_longest_beginning_names_the_family(model: str, family: object) -> None:
    assert media.family_of(model) == family


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("detail", ["", "auto", "low", "high", "original"])
def test_no_picture_costs_more_than_its_budget(model: str, detail: str) -> None:
    family = media.family_of(model)
    for width in (1, 31, 500, 1536, 2049, 7000):
        for height in (1, 33, 767, 2048, 8000):
            tokens = media.tokens(picture(width, height, detail), model)
            assert tokens > 0
            if isinstance(family, Patches) and not (family.original and detail in {"", "auto", "original"}):
                assert tokens <= -(-family.budget * family.factor_percent // 100)
            if isinstance(family, Tiles):
                assert tokens <= family.base + 8 * family.tile


@pytest.mark.parametrize(("ms", "tokens"), [(0, 0), (1, 1), (100, 1), (60_000, 600)])
def test_sound_is_a_token_per_tenth_of_a_second(ms: int, tokens: int) -> None:
    assert media.tokens(Media(Kind.AUDIO, ms=ms), "gpt-4o-audio-preview") == tokens


def test_a_page_is_its_text_and_a_picture() -> None:
    page = PAGE_TEXT + 765
    assert media.tokens(Media(Kind.DOCUMENT, pages=3), "gpt-4o") == 3 * page
    assert media.tokens(Media(Kind.DOCUMENT), "gpt-4o") == PAGES * page
