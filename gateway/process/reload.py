"""A reload as the supervisor sees it: asked for, answered by control, adopted by the workers.

Pure: it reads the board and says what has come of the request. The work is done by control (validate, write the
snapshot) and by each worker (swap).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.nodestate import NodeState, SlotState
from gateway.units import NS_PER_S

_ADOPT_NS: Final = 10 * NS_PER_S  # workers swap within two ticks; one that is busy for longer is reported, not awaited


@dataclass(slots=True)
class Reload:
    """One request under way; `request` is its number on the board."""

    request: int
    until_ns: int = 0

    @classmethod
    def ask(cls, state: NodeState) -> "Reload":
        """Put a new request on the board; requests not answered yet are answered by the same reload."""
        state.reload_asked += 1
        return cls(state.reload_asked)

    def outcome(self, state: NodeState, workers: Sequence[SlotState], now_ns: int) -> str | None:
        """What to tell the operator once it is over; None while it is not."""
        if state.reload_done < self.request:
            return None
        generation = state.reload_generation
        if not generation:
            return "reload refused: serving with the old configuration"
        refused = sum(words.swap_failed == generation for words in workers)
        behind = sum(words.generation < generation for words in workers) - refused
        self.until_ns = self.until_ns or now_ns + _ADOPT_NS
        if behind > 0 and now_ns < self.until_ns:
            return None
        if refused or behind > 0:
            return f"snapshot {generation}: {refused} workers refused it and stay on the old one, {behind} are late"
        return f"snapshot {generation} is in use by all {len(workers)} workers"
