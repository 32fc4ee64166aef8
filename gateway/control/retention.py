"""Retention: how the oldest segments go, so that a crash at any step leaves no gap that is not documented.

What goes is decided anew at each turn (`expiry.py`). It goes in three steps:
1. a record `dropped` is in control's chain, on the disk (a crash right after it may lead to a second one);
2. a manifest with the chain's new floor is signed and on the disk: from here on the gap is documented;
3. the files below the signed floor are removed, at the next turn or the first one of the next process.

Invariants: only files below a signed floor are removed, oldest first; a hold acts on everything that has no floor when
it is added. What a repair cut off goes with its segment, and key files that no kept record names go after the segments.
Left out: the manifests' own floor (the notary's), and closing old segments (their writers').
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from gateway.config.files import sync_directory
from gateway.control import inventory
from gateway.control.expiry import MOST_AT_ONCE, Drop, Expiry, Places, Plan, RetentionSettings, Standing
from gateway.control.holds import Hold, Holds, HoldsUnreadable
from gateway.control.inventory import Stock
from gateway.journal import layout
from gateway.journal.keytable import spent
from gateway.journal.line import content_of
from gateway.journal.manifest import Floor
from gateway.journal.read import Place
from gateway.record import Kind, Record

ALARM_PERCENT: Final = 80
_PERCENT: Final = 100
_log: Final = logging.getLogger("gateway.retention")


class Notary(Protocol):
    """Who signs how far chains are whole, and where they begin."""

    @property
    def signed(self) -> Mapping[str, Place]:
        """How far each chain is signed."""

    @property
    def floors(self) -> Mapping[str, Floor]:
        """The floors in the newest manifest that is on the disk."""

    def raise_floor(self, floors: Iterable[Floor]) -> None:
        """Put these into the next manifest."""


class Retention:
    """`turn` blocks and belongs to one thread; the attributes may be read at any time.

    `append` puts a record's content into control's chain and returns when it is on the disk; OSError: it is not.
    `doubt` tells why the clock is not to be believed about what is too old, "" when it is (`clockwatch.py`).
    """

    def __init__(
        self,
        state_dir: Path,
        settings: RetentionSettings,
        notary: Notary,
        places: Callable[[], Places],
        append: Callable[[bytes], None],
        holds: Holds,
        now_us: Callable[[], int],
        doubt: Callable[[], str] = lambda: "",
    ) -> None:
        self._journal = layout.journal_of(state_dir)
        self._sealing = layout.sealing_of(state_dir)
        self.settings = settings
        self._notary = notary
        self._places = places
        self._append = append
        self._holds = holds
        self._now_us = now_us
        self._doubt = doubt
        self._expiry = Expiry(self._journal)
        self._raised: dict[str, Floor] = {}  # asked for; signed or not yet
        self._keys_due = True
        self._told = ""
        # for metrics
        self.used_bytes = 0
        self.blocked_bytes = 0  # should go and may not
        self.behind = False  # more may go than one turn takes
        self.alarm = False  # ALARM_PERCENT of max_bytes are used
        self.reasons: tuple[str, ...] = ()  # why something may not go
        self.failing = ""  # why a turn came to nothing
        self.dropped_segments = 0
        self.dropped_bytes = 0

    def adopt(self, settings: RetentionSettings) -> None:
        """Follow a reload, from the next turn on."""
        self.settings = settings

    def turn(self) -> None:
        """Remove what is below the signed floors, and decide what goes next.

        What the disk or the journal does not allow is logged once, and tried again at the next turn.
        """
        self.behind = False
        try:
            self._remove(self._notary.floors)
            if self._keys_due:
                self._forget_keys()
            self._show(self._decide())
        except OSError as error:
            if not self.failing:
                _log.error("nothing is dropped from the journal: %s", error)
            self.failing = str(error)
            return
        self.failing = ""

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _decide(self) -> Plan:
        """What goes, recorded and with its floors asked for. A hold that is added meanwhile waits for the end."""
        with self._standing_holds() as (holds, unreadable):
            stock = self._uncondemned(inventory.take(self._journal))
            signed, places = self._notary.signed, self._places()
            standing = Standing(self._now_us(), self.settings, signed, places, holds, unreadable, self._doubt())
            plan = self._expiry.plan(stock, standing)
            self._condemn(plan.drops)
        return plan

    @contextmanager
    def _standing_holds(self) -> Iterator[tuple[tuple[Hold, ...], str]]:
        try:
            with self._holds.standing() as holds:
                yield holds, ""
        except HoldsUnreadable as error:
            yield (), str(error)

    def _uncondemned(self, stock: Stock) -> Stock:
        """What has no floor above it, signed or asked for."""
        floors = {**self._notary.floors, **self._raised}
        chains = {
            chain: [s for s in segments if chain not in floors or s.number >= floors[chain].segment]
            for chain, segments in stock.chains.items()
        }
        return stock._replace(chains=chains)

    def _condemn(self, drops: Iterable[Drop]) -> None:
        """Steps 1 and 2. Raises OSError; what was recorded before it goes all the same."""
        raised = dict[str, Floor]()
        try:
            for drop in drops:
                self._append(content_of(self._record(drop)))
                raised[drop.segment.chain] = drop.floor
                self.dropped_segments += 1
                self.dropped_bytes += drop.segment.all_bytes
        finally:
            if raised:
                self._raised |= raised
                self._notary.raise_floor(raised.values())

    def _record(self, drop: Drop) -> Record:
        first = inventory.first_line(self._journal, drop.segment.chain, drop.segment.number)
        detail = {
            "first_seq": -1 if first is None else first.seq,  # -1: its first line is damaged
            "last_seq": drop.floor.seq - 1,
            "head": drop.floor.head,
            "bytes": drop.segment.all_bytes,
            "why": drop.why,
        }
        return Record(
            Kind.CHECKPOINT, "", self._now_us(), action="dropped", subject=drop.segment.name, detail=json.dumps(detail)
        )

    # --- removing ---------------------------------------------------------------------------------------------------

    def _remove(self, floors: Mapping[str, Floor]) -> None:
        """Step 3, for every chain. Raises OSError."""
        for floor in floors.values():
            paths = list(self._below(floor))
            for path in paths:
                path.unlink(missing_ok=True)
            if paths:
                sync_directory(self._journal / floor.chain)
                self._keys_due = True
                _log.info("chain %s begins with segment %d now", floor.chain, floor.segment)

    def _below(self, floor: Floor) -> Iterator[Path]:
        """The files that go, each segment after what was cut from it."""
        torn = inventory.torn_files(self._journal, floor.chain)
        for number in sorted({*torn, *layout.segments(self._journal, floor.chain)}):
            if number < floor.segment:
                yield from torn.get(number, ())
                yield layout.segment_path(self._journal, floor.chain, number)

    def _forget_keys(self) -> None:
        """Remove key files that no kept segment can name. Raises OSError."""
        if not self._sealing.is_dir():
            return
        removed = False
        for chain in layout.chains(self._journal):
            oldest_us = self._oldest_us(chain)
            for path in spent(self._sealing, chain, oldest_us) if oldest_us is not None else ():
                path.unlink(missing_ok=True)
                removed = True
        if removed:
            sync_directory(self._sealing)
        self._keys_due = False

    def _oldest_us(self, chain: str) -> int | None:
        """When its oldest kept record may have been made; None where that cannot be told. Raises OSError.

        Every segment is asked, since a clock that was ahead for a while may have dated the first one.
        """
        times = list[int]()
        for number in layout.segments(self._journal, chain):
            path = layout.segment_path(self._journal, chain, number)
            if path.stat().st_size:
                first = inventory.first_line(self._journal, chain, number)
                if first is None:
                    return None
                times += first.record.at_us, inventory.last_us(path)
        return min(times, default=None)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _show(self, plan: Plan) -> None:
        most = self.settings.max_bytes
        self.used_bytes, self.blocked_bytes, self.reasons = plan.used_bytes, plan.blocked_bytes, plan.reasons
        self.behind = len(plan.drops) >= MOST_AT_ONCE
        self.alarm = plan.used_bytes * _PERCENT >= most * ALARM_PERCENT
        told = "; ".join(plan.reasons) or ("full" if self.alarm else "")
        if told == self._told:
            return
        self._told = told
        if plan.reasons:
            _log.error("the journal keeps what should be dropped (%d bytes too many): %s", plan.blocked_bytes, told)
        elif self.alarm:
            _log.warning(
                "the journal takes %d of the %d bytes that journal.max_bytes allows: at that size its oldest records "
                "go, though they are younger than journal.keep_days", plan.used_bytes, most,
            )  # fmt: skip
        else:
            _log.info("the journal has room again, and nothing keeps its old records from going")
