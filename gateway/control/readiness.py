"""Whether the node should get traffic, and if not, why.

Models what a load balancer needs to know, which is not the state of this millisecond: a worker that died is back in
under a second, and a new snapshot reaches every worker within two ticks. Taking the node out for that would hurt more
than it helps, so a shortfall counts from GRACE_NS on. What cannot heal by itself counts at once: the node drains, no
worker serves, it never was complete since this process looked, or what was used of limits before it began is not yet
where limits are counted.

Invariant: `observe` is called far more often than GRACE_NS. Left out: the data port's readyz, which each worker
answers for itself.
"""

from collections.abc import Callable
from typing import Final

from gateway.nodestate import NodeState, SlotPhase
from gateway.units import NS_PER_S

GRACE_NS: Final = 2 * NS_PER_S


class Readiness:
    """Watches the board of one node. `limits` tells why limits do not count what was used yet, "" when they do."""

    def __init__(self, state: NodeState, limits: Callable[[], str] = lambda: "") -> None:
        self._state = state
        self._limits = limits
        self._complete_ns = -GRACE_NS  # when nothing was amiss; long ago until it was seen once

    def observe(self, now_ns: int) -> None:
        """Look at the board, and let workers know whether limits count."""
        self._state.recounting = int(bool(self._limits()))
        if not self._shortfalls():
            self._complete_ns = now_ns

    def reasons(self, now_ns: int) -> list[str]:
        """Why the node is not ready; empty when it is."""
        state = self._state
        if state.draining:
            return ["the node is draining"]
        if not state.workers_ready:
            return ["no worker is ready"]
        if reason := self._limits():
            return [reason]
        shortfalls = self._shortfalls()
        if not shortfalls:
            self._complete_ns = now_ns
        return shortfalls if now_ns - self._complete_ns > GRACE_NS else []

    def _shortfalls(self) -> list[str]:
        state = self._state
        wanted = workers_wanted(state)
        found = [] if state.workers_ready >= wanted else [f"{state.workers_ready} of {wanted} workers are ready"]
        for slot, words in state.live_workers():
            if words.phase != SlotPhase.READY or words.generation == state.generation:
                continue
            refused = "refused" if words.swap_failed == state.generation else "has not adopted"
            found.append(f"worker in slot {slot} {refused} snapshot {state.generation} and stays on {words.generation}")
        return found


def workers_wanted(state: NodeState) -> int:
    """Workers that should serve; as many as there is room for, with as many again for an upgrade."""
    return min(state.workers_wanted, len(state.worker_slots) // 2)
