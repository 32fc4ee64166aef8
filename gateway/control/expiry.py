"""Which segments should go, and which of them may: retention's decision, on what the disk and the others say.

A segment should go when it is older than `keep_days`, or is the oldest while the journal is larger than `max_bytes`. It
may go when a later one of its chain is signed (so it is whole, and not the newest), every reader has passed it, no
legal hold covers a moment of it, and the next segment with lines says how the chain goes on. Always the oldest of all
chains first, and within a chain in its order; a chain that may not go on leaves the others to make room.

What should go and may not is counted by reason. A reason names a reader, a hold, a chain or the clock, and no number
that moves while it lasts, so that it is told once. Left out: dropping (`retention.py`).
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gateway.control import inventory
from gateway.control.holds import Hold
from gateway.control.inventory import Segment, Stock
from gateway.journal.manifest import Floor
from gateway.journal.read import START, Place
from gateway.units import US_PER_S

MOST_AT_ONCE: Final = 64  # segments; the rest goes with the next turns
TOO_OLD: Final = "keep_days"
TOO_MUCH: Final = "max_bytes"
_DAMAGED: Final = "chain %s: the segment after its oldest does not say how it goes on: see `gateway audit verify`"
_UNSIGNED: Final = "chain %s is not signed to its end"
_ALL_NEWEST: Final = "the newest segment of each chain stays, and so do the manifests: raise journal.max_bytes"
_DAY_US: Final = 86_400 * US_PER_S

Places = Mapping[str, Mapping[str, Place]]
"""By reader and chain, how far it has got; a chain it has not come to is not named."""


class RetentionSettings(NamedTuple):
    """What `journal.max_bytes` and `journal.keep_days` say."""

    max_bytes: int
    keep_days: int


class Standing(NamedTuple):
    """How things stand at one moment.

    `unreadable`: why the holds cannot be told, "" when `holds` are all. `doubt`: why the clock is not to be believed
    about what is too old, "" when it is.
    """

    now_us: int
    settings: RetentionSettings
    signed: Mapping[str, Place]
    places: Places
    holds: tuple[Hold, ...]
    unreadable: str = ""
    doubt: str = ""


class Drop(NamedTuple):
    """A segment that goes, why, and how its chain begins from then on."""

    segment: Segment
    why: str
    floor: Floor


class Plan(NamedTuple):
    """What goes, what the journal takes after that, and the bytes that should go and may not, with the reasons."""

    drops: list[Drop]
    used_bytes: int
    blocked_bytes: int
    reasons: tuple[str, ...]


class Expiry:
    """Decides for one journal; remembers the times of closed segments, which do not change."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._last_us: dict[Path, int] = {}
        self._spans: dict[Path, tuple[int, int]] = {}

    def plan(self, stock: Stock, standing: Standing) -> Plan:
        """What goes now. `stock` is what has no floor above it yet. Raises OSError."""
        self._forget(stock)
        queues, reasons = _closed(stock, standing), dict[str, None]()
        drops, used_bytes, overdue_bytes = list[Drop](), stock.bytes, 0
        while len(drops) < MOST_AT_ONCE:
            oldest = min((queue[0] for queue in queues.values() if queue), key=self._age, default=None)
            why = self._why(oldest, used_bytes, standing) if oldest is not None else ""
            if oldest is None or not why:
                reasons |= _cannot_shrink(stock, standing) if used_bytes > standing.settings.max_bytes else {}
                break
            floor = self._floor_after(oldest, stock)
            reason = self._objection(oldest, why, standing) or (_DAMAGED % oldest.chain if floor is None else "")
            if floor is None or reason:
                reasons[reason] = None
                overdue_bytes += sum(s.all_bytes for s in queues.pop(oldest.chain) if self._is_too_old(s, standing))
                continue
            drops.append(Drop(queues[oldest.chain].popleft(), why, floor))
            used_bytes -= oldest.all_bytes
        over_bytes = used_bytes - standing.settings.max_bytes if reasons else 0
        return Plan(drops, used_bytes, max(0, over_bytes, overdue_bytes), tuple(reasons))

    # --- should it go ---

    def _why(self, segment: Segment, used_bytes: int, standing: Standing) -> str:
        too_much = used_bytes > standing.settings.max_bytes
        if self._is_too_old(segment, standing) and not (standing.doubt and too_much):
            return TOO_OLD
        return TOO_MUCH if too_much else ""

    def _is_too_old(self, segment: Segment, standing: Standing) -> bool:
        return self._age(segment) < standing.now_us - standing.settings.keep_days * _DAY_US

    def _age(self, segment: Segment) -> int:
        if segment.path not in self._last_us:
            self._last_us[segment.path] = inventory.last_us(segment.path)
        return self._last_us[segment.path]

    # --- may it go ---

    def _objection(self, segment: Segment, why: str, standing: Standing) -> str:
        """Why a segment may not go; "" when it may."""
        if why == TOO_OLD and standing.doubt:
            return standing.doubt
        for reader, places in standing.places.items():
            if places.get(segment.chain, START).segment <= segment.number:
                return f"{reader} has not read chain {segment.chain} that far"
        if standing.unreadable:
            return standing.unreadable
        held = next((hold for hold in standing.holds if hold.covers(*self._span(segment))), None)
        return f"legal hold {held.id} ({held.why})" if held is not None else ""

    def _span(self, segment: Segment) -> tuple[int, int]:
        if segment.path not in self._spans:
            self._spans[segment.path] = inventory.span(segment.path)
        return self._spans[segment.path]

    def _floor_after(self, segment: Segment, stock: Stock) -> Floor | None:
        """How the chain begins when this segment is gone; None when the next one with lines does not say."""
        later = (s.number for s in stock.chains[segment.chain] if s.number > segment.number and s.bytes)
        number = next(later, 0)
        first = inventory.first_line(self._journal, segment.chain, number)
        return None if first is None else Floor(segment.chain, number, first.seq, first.record.prev)

    def _forget(self, stock: Stock) -> None:
        known = {segment.path for segments in stock.chains.values() for segment in segments}
        for times in (self._last_us, self._spans):
            for path in times.keys() - known:
                del times[path]


def _closed(stock: Stock, standing: Standing) -> dict[str, deque[Segment]]:
    """By chain, the segments that are whole and signed; one without lines goes with those before it."""
    return {
        chain: deque(s for s in segments if s.bytes and s.number < standing.signed.get(chain, START).segment)
        for chain, segments in stock.chains.items()
    }


def _cannot_shrink(stock: Stock, standing: Standing) -> dict[str, None]:
    """Why a journal that is too large has no segment to give, apart from what has been told of its chains."""
    newest = {
        chain: max((s.number for s in segments if s.bytes), default=0) for chain, segments in stock.chains.items()
    }
    behind = [chain for chain, number in newest.items() if standing.signed.get(chain, START).segment < number]
    return dict.fromkeys([_UNSIGNED % chain for chain in behind] or [_ALL_NEWEST])
