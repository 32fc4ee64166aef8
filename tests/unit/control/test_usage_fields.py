"""Texts and groups as they stand in the table."""

import pytest

from gateway.control.usage_fields import DIMENSIONS, MAX_CHARS, Group, clean

GROUP = Group("n", "acme", "search", "key", "ann", "large", "big/large")


def test_a_group_is_what_usage_can_be_asked_by() -> None:
    assert tuple(DIMENSIONS.values()) == Group._fields


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("", ""),
        ("Ann Müller", "Ann Müller"),
        ("a\0b\nc", "a\ufffdb\nc"),
        ("half \ud83d", "half ?"),
        ("x" * 300, "x" * MAX_CHARS),
        ("\0" * 300, "\ufffd" * MAX_CHARS),
    ],
)
def test_a_text_is_made_fit_for_either_database(text: str, stands: str) -> None:
    assert clean(text) == stands
    assert clean(stands) == stands
    stands.encode()


def test_every_field_tells_groups_apart() -> None:
    others = [GROUP._replace(**{name: "other"}) for name in Group._fields]
    shifted = [GROUP._replace(org="acmesearch", team=""), GROUP._replace(org="", team="acmesearch")]
    assert len({group.id() for group in [GROUP, *others, *shifted]}) == 1 + len(others) + len(shifted)


def test_an_id_never_changes() -> None:
    assert GROUP.id().hex() == "c9dd0489337a023f1d40693c173c568e"
