"""The supervisor: one plain loop that owns the node and keeps every seat served.

Signals enqueue; a tick every 100 ms (and after every signal) looks at the board, reaps, forks, assigns sockets, and
moves a reload, an upgrade or the way down one step on. There is no event loop and no thread, so a fork copies nothing
half-done, and each step only compares what is with what should be: missing one tick, or being executed anew in
between, changes nothing but the time.

What each step does is in the modules named for it: `crew` (seats, sockets), `staff` (fork, reap, kill), `reload`,
`upgrade` and `rollover`, `shutdown`.
"""

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from gateway.nodestate import NodeState, Order, SlotPhase
from gateway.process import linux
from gateway.process.control import ControlMain
from gateway.process.crew import Child, Crew
from gateway.process.node import Node, adopt_node, open_node
from gateway.process.notify import Notifier, take_listen_fds
from gateway.process.reload import Reload
from gateway.process.rollover import Rollover
from gateway.process.settings import ServeSettings, StartError, bounded_workers
from gateway.process.shutdown import Shutdown
from gateway.process.signals import SignalQueue
from gateway.process.staff import Staff
from gateway.process.stuck import StuckWatch, Suspect, victim
from gateway.process.upgrade import HandedWorker, Handover, Preflight, execute, take_handover
from gateway.process.worker import WorkerMain
from gateway.segment import Segment
from gateway.units import NS_PER_S

TICK_S: Final = 0.1
_BUSY_TICK_S: Final = 0.02
_TICK_NS: Final = int(TICK_S * NS_PER_S)
_DUMP_NS: Final = NS_PER_S // 2  # between SIGABRT, which prints a stuck worker's stack, and SIGKILL
_HELP_NS: Final = NS_PER_S
_BOOT_FAILURES: Final = 3
_PREFLIGHT_NS: Final = 30 * NS_PER_S
_IMPORT_NS: Final = NS_PER_S
_VISIT_NS: Final = NS_PER_S

_log: Final = logging.getLogger("gateway.process")

Publish = Callable[[], int]
OnReady = Callable[[Node], None]
ImportCounters = Callable[[Segment, Segment], None]


class Caretaker(Protocol):
    """Looks after memory that all processes write, where one of them may die at any time."""

    def open(self, node: NodeState) -> bool:
        """Before the first fork: whether it is new, and has to be told what it knew; raises StartError."""

    def visit(self, node: NodeState) -> None:
        """Each second, and after a process has ended."""


def serve(
    settings: ServeSettings,
    worker_main: WorkerMain,
    control_main: ControlMain,
    *,
    publish: Publish,
    on_ready: OnReady | None = None,
    import_counters: ImportCounters | None = None,
    caretaker: Caretaker | None = None,
) -> int:
    """Run the node until it is told to stop; the exit code.

    `publish` writes the boot snapshot and returns its generation: called once, with the state_dir locked, before any
    fork (also after an upgrade). `on_ready` is called once, when every worker serves. `import_counters(old, new)` is
    called after an upgrade to another segment layout, about once a second until the last process of the old segment
    has gone: it must be idempotent, that is, set the supervisor's slot of `new` to the totals of `old`.
    """
    linux.set_title("gw-super")
    try:
        handover = take_handover(os.environ)
        received = take_listen_fds(os.environ)
        node = adopt_node(settings, handover) if handover else open_node(settings, received)
        supervisor = Supervisor(settings, worker_main, control_main, node, on_ready, import_counters, caretaker)
        try:
            supervisor.start(publish, handover)
        except StartError:
            supervisor.give_up(keep_lock=handover is not None)
            raise
    except StartError as error:
        _log.error("%s", error)
        return 1
    return supervisor.run()


