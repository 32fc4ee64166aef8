"""The memory that the processes of a node share to limit together: which parts it has, and who looks after them.

The supervisor declares the sections, makes the table before the first fork, and visits it: each second, and after each
death. Workers and control open what they find, at the size it was made with: a size in the config is for the next
start, also where an upgrade comes between, or what is counted would be forgotten.

Invariants: one process makes the table, and before anybody opens it. A table that was given up stays so until a
restart; the visitor says it once. Left out: what is counted (`table.py`), and what a visit does (`sweep.py`).
"""

import logging
from functools import partial
from typing import Final

from gateway.config.limits import Limits
from gateway.limiter.deny import DENIALS
from gateway.limiter.layout import AT_ROWS, LEAST, Layout
from gateway.limiter.learned import LEARNED
from gateway.limiter.mutex import MutexLost
from gateway.limiter.quick import QuickTable
from gateway.limiter.rows import OnFull
from gateway.limiter.sweep import is_dead, sweep
from gateway.limiter.table import Table
from gateway.nodestate import NodeState
from gateway.segment import WORD, Section, Segment

TABLE: Final = Layout(LEAST, LEAST).section  # of any size: it is elastic
_MIB: Final = 2**20
_log: Final = logging.getLogger("gateway.limits")


def sections(limits: Limits) -> tuple[Section, ...]:
    """What the control segment needs for limits."""
    return _layout(limits).section, LEARNED, DENIALS


def open_table(segment: Segment, limits: Limits) -> QuickTable:
    """This process's access to the table."""
    on_full = OnFull[limits.on_table_full.upper()]
    return QuickTable(segment.view(TABLE), max_end_users=limits.max_end_users, on_full=on_full)


class Caretaker:
    """The supervisor's part. `node` is the memory in use, which an upgrade may replace."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._table: Table | None = None

    def open(self, node: NodeState) -> bool:
        """Before the first fork: make the table (True), or take over the one there is. Raises MutexUnsupported."""
        words, layout = node.segment.view(TABLE), _layout(self._limits)
        made = not words[AT_ROWS]
        if made:
            Table.initialise(words, layout)
            _log.info(
                "limits: room for %d buckets and %d requests in flight, %.0f MiB of shared memory at most",
                layout.rows, layout.holds, layout.words * WORD / _MIB,
            )  # fmt: skip
        self._table = open_table(node.segment, self._limits)
        found = self._table.layout
        if found != layout:
            _log.warning(
                "limits: max_buckets stays %d and max_holds %d: another size needs a restart", found.rows, found.holds
            )
        return made

    def visit(self, node: NodeState) -> None:
        """Each second, and after a process has died."""
        if self._table is None:
            return
        try:
            sweep(self._table, partial(is_dead, node))
        except MutexLost as error:
            _log.error("limits: %s", error)
            self._table = None


def _layout(limits: Limits) -> Layout:
    return Layout(limits.max_buckets, limits.max_holds)
