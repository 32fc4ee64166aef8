"""What `gateway journal` shows: times as people give and read them, holds, and the status document as a page."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from gateway.control.holds import FOREVER_US
from gateway.units import MIB, US_PER_S

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_A_DAY: Final = len("2026-01-31")


class WrongTime(ValueError):
    """A time that cannot be meant; the message says what would be."""


# --- times ----------------------------------------------------------------------------------------------------------


def from_us(text: str | None) -> int:
    """When a hold begins: a day's first microsecond, a moment, or for None the beginning. Raises WrongTime."""
    return 0 if text is None else _us(_moment(text, time.min))


def to_us(text: str | None) -> int:
    """When a hold ends: a day's last microsecond, a moment, or for None never. Raises WrongTime."""
    return FOREVER_US if text is None else _us(_moment(text, time.max))


def _moment(text: str, of_day: time) -> datetime:
    """A day or a moment; UTC where no offset is said."""
    try:
        if len(text) == _A_DAY:
            return datetime.combine(date.fromisoformat(text), of_day, UTC)
        found = datetime.fromisoformat(text)
    except ValueError:
        raise WrongTime(f"{text} is no time: give a day, 2026-01-31, or a moment, 2026-01-31T08:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _us(moment: datetime) -> int:
    since = (moment - _EPOCH) // timedelta(microseconds=1)
    if since < 0:
        raise WrongTime("a hold cannot begin or end before 1970")
    return min(since, FOREVER_US)


def _day(at_us: int) -> str:
    """A day, or a moment where it is not a day's beginning or end."""
    moment = _EPOCH + timedelta(microseconds=at_us)
    whole = moment.time() in (time.min, time.max)
    return f"{moment:%Y-%m-%d}" if whole else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _second(at_us: int) -> str:
    return f"{_EPOCH + timedelta(seconds=at_us // US_PER_S):%Y-%m-%dT%H:%M:%SZ}" if at_us else "none"


# --- holds ----------------------------------------------------------------------------------------------------------


def hold_time(hold: Mapping[str, Any]) -> str:
    """What a hold covers."""
    begin = _day(hold["from_us"]) if hold["from_us"] else "the beginning"
    end = _day(hold["to_us"]) if hold["to_us"] < FOREVER_US else "no end"
    return f"from {begin} to {end}" + (f", for {shown(hold['org'])}" if hold.get("org") else "")


def hold_line(hold: Mapping[str, Any]) -> str:
    """A hold in a list."""
    return f"{hold['id']}  {hold_time(hold)}  by {shown(hold['actor'])}, {_second(hold['at_us'])}: {shown(hold['why'])}"


# --- the status -----------------------------------------------------------------------------------------------------


def status_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The document of `journal_status.py` as a page."""
    limits, manifest = told["retention"], told["manifest"]
    yield f"journal of node {told['node']}, oldest record {_second(told['oldest_us'])}"
    yield f"takes {_size(told['used_bytes'])} of {_size(limits['max_bytes'])}, keeps {limits['keep_days']} days"
    signed = f"manifest {manifest['n']:,} at {_second(manifest['at_us'])}" if manifest else "nothing yet"
    yield f"signed: {signed}; manifests take {_size(told['manifest_bytes'])}"
    yield ""
    yield f"{'chain':<8} {'segments':>14} {'size':>12} {'oldest':<20}  signed up to"
    yield from map(_chain, told["chains"])
    yield ""
    for reader in told["readers"]:
        waits = f"; it waits: {shown(reader['failing'])}" if reader["failing"] else ""
        yield f"reader {reader['name']}: {reader['lag_records']:,} records behind{waits}"
    for name, size in told["poison"].items():
        yield f"reader {name} could not take {_size(size)}: see poison/{name}.jsonl"
    for reason in limits.get("reasons", ()):
        yield f"kept though it should go: {shown(reason)}"
    for hold in told["holds"]:
        yield f"hold {hold['id']} {hold_time(hold)}: {shown(hold['why'])}"


def _chain(chain: Mapping[str, Any]) -> str:
    segments = f"{chain['oldest_segment']}–{chain['newest_segment']} ({chain['segments']})"
    signed = f"line {chain['signed']['seq']:,}" if chain["signed"] else "nothing yet"
    behind = f", {_size(chain['unsigned_bytes'])} behind it" if chain["signed"] and chain["unsigned_bytes"] else ""
    cells = f"{chain['chain']:<8} {segments:>14} {_size(chain['bytes']):>12} {_second(chain['oldest_us']):<20}"
    return f"{cells}  {signed}{behind}"


def _size(count: int) -> str:
    return f"{count:,} B" if count < MIB else f"{count / MIB:,.1f} MiB"


def shown(text: str) -> str:
    """Somebody's words on a terminal: nothing in them may move the cursor."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
