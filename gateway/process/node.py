"""What a node is made of while it runs: its memory, its sockets, its claim on the state_dir.

Made once at start, or taken over from the build that executed this one. A taken-over segment is used as it is when this
build would have made the same one and there is room for a second generation of workers; otherwise a new one is made,
and the old one kept for the workers that still live in it.
"""

import logging
import secrets
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.nodestate import NodeState
from gateway.process.lock import StateLock
from gateway.process.notify import Received
from gateway.process.settings import ServeSettings, StartError
from gateway.process.sockets import Listening, open_sockets, port_of
from gateway.process.upgrade import Handover
from gateway.segment import Section, Segment, SegmentMismatch

_ORPHANS_GRACE_S: Final = 7.0  # orphaned workers drain for drain_s, stop, and are ended by an alarm 5 s later
_log: Final = logging.getLogger("gateway.process")


@dataclass(slots=True)
class Node:
    """What the supervisor owns. `previous` is the segment of an older build whose workers are still at work."""

    state: NodeState
    listening: Listening
    lock: StateLock
    previous: NodeState | None = None

    @property
    def segment(self) -> Segment:
        """The control segment that new processes use."""
        return self.state.segment

    @property
    def room(self) -> int:
        """How many workers fit, with as many again for an upgrade."""
        return len(self.state.worker_slots) // 2

    def close(self) -> None:
        """Give up the ports and the state_dir, and leave no file behind; when no other process is left."""
        self.listening.close()
        self.lock.release()


def open_node(settings: ServeSettings, received: Iterable[Received]) -> Node:
    """Make a node from nothing; raises StartError when a port or the state_dir is not to be had."""
    lock = StateLock.acquire(settings.state_dir, settings.drain_s + _ORPHANS_GRACE_S)
    try:
        listening = open_sockets(settings, list(received))
    except StartError:
        lock.release()
        raise
    return Node(_new_state(settings, time.monotonic_ns(), upgrades=0), listening, lock)


def adopt_node(settings: ServeSettings, handover: Handover) -> Node:
    """Take over a running node; raises StartError when its memory cannot be read by this build."""
    try:
        old = NodeState(Segment(handover.segment_fd))
    except SegmentMismatch as error:
        raise StartError(f"no upgrade in place from that build: {error}: restart the gateway") from error
    listening = Listening(
        data=[socket.socket(fileno=fd) for fd in handover.data_fds],
        open=handover.data_open,
        admin=socket.socket(fileno=handover.admin_fd),
        backlog=settings.backlog,
    )
    lock = StateLock.inherited(settings.state_dir, handover.lock_fd, handover.lock_path)
    _report_moved(settings, listening)
    if _usable(old.segment, settings, in_use=len(handover.workers)):
        old.upgrades += 1
        old.forget_refused()
        return Node(old, listening, lock)
    _log.info("the control segment has another layout: a new one is made")
    return Node(_new_state(settings, old.boot_ns, upgrades=old.upgrades + 1), listening, lock, previous=old)


def _new_state(settings: ServeSettings, boot_ns: int, upgrades: int) -> NodeState:
    state = NodeState(Segment.create(settings.sections, settings.slots()))
    state.boot_ns = boot_ns
    state.boot_id = secrets.randbits(62) + 1
    state.upgrades = upgrades
    return state


def _usable(segment: Segment, settings: ServeSettings, in_use: int) -> bool:
    needed = in_use + settings.worker_count() + (segment.slots - len(NodeState(segment).worker_slots))
    return segment.slots >= max(settings.slots(), needed) and all(_has(segment, item) for item in settings.sections)


def _has(segment: Segment, section: Section) -> bool:
    try:
        segment.view(section)
    except SegmentMismatch:
        return False
    return True


def _report_moved(settings: ServeSettings, listening: Listening) -> None:
    kept = {"listen": (listening.data[0], settings.port), "admin": (listening.admin, settings.admin_port)}
    for name, (listener, port) in kept.items():
        if port and port_of(listener) != port:
            _log.warning("%s.port stays %d: a changed address needs a restart", name, port_of(listener))
