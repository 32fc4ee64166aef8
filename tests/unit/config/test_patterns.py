"""One star, at the end, standing for something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.patterns import best, fault, matches

MATCHES = [
    ("gpt-4o", "gpt-4o", True),
    ("gpt-4o", "gpt-4o-mini", False),
    ("openai/*", "openai/gpt", True),
    ("openai/*", "openai/", False),
    ("*", "anything", True),
    ("*", "", False),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), MATCHES)
def test_matching(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    ("pattern", "good"), [("a", True), ("a*", True), ("*", True), ("", False), ("a*b", False), ("**", False)]
)
def test_what_is_a_pattern(pattern: str, good: bool) -> None:
    assert (fault(pattern) == "") is good


def test_the_exact_name_wins_then_the_longest_prefix() -> None:
    patterns = ["*", "gpt-*", "gpt-4*", "gpt-4o"]
    assert [best(patterns, name) for name in ("gpt-4o", "gpt-4.1", "gpt-5", "o3")] == ["gpt-4o", "gpt-4*", "gpt-*", "*"]
    assert best(["a"], "b") is None


@given(st.lists(st.text(min_size=1)), st.text(min_size=1))
def test_the_best_pattern_is_one_that_matches(patterns: list[str], name: str) -> None:
    found = best(patterns, name)
    if found is None:
        assert not any(matches(pattern, name) for pattern in patterns)
    else:
        assert matches(found, name)
