"""What a query asks, and that every wrong word is named together with the right ones."""

import base64
import json

import pytest

from gateway.control.usage_question import DEFAULT_LIMIT, MAX_LIMIT, NAMES, BadQuestion, Question, moment, parse

NOW_S = 1_763_733_661  # 2025-11-21T14:01:01Z
HOUR_S = 1_763_733_600
NEXT_S = HOUR_S + 3600


def asked(**query: str) -> Question:
    return parse([({"start": "from", "end": "to"}.get(name, name), value) for name, value in query.items()], NOW_S)


# --- what is meant --------------------------------------------------------------------------------------------------


def test_without_a_word_it_is_the_last_month_in_one_row() -> None:
    assert parse([], NOW_S) == Question(NEXT_S - 30 * 86_400, NEXT_S, limit=DEFAULT_LIMIT)


def test_every_word() -> None:
    query = [
        ("from", "2025-11-01"), ("to", "2025-11-02"), ("by", "key, day"), ("order", "cost"), ("limit", "7"),
        ("format", "csv"), ("org", "acme"), ("org", ""), ("key", "a\0b"),
    ]  # fmt: skip
    assert parse(query, NOW_S) == Question(
        1_761_955_200,
        1_762_041_600,
        ("key", "day"),
        (("org", ("acme", "")), ("key", ("a\ufffdb",))),
        "cost",
        7,
        None,
        "csv",
    )


@pytest.mark.parametrize(
    ("text", "at_s"),
    [
        ("now", NOW_S),
        ("2025-11-21", 1_763_683_200),
        ("2025-11-21T14:00:00Z", HOUR_S),
        ("2025-11-21T15:00:00+01:00", HOUR_S),
        ("2025-11-21T14:00", HOUR_S),
        ("20251121", 1_763_683_200),
        ("1763733600", HOUR_S),
        ("90s", NOW_S - 90),
        ("5m", NOW_S - 300),
        ("24h", NOW_S - 86_400),
        ("7d", NOW_S - 7 * 86_400),
        ("2w", NOW_S - 14 * 86_400),
        ("999999w", 0),
    ],
)
def test_moments(text: str, at_s: int) -> None:
    assert moment(text, NOW_S, "from") == at_s


def test_hours_are_whole_and_hold_what_was_asked_for() -> None:
    question = asked(start="2025-11-21T14:59:59Z", end="2025-11-21T15:00:01Z")
    assert (question.start, question.end) == (HOUR_S, NEXT_S + 3600)
    exact = asked(start="2025-11-21T14:00:00Z", end="2025-11-21T15:00:00Z")
    assert (exact.start, exact.end) == (HOUR_S, NEXT_S)


# --- what makes no sense --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "word", "help_"),
    [
        ([("form", "7d")], "form", "from"),
        ([("from", "yesterday")], "from", "2026-11-21"),
        ([("from", "-7d")], "from", "7d"),
        ([("to", "2025-13-01")], "to", "2026-11-21"),
        ([("from", "999999999999")], "from", "seconds since"),
        ([("from", "1969-01-01")], "from", "2026-11-21"),
        ([("from", "2025-11-21"), ("to", "2025-11-20")], "from", "before `to`"),
        ([("from", "7d"), ("from", "8d")], "from", "more than once"),
        ([("by", "modle")], "by", "model"),
        ([("by", "model,model")], "by", "twice"),
        ([("by", "model,")], "by", "org"),
        ([("order", "price")], "order", "cost"),
        ([("format", "xml")], "format", "csv"),
        ([("limit", "0")], "limit", str(MAX_LIMIT)),
        ([("limit", str(MAX_LIMIT + 1))], "limit", str(MAX_LIMIT)),
        ([("limit", "-1")], "limit", str(MAX_LIMIT)),
        ([("limit", "٣")], "limit", str(MAX_LIMIT)),
        ([("limit", "9" * 5000)], "limit", str(MAX_LIMIT)),
        ([("org", "x")] * 101, "org", "at most 100"),
    ],
)
def test_a_wrong_word_is_named_with_the_right_ones(query: list[tuple[str, str]], word: str, help_: str) -> None:
    with pytest.raises(BadQuestion) as caught:
        parse(query, NOW_S)
    assert str(caught.value).startswith(f"{word}: ")
    assert help_ in str(caught.value)
    assert len(str(caught.value)) < 300


# --- pages ----------------------------------------------------------------------------------------------------------


def going_on(last: list[str | int], **query: str) -> Question:
    return asked(**query, after=asked(**query).next_after(last))


def test_the_next_page_is_of_the_same_hours_however_late_it_is_asked_for() -> None:
    first = parse([("by", "key,hour")], NOW_S)
    later = parse([("by", "key,hour"), ("after", first.next_after(["k", HOUR_S]))], NOW_S + 10_000)
    assert later == first._replace(after=("k", HOUR_S))


def test_the_order_of_cost_goes_on_from_a_cost() -> None:
    assert going_on([-500, "k"], by="key", order="cost").after == (-500, "k")


def test_the_same_hours_may_be_said_again() -> None:
    assert going_on(["k"], by="key", start="2025-11-01", end="2025-11-02").after == ("k",)


@pytest.mark.parametrize(
    "other", [{"by": "org"}, {"org": "acme"}, {"order": "cost", "by": "key"}, {"start": "2025-11-01"}, {"end": "1d"}]
)
def test_pages_of_two_questions_are_not_mixed_up(other: dict[str, str]) -> None:
    after = asked(by="key").next_after(["k"])
    with pytest.raises(BadQuestion, match=r"^after: "):
        asked(**({"by": "key"} | other), after=after)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "after", ["x", "!!!", "e30", "W10", "é", "=" * 100, forged(), forged(1, 2), forged("a", 2, "", 1)]
)
def test_an_after_that_nobody_said(after: str) -> None:
    with pytest.raises(BadQuestion, match="it is not what an answer's `next` said"):
        asked(by="key", after=after)


@pytest.mark.parametrize(
    ("by", "last"),
    [
        ("key", [5]),
        ("key", []),
        ("key", ["k", "k"]),
        ("key", [None]),
        ("key", ["a\0b"]),
        ("key", ["\ud83d"]),
        ("key", ["x" * 257]),
        ("hour", ["k"]),
        ("hour", [True]),
        ("hour", [1.5]),
        ("hour", [2**63]),
        ("hour", [-(2**63)]),
    ],
)
def test_an_after_that_no_row_can_end_with(by: str, last: list[str | int]) -> None:
    with pytest.raises(BadQuestion, match="it is not what an answer's `next` said"):
        going_on(last, by=by)


def test_the_words_are_all_of_them() -> None:
    assert set(NAMES) == {
        "from", "to", "by", "order", "limit", "after", "format",
        "node", "org", "team", "key", "user", "model", "target",
    }  # fmt: skip
