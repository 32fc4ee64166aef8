"""Points become tables: one row a setting, one column a figure, in the order in which they came."""

from bench.scaling import points
from bench.scaling.points import Point

FOUND = [
    Point("limits", "0", {"µs": 30.0, "requests/s": 30_000}),
    Point("limits", "4", {"µs": 44.0, "requests/s": 22_000}),
    Point("limits", "0", {"µs": 32.0, "requests/s": 29_000}),
    Point("streams", "100", {"KB a stream": 12.25}),
    Point("limits", "0", {"µs": 31.0, "requests/s": 31_000}),
]


def test_a_figure_is_the_median_of_its_repeats_with_their_range() -> None:
    text = points.table(FOUND, "limits")
    assert text.splitlines() == [
        "| limits | µs | requests/s |",
        "|---|---|---|",
        "| 0 | 31 (30 – 32) | 30,000 (29,000 – 31,000) |",
        "| 4 | 44 | 22,000 |",
    ]


def test_a_figure_that_only_some_settings_have_is_left_open() -> None:
    found = [Point("nodes", "1", {"a": 1.0}), Point("nodes", "2", {"b": 2.0})]
    assert points.table(found, "nodes").splitlines()[2:] == ["| 1 | 1 | – |", "| 2 | – | 2 |"]


def test_the_report_has_the_parts_that_were_run_in_their_order_and_the_conditions() -> None:
    text = points.markdown(FOUND, ["fewer streams than asked"], {"machine": "this one"})
    assert text.index("## Limits on a request") < text.index("## Open streams")
    assert "## Prompt size" not in text
    assert "- fewer streams than asked" in text
    assert "| machine | this one |" in text


def test_points_are_kept_whole() -> None:
    assert FOUND[3].summary() == {"part": "streams", "at": "100", "figures": {"KB a stream": 12.25}}
