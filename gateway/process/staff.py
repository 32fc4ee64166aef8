"""Every process of the node, by pid: forked here, reaped here, and ended here when patience runs out.

Also the slots of the segment: a slot is given to a process before its fork and is free again once that is reaped.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final

from gateway.nodestate import NodeState, Order
from gateway.process.child import fork
from gateway.process.control import ControlContext, ControlMain, run_control
from gateway.process.crew import Child
from gateway.process.node import Node
from gateway.process.settings import ServeSettings
from gateway.process.worker import WorkerContext, WorkerMain, run_worker
from gateway.units import NS_PER_S

_AGAIN_NS: Final = NS_PER_S  # between two SIGKILLs of a process the kernel has not let go of yet
STOP_NS: Final = 3 * NS_PER_S  # for a process to end once its drain is over; App.stop has 2 s of it
_log: Final = logging.getLogger("gateway.process")


class Staff:
    """The living processes. `newcomers` is what a new worker is told first."""

    def __init__(
        self,
        node: Node,
        settings: ServeSettings,
        worker_main: WorkerMain,
        control_main: ControlMain,
        let_go: Callable[[], None],
    ) -> None:
        self._node = node
        self._settings = settings
        self._worker_main = worker_main
        self._control_main = control_main
        self._let_go = let_go
        self.children: dict[int, Child] = {}
        self.newcomers = Order.SERVE

    def workers(self) -> list[Child]:
        """All workers, whatever they are doing."""
        return [child for child in self.children.values() if child.is_worker]

    def hire_worker(self, seat: int, slot: int) -> Child | None:
        """Fork a worker for a seat, in this slot if it is free; None when no slot or no process is to be had."""
        state = self._node.state
        taken = {child.slot for child in self.children.values() if child.state is state}
        if slot < 0 or slot in taken:
            slot = next((slot for slot in state.worker_slots if slot not in taken), -1)
        if slot < 0:
            _log.error("no free slot for another worker")
            return None
        return self._hire(f"gw-worker-{slot}", seat, slot, partial(self._be_worker, slot, os.getpid()))

    def hire_control(self, seat: int, _slot: int) -> Child | None:
        """Fork the control process."""
        return self._hire("gw-control", seat, self._node.state.control_slot, partial(self._be_control, os.getpid()))

    def adopt(self, child: Child) -> None:
        """Count in a process that an earlier build forked."""
        self.children[child.pid] = child

    def reap(self) -> Iterator[tuple[int, Child | None, int]]:
        """The pid, record and exit code of every child that has ended; no record: not one of the staff."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            yield pid, self.children.pop(pid, None), os.waitstatus_to_exitcode(status)

    def end(self, child: Child, kill_at_ns: int, order: Order, deadline_ns: int = 0) -> None:
        """Order a process away, and kill it if it is still there at `kill_at_ns`."""
        child.order(order, deadline_ns)
        child.kill_at_ns = min(child.kill_at_ns or kill_at_ns, kill_at_ns)

    def dismiss(self, child: Child, order: Order, now_ns: int) -> None:
        """Send a worker away: LEAVE lets it finish what is open within `drain_s`, EXIT does not."""
        patience_ns = int(self._settings.drain_s * NS_PER_S) if order == Order.LEAVE else 0
        self.end(child, now_ns + patience_ns + STOP_NS, order, now_ns + patience_ns)

    def enforce(self, now_ns: int) -> None:
        """Kill whoever has outstayed the time given."""
        for child in self.children.values():
            if child.kill_at_ns and now_ns >= child.kill_at_ns:
                _log.warning("killing pid %d (slot %d): it did not end in time", child.pid, child.slot)
                child.kill_at_ns = now_ns + _AGAIN_NS
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _hire(self, title: str, seat: int, slot: int, run: Callable[[], int]) -> Child | None:
        now_ns = time.monotonic_ns()
        words = self._node.state.slot(slot)
        words.begin(self.newcomers, now_ns)
        try:
            pid = fork(title, run, self._let_go)
        except OSError as error:
            _log.error("cannot fork %s: %s", title, error.strerror)
            words.end()
            return None
        words.pid = pid
        child = Child(pid, seat, slot, self._node.state, now_ns)
        self.children[pid] = child
        return child

    def _be_worker(self, slot: int, parent: int) -> int:
        self._node.listening.admin.close()
        state = self._node.state
        context = WorkerContext(
            self._settings, state.segment, state, slot, generation=state.generation, boot_ns=state.boot_ns
        )
        return run_worker(self._worker_main, context, self._node.listening.data, parent)

    def _be_control(self, parent: int) -> int:
        self._node.listening.close_data()
        state: NodeState = self._node.state
        context = ControlContext(
            settings=self._settings,
            segment=state.segment,
            state=state,
            slot=state.control_slot,
            boot_ns=state.boot_ns,
            admin=self._node.listening.admin,
        )
        return run_control(self._control_main, context, parent)
