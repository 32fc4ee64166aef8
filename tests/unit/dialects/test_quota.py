"""What is left of limits, spelled for each dialect."""

import pytest

from gateway.dialects.quota import header_lines, moment

WALL_MS = 1_800_000_000_000
QUOTAS = (("requests", 600, 599, 100), ("tokens", 100_000, 99_000, 600_001), ("input-tokens", 9, 0, 1))


def test_openai_has_six_headers() -> None:
    assert header_lines("openai", QUOTAS, WALL_MS) == (
        b"x-ratelimit-limit-requests: 600\r\n"
        b"x-ratelimit-remaining-requests: 599\r\n"
        b"x-ratelimit-reset-requests: 100ms\r\n"
        b"x-ratelimit-limit-tokens: 100000\r\n"
        b"x-ratelimit-remaining-tokens: 99000\r\n"
        b"x-ratelimit-reset-tokens: 10m0.001s\r\n"
    )


def test_anthropic_tells_the_moment_rounded_up_to_a_second() -> None:
    assert header_lines("anthropic", QUOTAS[1:], WALL_MS) == (
        b"anthropic-ratelimit-tokens-limit: 100000\r\n"
        b"anthropic-ratelimit-tokens-remaining: 99000\r\n"
        b"anthropic-ratelimit-tokens-reset: 2027-01-15T08:10:01Z\r\n"
        b"anthropic-ratelimit-input-tokens-limit: 9\r\n"
        b"anthropic-ratelimit-input-tokens-remaining: 0\r\n"
        b"anthropic-ratelimit-input-tokens-reset: 2027-01-15T08:00:01Z\r\n"
    )


def test_other_dialects_have_no_words_of_their_own() -> None:
    assert header_lines("gemini", QUOTAS, WALL_MS) == header_lines("openai", QUOTAS, WALL_MS)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_nothing_to_tell_is_no_header(dialect: str) -> None:
    assert header_lines(dialect, (), WALL_MS) == b""


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (0, "0ms"),
        (17, "17ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_500, "1.5s"),
        (59_999, "59.999s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (86_399_050, "23h59m59.05s"),
        (86_400_000, "24h0m0s"),
    ],
)
def test_openai_tells_the_reset_as_a_duration(ms: int, told: str) -> None:
    lines = header_lines("openai", [("tokens", 9, 0, ms)], WALL_MS)
    assert lines.endswith(b"x-ratelimit-reset-tokens: %b\r\n" % told.encode())


def test_moments_are_rfc_3339_in_utc() -> None:
    assert moment(0) == "1970-01-01T00:00:00Z"
