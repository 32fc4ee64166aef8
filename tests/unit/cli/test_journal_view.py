"""Times as people give and read them, and the status document as a page."""

from typing import Any

import pytest

from gateway.cli.journal_view import WrongTime, from_us, hold_line, hold_time, shown, status_lines, to_us
from gateway.control.holds import FOREVER_US

DAY_US = 86_400_000_000
NEW_YEAR_US = 1_767_225_600_000_000  # 2026-01-01, UTC


@pytest.mark.parametrize(
    ("text", "begin_us", "end_us"),
    [
        (None, 0, FOREVER_US),
        ("2026-01-01", NEW_YEAR_US, NEW_YEAR_US + DAY_US - 1),
        ("2026-01-01T00:00:01Z", NEW_YEAR_US + 1_000_000, NEW_YEAR_US + 1_000_000),
        ("2026-01-01T00:00:01", NEW_YEAR_US + 1_000_000, NEW_YEAR_US + 1_000_000),
        ("2026-01-01T01:00:00+01:00", NEW_YEAR_US, NEW_YEAR_US),
        ("9999-12-31", FOREVER_US - DAY_US + 1, FOREVER_US),
    ],
)
def test_a_day_is_meant_to_its_end(text: str | None, begin_us: int, end_us: int) -> None:
    assert (from_us(text), to_us(text)) == (begin_us, end_us)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-02-30", "1969-12-31", "2026-01-01T25:00:00"])
def test_what_is_no_time(text: str) -> None:
    for parse in (from_us, to_us):
        with pytest.raises(WrongTime, match=r"2026-01-31|1970"):
            parse(text)


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        (None, None, "from the beginning to no end"),
        ("2026-01-01", "2026-03-31", "from 2026-01-01 to 2026-03-31"),
        ("2026-01-01T08:00:00Z", None, "from 2026-01-01T08:00:00Z to no end"),
    ],
)
def test_a_hold_is_shown_as_it_was_given(begin: str | None, end: str | None, said: str) -> None:
    hold = {"from_us": from_us(begin), "to_us": to_us(end)}
    assert hold_time(hold) == said
    assert hold_time(hold | {"org": "acme"}) == f"{said}, for acme"


def test_a_hold_in_a_list() -> None:
    hold = {"id": "1a2b", "from_us": 0, "to_us": FOREVER_US, "actor": "ann", "at_us": NEW_YEAR_US, "why": "case\x1b[2J"}
    assert hold_line(hold) == "1a2b  from the beginning to no end  by ann, 2026-01-01T00:00:00Z: case\ufffd[2J"
    assert shown("a\nb\u202e") == "a\ufffdb\ufffd"


def told(**more: Any) -> dict[str, Any]:
    chain = {
        "chain": "w0", "segments": 2, "oldest_segment": 3, "newest_segment": 4, "bytes": 5 * 1024 * 1024,
        "first_seq": 9, "oldest_us": NEW_YEAR_US, "signed": {"segment": 4, "offset": 9, "seq": 1234},
        "unsigned_bytes": 0,
    }  # fmt: skip
    return {
        "node": "a" * 32, "used_bytes": 900, "manifest_bytes": 800, "oldest_us": NEW_YEAR_US,
        "chains": [chain, chain | {"chain": "w1", "signed": None, "unsigned_bytes": 7, "oldest_us": 0}],
        "manifest": {"n": 17, "at_us": NEW_YEAR_US, "key": "k"}, "holds": [], "poison": {}, "problems": [],
        "readers": [{"name": "usage", "lag_records": 1200, "failing": ""}],
        "retention": {"max_bytes": 50_000_000_000, "keep_days": 400},
    } | more  # fmt: skip


def test_a_page() -> None:
    assert list(status_lines(told())) == [
        f"journal of node {'a' * 32}, oldest record 2026-01-01T00:00:00Z",
        "takes 900 B of 47,683.7 MiB, keeps 400 days",
        "signed: manifest 17 at 2026-01-01T00:00:00Z; manifests take 800 B",
        "",
        "chain          segments         size oldest                signed up to",
        "w0              3–4 (2)      5.0 MiB 2026-01-01T00:00:00Z  line 1,234",
        "w1              3–4 (2)      5.0 MiB none                  nothing yet",
        "",
        "reader usage: 1,200 records behind",
    ]


def test_what_wants_attention_is_on_it() -> None:
    hold = {"id": "1a", "from_us": 0, "to_us": FOREVER_US, "why": "case"}
    chain = told()["chains"][0] | {"unsigned_bytes": 70}
    limits = {"max_bytes": 1, "keep_days": 2, "reasons": ["usage has not read chain w0 that far"]}
    reader = {"name": "export-siem", "lag_records": 3, "failing": "no route to it"}
    page = "\n".join(
        status_lines(
            told(manifest=None, chains=[chain], readers=[reader], poison={"usage": 12}, retention=limits, holds=[hold])
        )
    )
    for said in (
        "signed: nothing yet;",
        "line 1,234, 70 B behind it",
        "reader export-siem: 3 records behind; it waits: no route to it",
        "reader usage could not take 12 B: see poison/usage.jsonl",
        "kept though it should go: usage has not read chain w0 that far",
        "hold 1a from the beginning to no end: case",
    ):
        assert said in page
