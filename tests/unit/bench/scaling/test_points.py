"""Points become tables: one row a setting, one column a figure, in the order in which they came."""

from dataclasses import replace

from bench.load.judge import Finding
from bench.scaling import points
from bench.scaling.points import LEFT_OUT, QUOTA_TITLE, Point, Result
from bench.scaling.stand import COST
from bench.speed.disturbance import Disturbance, Thrown

FOUND = [
    Point("limits", "0", {"µs": 30.0, "requests/s": 30_000}),
    Point("limits", "4", {"µs": 44.0, "requests/s": 22_000}),
    Point("limits", "0", {"µs": 32.0, "requests/s": 29_000}),
    Point("streams", "100", {"KB a stream": 12.25, "RSS MB": 61.5}),
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


HELD = Finding("1 node: admitted at most", "199", "≤ 200.00", holds=True)
BROKEN = Finding("2 nodes: admitted at most", "399", "≤ 200.00", holds=False)
RESULT = Result(FOUND, {"date": "2026-11-21 10:00 UTC", "machine": "this one"}, ["fewer streams"], [HELD])


def test_the_report_has_the_parts_that_were_run_in_their_order_and_the_conditions() -> None:
    text = points.markdown(RESULT)
    assert text.index("## Limits on a request") < text.index("## Open streams") < text.index(f"## {QUOTA_TITLE}")
    assert "## Prompt size" not in text
    assert (
        f"- fewer streams\n- Beside each of the 4 measurements others took at most 0% of a core.\n- {LEFT_OUT}" in text
    )
    assert "| 1 node: admitted at most | 199 | ≤ 200.00 | **holds** |" in text
    assert "| machine | this one |" in text


def test_only_what_is_judged_can_break() -> None:
    assert RESULT.holds
    assert Result(FOUND, {}).holds
    assert not replace(RESULT, findings=[HELD, BROKEN]).holds


def test_a_chart_has_a_mark_for_each_setting_and_a_curve_for_each_figure() -> None:
    found = [
        *(Point("prompts", at, {COST: 40.0, "µs of nginx": 10.0}) for at in ("1 KB", "1,000 KB")),
        Point("prompts", "1 KB", {COST: 44.0}),
    ]
    drawn = points.chart(found, "prompts")
    assert drawn.count("<polyline") == 2
    assert "the gateway: 1, 42" in drawn  # the median of its repeats
    assert "nginx: 1,000, 10" in drawn
    assert points.chart(found, "limits") == ""


def test_the_page_has_the_same_words_and_a_chart_for_each_part_that_was_run() -> None:
    page = points.html(RESULT)
    assert "<title>As things grow, 2026-11-21</title>" in page
    assert page.count("<figure>") == 1  # the limits here have no figure that is drawn
    assert "≤ 200.00" in page


def test_points_are_kept_whole() -> None:
    assert FOUND[3].summary() == {
        "part": "streams",
        "at": "100",
        "figures": {"KB a stream": 12.25, "RSS MB": 61.5},
        "disturbance": {"target_core": 0.0, "client_core": 0.0, "stolen": 0.0},
    }


def test_what_was_thrown_away_is_told_by_part_and_kept() -> None:
    thrown = [Thrown("limits-0", Disturbance(0.1), {}), Thrown("limits-4", Disturbance(0.3), {"rps": 1})]
    found = replace(RESULT, thrown=thrown)
    text = points.markdown(found)
    assert "- 2 measurements beside the 4 that count were thrown away" in text  # streams are not measured by the clock
    assert "2 of limits (10%–30%)" in text
    assert [one["section"] for one in found.raw()["thrown"]] == ["limits-0", "limits-4"]
