"""Charts as inline SVG, drawn by us: a page with them needs no script, no library and no address.

    lines(...)    curves over two axes, linear, logarithmic, or of quantiles (0 % … 99.99 %, each nine as wide)
    bars(...)     a bar a name, with the range of its repeats as a whisker

Colours come from the page's style sheet by class (`s0` … `s7`), so that they hold in light and dark; numbers have as
many digits as tell ticks apart. Text is escaped here and nowhere else.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 32, 16, 44
INNER_WIDTH: Final = WIDTH - LEFT - RIGHT
INNER_HEIGHT: Final = HEIGHT - TOP - BOTTOM
COLOURS: Final = 8
BAR_HEIGHT: Final = 30
BAR_LEFT: Final = 110
MAX_DECADES: Final = 6  # of a logarithmic axis; what is smaller lies on its lowest line
MAX_QUANTILE: Final = 0.9999
_QUANTILE_TICKS: Final = (0.0, 0.5, 0.9, 0.99, 0.999, MAX_QUANTILE)

Point = tuple[float, float]


class Scale(Enum):
    """How an axis is spread."""

    LINEAR = "linear"
    LOG = "log"
    QUANTILE = "quantile"


@dataclass(frozen=True)
class Axis:
    """One axis: its title with the unit, and its scale; a linear one begins at zero."""

    title: str
    scale: Scale = Scale.LINEAR


@dataclass(frozen=True)
class Series:
    """One curve; `marked` shows its points as well."""

    name: str
    points: Sequence[Point]
    colour: int
    marked: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar, and the range of its repeats."""

    name: str
    value: float
    low: float
    high: float
    colour: int


@dataclass(frozen=True)
class _Fitted:
    """An axis over its values: where a value lies between 0 and 1, and which ticks it has."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]


def short(number: float) -> str:
    """A number as a tick says it: 0.25, 3, 1,500."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"  # noqa: PLR2004 - three digits tell ticks apart


def _nice(span: float) -> float:
    """A round step that parts `span` in four to eight."""
    step: float = 10 ** math.floor(math.log10(span))
    return next(step * part for part in (0.125, 0.25, 0.5, 1.0, 2.0) if span / (step * part) <= 8)  # noqa: PLR2004 - as said


def _linear(values: Sequence[float]) -> _Fitted:
    low, high = min(0.0, *values), max(0.0, *values)
    step = _nice(high - low) if high > low else 1.0
    low, high = math.floor(low / step) * step, max(math.ceil(high / step), 1) * step
    count = round((high - low) / step)
    ticks = [(low + step * number, short(low + step * number)) for number in range(count + 1)]
    return _Fitted(lambda value: (value - low) / (high - low), ticks)


def _log(values: Sequence[float]) -> _Fitted:
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    low, high = max(low, high - MAX_DECADES), max(high, low + 1)
    ticks = [(10.0**power, short(10.0**power)) for power in range(low, high + 1)]
    return _Fitted(lambda value: (math.log10(max(value, 10.0**low)) - low) / (high - low), ticks)


def _quantile(_: Sequence[float]) -> _Fitted:
    nines = -math.log10(1 - MAX_QUANTILE)
    ticks = [(q, f"{q * 100:g} %") for q in _QUANTILE_TICKS]
    return _Fitted(lambda q: -math.log10(1 - min(max(q, 0.0), MAX_QUANTILE)) / nines, ticks)


_FIT: Final = {Scale.LINEAR: _linear, Scale.LOG: _log, Scale.QUANTILE: _quantile}


def _text(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{html.escape(text)}</text>'


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">'
    return "".join([head, f"<title>{html.escape(title)}</title>", *parts, "</svg>"])


def _frame(x: _Fitted, y: _Fitted, titles: tuple[str, str]) -> list[str]:
    right, bottom = LEFT + INNER_WIDTH, TOP + INNER_HEIGHT
    parts = []
    for value, label in x.ticks:
        at = LEFT + x.place(value) * INNER_WIDTH
        parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>{_text(at, bottom + 16, label)}')
    for value, label in y.ticks:
        at = bottom - y.place(value) * INNER_HEIGHT
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>{_text(LEFT - 6, at + 4, label, "end")}')
    middle = TOP + INNER_HEIGHT / 2
    turned = f' transform="rotate(-90 14 {middle:.1f})"'
    return [*parts, _text(LEFT + INNER_WIDTH / 2, HEIGHT - 6, titles[0]), _text(14, middle, titles[1], extra=turned)]


def legend(series: Sequence[Series]) -> str:
    """The names in their colours, as HTML above a chart."""
    keys = (f'<span><i class="b{one.colour % COLOURS}"></i>{html.escape(one.name)}</span>' for one in series)
    return f'<p class="legend">{"".join(keys)}</p>'


def lines(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Curves over two axes; empty when there is not one point."""
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    across, up = _FIT[x.scale]([p[0] for p in points]), _FIT[y.scale]([p[1] for p in points])
    parts = _frame(across, up, (x.title, y.title))
    for one in series:
        parts += _curve(one, across, up)
    return legend(series) + _svg(title, HEIGHT, parts)


def _curve(one: Series, across: _Fitted, up: _Fitted) -> list[str]:
    bottom, colour = TOP + INNER_HEIGHT, one.colour % COLOURS
    placed = [(LEFT + across.place(x) * INNER_WIDTH, bottom - up.place(y) * INNER_HEIGHT) for x, y in one.points]
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts = [f'<polyline class="s{colour}" points="{way}"/>'] if placed else []
    if one.marked:
        parts += [
            f'<circle class="d{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{html.escape(one.name)}: '
            f"{short(given[0])}, {short(given[1])}</title></circle>"
            for (x, y), given in zip(placed, one.points, strict=True)
        ]
    return parts


def bars(title: str, unit: str, chosen: Sequence[Bar]) -> str:
    """Bars from zero, the longest as wide as the chart; empty when there is none."""
    if not chosen:
        return ""
    most = max(1e-9, *(bar.high for bar in chosen))
    room = WIDTH - BAR_LEFT - 150
    parts = []
    for number, bar in enumerate(chosen):
        top, middle = TOP + number * BAR_HEIGHT, TOP + number * BAR_HEIGHT + BAR_HEIGHT / 2
        width, low, high = (BAR_LEFT + room * value / most for value in (bar.value, bar.low, bar.high))
        box = f'x="{BAR_LEFT}" y="{top + 4}" width="{width - BAR_LEFT:.1f}" height="{BAR_HEIGHT - 8}"'
        ends = f"M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10"
        parts += [
            _text(BAR_LEFT - 8, middle + 4, bar.name, "end"),
            f'<rect class="f{bar.colour % COLOURS}" {box}/>',
            f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}{ends}"/>',
            _text(high + 8, middle + 4, f"{short(bar.value)} {unit}", "start"),
        ]
    return _svg(title, TOP * 2 + BAR_HEIGHT * len(chosen), parts)
