"""Charts are well-formed XML, place values where they belong, and escape what they are given."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from bench.speed import plot
from bench.speed.plot import Axis, Bar, Scale, Series


def parsed(chart: str) -> ET.Element:
    return ET.fromstring(f"<div>{chart}</div>")  # noqa: S314 - our own


def curve(chart: str) -> list[tuple[float, float]]:
    found = parsed(chart).find(".//polyline")
    assert found is not None
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.get("points", "").split())]


def ticks(chart: str) -> list[str]:
    return [text.text or "" for text in parsed(chart).iter("text")]


def test_a_linear_axis_begins_at_zero_and_holds_the_greatest() -> None:
    chart = plot.lines("t", Axis("x"), Axis("y"), [Series("a", [(5, 10), (10, 40)], 0)])
    (x0, y0), (x1, y1) = curve(chart)
    assert (x1, y1) == (plot.LEFT + plot.INNER_WIDTH, plot.TOP)
    assert x0 == pytest.approx(plot.LEFT + plot.INNER_WIDTH / 2)
    assert y0 == pytest.approx(plot.TOP + plot.INNER_HEIGHT * 3 / 4)
    assert {"0", "10", "40"} <= set(ticks(chart))


def test_each_nine_of_a_quantile_axis_is_as_wide() -> None:
    points = [(0.0, 1.0), (0.9, 1.0), (0.99, 1.0), (0.999, 1.0), (0.9999, 1.0), (0.999999, 1.0)]
    xs = [x for x, _ in curve(plot.lines("t", Axis("x", Scale.QUANTILE), Axis("y"), [Series("a", points, 0)]))]
    widths = [right - left for left, right in pairwise(xs)]
    assert widths[:4] == pytest.approx([plot.INNER_WIDTH / 4] * 4, abs=0.2)
    assert widths[4] == 0, "beyond the last nine all lies on the edge"


def test_a_logarithmic_axis_shows_whole_decades_and_not_too_many() -> None:
    chart = plot.lines("t", Axis("x"), Axis("y", Scale.LOG), [Series("a", [(0, 1e-9), (1, 3), (2, 100)], 0)])
    ys = [y for _, y in curve(chart)]
    assert ys[0] == plot.TOP + plot.INNER_HEIGHT, "too small to see lies on the lowest line"
    assert ys[2] == plot.TOP
    assert ticks(chart)[-4:-2] == ["10", "100"]


@pytest.mark.parametrize("points", [[(0, 0)], [(3, -1)], [(7, 7), (7, 7)]])
@pytest.mark.parametrize("scale", Scale)
def test_degenerate_points_are_drawn_within_the_frame(points: list[plot.Point], scale: Scale) -> None:
    for x, y in curve(plot.lines("t", Axis("x"), Axis("y", scale), [Series("a", points, 0)])):
        assert plot.LEFT <= x <= plot.LEFT + plot.INNER_WIDTH
        assert plot.TOP <= y <= plot.TOP + plot.INNER_HEIGHT


def test_no_points_make_no_chart() -> None:
    assert plot.lines("t", Axis("x"), Axis("y"), [Series("a", [], 0)]) == ""
    assert plot.bars("t", "/s", []) == ""


def test_bars_are_as_long_as_their_values_with_the_range_beside() -> None:
    chart = plot.bars("t", "/s", [Bar("a", 50, 40, 60, 0), Bar("b", 100, 100, 200, 1)])
    widths = [float(rect.get("width", "0")) for rect in parsed(chart).iter("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert "50 /s" in ticks(chart)
    whisker = next(path.get("d", "") for path in parsed(chart).iter("path"))
    low, high = (float(number) for number in re.findall(r"[MH]([\d.]+)", whisker)[:2])
    assert (low - plot.BAR_LEFT) / widths[0] == pytest.approx(0.8, abs=0.01)
    assert (high - plot.BAR_LEFT) / widths[0] == pytest.approx(1.2, abs=0.01)


def test_names_are_escaped() -> None:
    chart = plot.lines("<t>", Axis("x & y"), Axis("y"), [Series("<b>", [(1, 1)], 0, marked=True)])
    chart += plot.bars("<t>", "<s>", [Bar("<i>", 1, 1, 1, 0)])
    assert "x & y" in ticks(chart)
    assert not {"b", "t", "i"} & {element.tag for element in parsed(chart).iter()} - {"i"}


@pytest.mark.parametrize(("number", "said"), [(0.25, "0.25"), (3.0, "3"), (1500, "1,500"), (99.94, "99.9"), (0, "0")])
def test_ticks_are_short(number: float, said: str) -> None:
    assert plot.short(number) == said