class Supervisor:
    """The loop over one node."""

    def __init__(
        self,
        settings: ServeSettings,
        worker_main: WorkerMain,
        control_main: ControlMain,
        node: Node,
        on_ready: OnReady | None,
        import_counters: ImportCounters | None,
        caretaker: Caretaker | None = None,
    ) -> None:
        self._settings = settings
        self._node = node
        self._on_ready = on_ready
        self._import_counters = import_counters
        self._caretaker = caretaker
        self._queue = SignalQueue()
        self._notifier = Notifier.from_environment(os.environ)
        self._staff = Staff(node, settings, worker_main, control_main, self._queue.close)
        self._crew = Crew(self._staff.hire_worker, settings.worker_count())
        self._control = Crew(self._staff.hire_control, 1)
        self._watch = StuckWatch(_TICK_NS)
        self._stuck_ns = int(settings.stuck_s * NS_PER_S)
        self._next_kill_ns = 0
        self._next_import_ns = 0
        self._next_visit_ns = 0
        self._started_ns = time.monotonic_ns()
        self._was_ready = False
        self._exit_code = 0
        self._reload: Reload | None = None
        self._preflight: Preflight | None = None
        self._about_to_execute = False
        self._rollover: Rollover | None = None
        self._shutdown: Shutdown | None = None

    def start(self, publish: Publish, handover: Handover | None) -> None:
        """Everything before the first fork; raises StartError."""
        if handover:
            self._take_over(handover)
        try:
            self._node.state.generation = publish()
        except OSError as error:
            raise StartError(f"cannot write the boot snapshot: {error}") from error
        if self._caretaker:
            self._node.state.recounting = int(self._caretaker.open(self._node.state))
        self._node.state.workers_wanted = self._settings.worker_count()
        own = self._node.state.slot(self._node.state.supervisor_slot)
        own.begin(Order.SERVE, self._started_ns)
        own.pid = os.getpid()
        own.phase = SlotPhase.READY
        gc.collect()
        gc.freeze()  # what is here now is shared by all children for good: no collection should touch its pages

    def give_up(self, *, keep_lock: bool) -> None:
        """End without having forked; after an upgrade the orphaned workers still hold the state_dir."""
        self._queue.close()
        self._node.listening.close()
        if not keep_lock:
            self._node.lock.release()

    def run(self) -> int:
        """Turn until no process is left."""
        over = False
        while not over:
            signals = self._queue.wait(self._pace_s())
            over = self._tick(time.monotonic_ns(), signals)
        self._node.close()
        self._queue.close()
        return self._exit_code

    def _pace_s(self) -> float:
        """Short steps while workers are coming in: each hand-over between them and us costs a step."""
        return TICK_S if self._was_ready and self._rollover is None and self._crew.complete() else _BUSY_TICK_S

    def _on_signal(self, number: int, now_ns: int) -> None:
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._stop(now_ns, delay_s=self._settings.drain_delay_s if number == signal.SIGTERM else 0.0)
        elif number == signal.SIGHUP and not self._shutdown:
            _log.info("reload requested")
            self._reload = Reload.ask(self._node.state)
            self._notifier.reloading(now_ns)
        elif number == signal.SIGUSR2 and not self._shutdown:
            self._begin_upgrade(now_ns)

    def _tick(self, now_ns: int, signals: Iterable[int] = ()) -> bool:
        own = self._node.state.slot(self._node.state.supervisor_slot)
        own.beat_ns = now_ns
        self._notifier.watchdog(now_ns)
        self._reap(now_ns)
        for number in signals:  # after the dead: an upgrade is not refused for an old worker that is seen to have left
            self._on_signal(number, now_ns)
        self._staff.enforce(now_ns)
        self._visit(now_ns)
        self._end_stuck(now_ns)
        self._node.state.expire_refused(now_ns)
        self._keep_served(now_ns)
        self._go_on(now_ns)
        self._bring_counters(now_ns)
        return self._shutdown is not None and self._shutdown.step(now_ns)

    def _reap(self, now_ns: int) -> None:
        for pid, child, code in self._staff.reap():
            if child:
                self._on_exit(child, code, now_ns)
            elif self._preflight and pid == self._preflight.pid:
                self._after_preflight(code)

    # --- keeping every seat served ----------------------------------------------------------------------------------

    def _keep_served(self, now_ns: int) -> None:
        """Staff what is vacant and share the sockets out to those who serve."""
        if self._shutdown and not self._shutdown.accepting:
            return
        if not self._rollover:
            self._resize(now_ns)
            self._crew.staff(now_ns)
            for child in self._crew.ready():
                if child.words.asked_to_leave and not self._shutdown:
                    self._crew.succeed(child, now_ns)
            for child in self._crew.promote():
                self._staff.dismiss(child, Order.LEAVE, now_ns)
        if not self._about_to_execute:
            self._control.staff(now_ns)
        self._crew.assign(self._node.listening.open, self._responsive)
        self._node.state.workers_ready = len(self._crew.ready())
        if not self._was_ready and not self._shutdown:
            self._watch_boot(now_ns)

    def _responsive(self, child: Child) -> bool:
        """Silent for a second is not stuck yet, but long for callers queued on its socket: a neighbour helps out."""
        return self._watch.silent_ns(child.pid) < _HELP_NS

    def _resize(self, now_ns: int) -> None:
        wanted = bounded_workers(self._node.state.workers_wanted, self._node.room)
        if wanted == len(self._crew.seats) or self._shutdown:
            return
        _log.info("workers: %d, were %d", wanted, len(self._crew.seats))
        self._node.listening.grow(wanted)  # beyond the reserve of sockets, workers share
        removed = self._crew.resize(wanted)
        self._crew.assign(self._node.listening.open)
        for child in removed:
            self._staff.dismiss(child, Order.LEAVE, now_ns)

    def _watch_boot(self, now_ns: int) -> None:
        if self._crew.complete() and self._crew.accepting() and self._control.complete():
            self._was_ready = True
            took_ms = (now_ns - self._started_ns) // 1_000_000
            _log.info("ready: %d workers, started in %d ms", len(self._crew.seats), took_ms)
            self._say_ready()
            if self._on_ready:
                self._on_ready(self._node)
        elif max(self._crew.worst_row(), self._control.worst_row()) >= _BOOT_FAILURES:
            _log.error("not started: the processes end before they are ready, see their errors above")
            self._exit_code = 1
            self._shutdown = Shutdown(self._node, self._staff, self._settings, now_ns, delay_s=0.0)
            self._shutdown.hurry(now_ns)

    def _say_ready(self) -> None:
        state = self._node.state
        self._notifier.ready(f"serving: {state.workers_ready} workers, snapshot {state.generation}")

    def _on_exit(self, child: Child, code: int, now_ns: int) -> None:
        mark = child.words.reading
        told_to = child.words.order >= Order.LEAVE
        child.words.end()
        self._next_visit_ns = 0
        seated = self._crew.lost(child, now_ns) or self._control.lost(child, now_ns)
        if self._rollover:
            seated = self._rollover.lost(child, now_ns) or seated
        if told_to:
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        _log.error("%s, slot %d, pid %d, %s", "worker" if child.is_worker else "control", child.slot, child.pid, how)
        if mark and child.born_ns >= self._started_ns and self._node.state.count_death(mark, now_ns):
            _log.error("a request body that has now killed two workers is refused for ten minutes")

    def _visit(self, now_ns: int) -> None:
        if self._caretaker and now_ns >= self._next_visit_ns:
            self._next_visit_ns = now_ns + _VISIT_NS
            self._caretaker.visit(self._node.state)

    def _end_stuck(self, now_ns: int) -> None:
        """At most one kill per interval, and never of the last worker that serves: that gets a successor first."""
        staff = self._staff.children.values()
        self._watch.observe(now_ns, {child.pid: child.words.beat_ns for child in staff})
        seated = self._crew.ready()
        suspects = [
            Suspect(child.pid, silent_ns, serving=child in seated)
            for child in staff
            if (silent_ns := self._watch.silent_ns(child.pid)) >= self._stuck_ns and not child.words.order >= Order.EXIT
        ]
        if not suspects or now_ns < self._next_kill_ns:
            return
        healthy = sum(self._watch.silent_ns(child.pid) < self._stuck_ns // 2 for child in seated)
        chosen = victim(suspects, healthy)
        if chosen:
            self._next_kill_ns = now_ns + self._stuck_ns
            self._kill_stuck(self._staff.children[chosen.pid], chosen.silent_ns, now_ns)
            return
        for suspect in suspects:
            self._crew.succeed(self._staff.children[suspect.pid], now_ns)

    def _kill_stuck(self, child: Child, silent_ns: int, now_ns: int) -> None:
        _log.error(
            "slot %d, pid %d, is stuck: no heartbeat for %.1f s; ending it, its stack follows if it can still tell",
            child.slot, child.pid, silent_ns / NS_PER_S,
        )  # fmt: skip
        child.kill_at_ns = now_ns + _DUMP_NS
        os.kill(child.pid, signal.SIGABRT)

    # --- reload, upgrade, stop --------------------------------------------------------------------------------------

    def _go_on(self, now_ns: int) -> None:
        if self._shutdown:
            return
        if self._reload:
            outcome = self._reload.outcome(self._node.state, [child.words for child in self._crew.ready()], now_ns)
            if outcome:
                _log.info("reload: %s", outcome)
                self._reload = None
                self._say_ready()
        if self._preflight and now_ns > self._preflight.until_ns:
            self._preflight.kill()
        if self._about_to_execute and self._without_control(now_ns):
            self._execute()
        if self._rollover:
            self._roll(self._rollover, now_ns)

    def _begin_upgrade(self, now_ns: int) -> None:
        crew = set(map(id, self._crew.children()))
        leaving = [child for child in self._staff.workers() if id(child) not in crew]
        if self._preflight or self._about_to_execute or self._rollover or leaving or not self._was_ready:
            _log.warning("upgrade refused: the node is still busy with its start or the upgrade before")
            return
        _log.info("upgrade requested: the new build checks itself first")
        self._notifier.status("upgrading: preflight")
        if not self._settings.preflight:
            self._about_to_execute = True
            return
        try:
            self._preflight = Preflight.start(self._settings.preflight, now_ns + _PREFLIGHT_NS)
        except OSError as error:
            _log.error("upgrade given up: cannot run %s: %s", self._settings.preflight[0], error.strerror)

    def _after_preflight(self, code: int) -> None:
        self._preflight = None
        if self._shutdown:
            return
        if code:
            _log.error("upgrade given up: the new build or its configuration does not pass its own check")
            self._say_ready()
            return
        self._about_to_execute = True

    def _without_control(self, now_ns: int) -> bool:
        """Control writes snapshots, and so will the new build's: the old one leaves before the exec."""
        for child in self._control.children():
            if child.words.order != Order.EXIT:
                self._staff.dismiss(child, Order.EXIT, now_ns)
        return not self._control.children()

    def _execute(self) -> None:
        self._about_to_execute = False
        listening, lock = self._node.listening, self._node.lock
        handover = Handover(
            pid=os.getpid(),
            segment_fd=self._node.segment.fd,
            data_fds=[listener.fileno() for listener in listening.data],
            data_open=listening.open,
            admin_fd=listening.admin.fileno(),
            lock_fd=lock.fd,
            lock_path=str(lock.path),
            generation=self._node.state.generation,
            workers=[HandedWorker(c.pid, c.seat, c.slot, c.born_ns) for c in self._crew.children() if c.is_worker],
        )
        try:
            execute(handover, self._settings.argv)
        except OSError as error:
            _log.error("upgrade given up: cannot execute %s: %s", self._settings.argv[0], error.strerror)

    def _take_over(self, handover: Handover) -> None:
        """Right after the exec: the workers of the build before become the old crew of a rollover."""
        home = self._node.previous or self._node.state
        children = [Child(item.pid, item.seat, item.slot, home, item.born_ns) for item in handover.workers]
        for child in children:
            self._staff.adopt(child)
        old = Crew.adopted(self._staff.hire_worker, children)
        until_ns = self._started_ns + int(self._settings.upgrade_s * NS_PER_S)
        self._rollover = Rollover(old, self._crew, self._node, handover.generation, until_ns)
        self._crew = old
        self._was_ready = True

    def _roll(self, rollover: Rollover, now_ns: int) -> None:
        staying = rollover.step(now_ns, lambda child, order: self._staff.dismiss(child, order, now_ns))
        if staying:
            upgraded = staying is rollover.new
            self._crew, self._rollover = staying, None
            _log.info("upgrade: %s", "the new workers have taken over" if upgraded else "rolled back")
            self._node.state.workers_ready = len(staying.ready())
            self._say_ready()

    def _bring_counters(self, now_ns: int) -> None:
        """While processes of an older layout live, carry their counts over; a last time when they are gone."""
        previous = self._node.previous
        if previous is None or now_ns < self._next_import_ns:
            return
        self._next_import_ns = now_ns + _IMPORT_NS
        if self._import_counters:
            self._import_counters(previous.segment, self._node.segment)
        if not any(child.state is previous for child in self._staff.children.values()):
            self._node.previous = None

    def _stop(self, now_ns: int, delay_s: float) -> None:
        if self._shutdown:
            _log.warning("second signal: ending now")
            self._shutdown.hurry(now_ns)
            return
        _log.info("stopping: accepting for %.1f s more, then draining to %.1f s", delay_s, self._settings.drain_s)
        self._notifier.stopping("draining")
        if self._preflight:
            self._preflight.kill()
        self._about_to_execute = False  # control stays to the end: metrics are readable while others drain
        self._shutdown = Shutdown(self._node, self._staff, self._settings, now_ns, delay_s=delay_s)
