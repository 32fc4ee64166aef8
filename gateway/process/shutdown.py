"""The way down: announced first, then the sockets go, then what is open ends, then control, then nothing is left.

Both times count from the signal: accepting goes on for `drain_delay_s` (a balancer needs that long to see readyz fail),
and at `drain_s` what is still open is cut.
"""

from gateway.nodestate import Order
from gateway.process.node import Node
from gateway.process.settings import ServeSettings
from gateway.process.staff import STOP_NS, Staff
from gateway.units import NS_PER_S


class Shutdown:
    """One node on its way down; `step` it until it says that it is over."""

    def __init__(self, node: Node, staff: Staff, settings: ServeSettings, now_ns: int, *, delay_s: float) -> None:
        self._node = node
        self._staff = staff
        self._close_at_ns = now_ns + int(min(delay_s, settings.drain_s) * NS_PER_S)
        self._give_up_ns = now_ns + int(settings.drain_s * NS_PER_S)
        self.accepting = True
        node.state.draining = 1
        staff.newcomers = Order.ANNOUNCE
        for child in staff.workers():
            if child.words.order < Order.ANNOUNCE:
                child.order(Order.ANNOUNCE)

    def step(self, now_ns: int) -> bool:
        """Go on as far as possible; True when no process is left."""
        if self.accepting and now_ns >= self._close_at_ns:
            self._close()
        if self.accepting:
            return False
        if not self._staff.workers():
            for child in self._staff.children.values():  # control goes last: metrics are readable while others drain
                if child.words.order != Order.LEAVE:
                    self._staff.end(child, now_ns + 2 * STOP_NS, Order.LEAVE)
        return not self._staff.children

    def hurry(self, now_ns: int) -> None:
        """A second signal: end now."""
        self._node.listening.close_data()
        self.accepting = False
        for child in self._staff.children.values():
            self._staff.end(child, now_ns + NS_PER_S, Order.EXIT)

    def _close(self) -> None:
        """Give the sockets up: the supervisor first, so that the last worker to empty a queue is the last to close."""
        self.accepting = False
        self._node.listening.close_data()
        for child in self._staff.workers():
            already = child.words.order == Order.LEAVE  # its sockets are closed, and its time may end sooner
            deadline_ns = min(self._give_up_ns, child.words.deadline_ns) if already else self._give_up_ns
            self._staff.end(child, deadline_ns + STOP_NS, Order.LEAVE if already else Order.CLOSE, deadline_ns)
