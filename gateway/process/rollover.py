"""After an upgrade's exec: the new build's workers come in beside the old ones, and take over or go.

The old workers hold still meanwhile: they serve, and adopt no snapshot that the new build wrote. They are told to leave
only when every new worker accepts, so a socket is never without an acceptor.
"""

import logging
from collections.abc import Callable
from typing import Final

from gateway.nodestate import Order
from gateway.process.crew import Child, Crew
from gateway.process.node import Node

_GIVE_UP_AFTER: Final = 3  # failed starts of one seat
_log: Final = logging.getLogger("gateway.process")


class Rollover:
    """Two crews side by side, until `done`."""

    def __init__(self, old: Crew, new: Crew, node: Node, generation: int, until_ns: int) -> None:
        """`generation` is the snapshot the old crew serves from; after `until_ns` the new crew has failed."""
        self.old = old
        self.new = new
        self._node = node
        self._generation = generation
        self._until_ns = until_ns
        self.hold()

    def hold(self) -> None:
        """Keep the old workers on what they have."""
        for child in self.old.children():
            child.order(Order.HOLD)

    def step(self, now_ns: int, dismiss: Callable[[Child, Order], None]) -> Crew | None:
        """Go on as far as possible; returns the crew that stays, the other's processes dismissed, once that is known.

        `dismiss` is called with LEAVE for workers that may finish what they do, with EXIT for those that serve nobody.
        """
        self.new.staff(now_ns)
        if self.new.complete():
            self.new.assign(self._node.listening.open)
            if self.new.accepting():
                for child in self.old.children():
                    dismiss(child, Order.LEAVE)
                return self.new
        elif now_ns > self._until_ns or self.new.worst_row() >= _GIVE_UP_AFTER:
            return self._give_up(dismiss)
        return None

    def lost(self, child: Child, now_ns: int) -> bool:
        """Take a dead process of the new crew off its seat; the old crew is looked after elsewhere."""
        return self.new.lost(child, now_ns)

    def _give_up(self, dismiss: Callable[[Child, Order], None]) -> Crew:
        _log.error("upgrade: the new workers did not start; the old ones go on serving")
        for child in self.new.children():
            dismiss(child, Order.EXIT)
        self._node.state.generation = self._generation
        for child in self.old.children():
            child.order(Order.SERVE)
        return self.old
