"""What the process layer is told about the node it runs, and how it says that it cannot."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.nodestate import MAX_SOCKETS, NODE
from gateway.segment import Section

_MIN_ROOM: Final = 8  # workers a small node may grow to without a restart
_OWN_SLOTS: Final = 2  # supervisor and control


class StartError(Exception):
    """The node cannot start as configured; the message names the fix and is all the operator sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """The part of the config that the processes themselves need, fixed until the next start or upgrade.

    `workers` is a count (0 = one per core). `argv` is the command that an upgrade executes, `preflight` the one that
    must exit 0 before it does; an empty `preflight` upgrades unchecked. `sections` is every section of the control
    segment, each declared by its owner.
    """

    config: Path
    state_dir: Path
    overrides: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 8081
    workers: int = 0
    backlog: int = 4096
    drain_s: float = 30.0
    drain_delay_s: float = 5.0
    stuck_s: float = 10.0
    upgrade_s: float = 30.0
    argv: tuple[str, ...] = field(default_factory=lambda: tuple(sys.orig_argv))
    preflight: tuple[str, ...] = ()
    sections: tuple[Section, ...] = (NODE,)

    def worker_count(self) -> int:
        """How many workers to start."""
        return bounded_workers(self.workers, MAX_SOCKETS)

    def room(self) -> int:
        """How many workers the node may grow to while it runs."""
        return max(self.worker_count(), _MIN_ROOM)

    def slots(self) -> int:
        """Slots of the segment: two generations of workers side by side, the supervisor, control."""
        return 2 * self.room() + _OWN_SLOTS


def bounded_workers(asked: int, room: int) -> int:
    """A worker count as asked, 0 meaning one per core, within [1, room]."""
    return max(1, min(asked or cores(), room))


def cores() -> int:
    """Cores this process may run on, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0))
