"""The metrics page: what every process of the node counted, summed by name, as Prometheus or OpenMetrics text.

Models a scrape as one pass over the areas of the segment. Writers are not waited for and do not notice: each word
is read once, old or new, never half, and a histogram's count is the sum of the very buckets shown, so the page is
consistent in itself. Counters and histograms of processes that are gone still count; their gauges do not.

Invariants: a series appears once; values in labels and help are escaped; two scrapes in a row never show a counter
going back. Should two builds that share a segment disagree on a histogram's bounds, only the common ones are shown.

Left out: serving it (`control/`), and deciding who is alive: the caller says.
"""

from collections.abc import Collection, Iterable
from itertools import accumulate
from typing import Final

import msgspec

from gateway.segment import Segment
from gateway.telemetry.directory import Area, Family, Kind
from gateway.telemetry.transfer import areas
from gateway.units import US_PER_S

PROMETHEUS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_INFINITY: Final = -1  # stands for the bound above all bounds; sorted last by `_ascending`


class Reading(msgspec.Struct, frozen=True):
    """A value known at scrape time that no process counts, with values for the family's labels."""

    family: Family
    value: int
    values: tuple[str, ...] = ()


class _Shown(msgspec.Struct):
    """A family with its series, by rendered labels: a value, or what lies at or under each bound, and the sum."""

    family: Family
    values: dict[str, int] = {}
    buckets: dict[str, dict[int, int]] = {}
    sums_us: dict[str, int] = {}


def scrape(
    segment: Segment, *, live: Collection[int], readings: Iterable[Reading] = (), openmetrics: bool = False
) -> str:
    """The page. `live` are the slots whose process is alive: gauges of others are left out.

    Raises SegmentMismatch when the segment's metrics are of another layout.
    """
    shown: dict[str, _Shown] = {}
    shared, *slots = areas(segment)
    _collect(shown, shared, with_gauges=False)
    for slot, area in enumerate(slots):
        _collect(shown, area, with_gauges=slot in live)
    for reading in readings:
        into = _family(shown, reading.family)
        into.values[_labels(reading.family.labels, reading.values)] = reading.value
    lines: list[str] = []
    for name in sorted(shown):
        _render(lines, shown[name], openmetrics=openmetrics)
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def counted(segment: Segment, family: Family) -> dict[tuple[str, ...], int]:
    """What all processes counted for one counter family, by its label values."""
    totals: dict[tuple[str, ...], int] = {}
    for area in areas(segment):
        for one in area.read()[1]:
            if one.family == family:
                totals[one.values] = totals.get(one.values, 0) + area.cells[one.cell]
    return totals


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header likes OpenMetrics at least as much as plain text."""
    weights = dict(_weight(part) for part in accept.lower().split(","))
    openmetrics = weights.get("application/openmetrics-text", 0.0)
    return openmetrics > 0 and openmetrics >= weights.get("text/plain", 0.0)


def _weight(part: str) -> tuple[str, float]:
    media, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media, float(parameter[2:])
            except ValueError:
                return media, 0.0
    return media, 1.0


def _collect(shown: dict[str, _Shown], area: Area, *, with_gauges: bool) -> None:
    _, series, _ = area.read()
    for one in series:
        family = one.family
        if family.kind is Kind.GAUGE and not with_gauges:
            continue
        into = _family(shown, family)
        labels = _labels(family.labels, one.values)
        if family.kind is Kind.HISTOGRAM:
            _add_histogram(into, labels, family, area.cells[one.cell : one.cell + family.cells].tolist())
        else:
            into.values[labels] = into.values.get(labels, 0) + area.cells[one.cell]


def _family(shown: dict[str, _Shown], family: Family) -> _Shown:
    if family.name not in shown:
        shown[family.name] = _Shown(family)
    return shown[family.name]


def _add_histogram(into: _Shown, labels: str, family: Family, cells: list[int]) -> None:
    bounds = (*family.bounds_us, _INFINITY)
    counts = dict(zip(bounds, accumulate(cells[: len(bounds)]), strict=True))
    before = into.buckets.get(labels)
    if before is not None:
        counts = {bound: count + before[bound] for bound, count in counts.items() if bound in before}
    into.buckets[labels] = counts
    into.sums_us[labels] = into.sums_us.get(labels, 0) + cells[len(bounds)]


def _render(lines: list[str], shown: _Shown, *, openmetrics: bool) -> None:
    family = shown.family
    name = family.name
    kind = family.kind
    help_text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        help_text = help_text.replace('"', r"\"")
    announced = name.removesuffix("_total") if openmetrics and kind is Kind.COUNTER else name
    lines.append(f"# HELP {announced} {help_text}")
    lines.append(f"# TYPE {announced} {kind.value}")
    lines.extend(f"{name}{_braced(labels)} {shown.values[labels]}" for labels in sorted(shown.values))
    for labels in sorted(shown.buckets):
        _render_histogram(lines, name, labels, shown.buckets[labels], shown.sums_us[labels])


def _render_histogram(lines: list[str], name: str, labels: str, buckets: dict[int, int], sum_us: int) -> None:
    inner = f"{labels}," if labels else ""
    outer = _braced(labels)
    for bound_us in sorted(buckets, key=_ascending):
        le = "+Inf" if bound_us == _INFINITY else repr(bound_us / US_PER_S)
        lines.append(f'{name}_bucket{{{inner}le="{le}"}} {buckets[bound_us]}')
    lines.append(f"{name}_sum{outer} {sum_us / US_PER_S!r}")
    lines.append(f"{name}_count{outer} {buckets[_INFINITY]}")


def _ascending(bound_us: int) -> tuple[bool, int]:
    return bound_us == _INFINITY, bound_us


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
