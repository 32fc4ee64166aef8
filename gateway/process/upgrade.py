"""Upgrade in place: the supervisor becomes the new build without giving up its pid, its sockets or its children.

The new build is first asked, in a process of its own, whether it would start (`Preflight`). Then the supervisor
executes it with a `Handover`: a memfd that says which descriptor is what and which workers run. Signals stay blocked
across the exec, so one that arrives in between waits for the new build's handlers.

Left out: what happens after the exec (`rollover.py`), and changes of address, which need a restart.
"""

import os
import signal
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec

from gateway.process.settings import StartError
from gateway.process.signals import HANDLED, blocked

HANDOVER_VERSION: Final = 1
_VARIABLE: Final = "GATEWAY_HANDOVER"


class HandedWorker(msgspec.Struct, frozen=True):
    """A running worker."""

    pid: int
    seat: int
    slot: int
    born_ns: int


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """What the executed build needs to know; descriptors are numbers valid across the exec."""

    pid: int
    segment_fd: int
    data_fds: list[int]
    data_open: int
    admin_fd: int
    lock_fd: int
    lock_path: str
    generation: int
    workers: list[HandedWorker]
    version: int = HANDOVER_VERSION

    def descriptors(self) -> list[int]:
        """Everything that has to stay open."""
        return [self.segment_fd, *self.data_fds, self.admin_fd, self.lock_fd]


def execute(handover: Handover, argv: Sequence[str]) -> NoReturn:
    """Become the new build; raises OSError when the command cannot be executed, with everything as it was."""
    memory = os.memfd_create("gateway-handover", 0)  # 0: open across the exec
    try:
        os.write(memory, msgspec.json.encode(handover))
        os.lseek(memory, 0, os.SEEK_SET)
        with blocked(), _inheritable(handover.descriptors()):
            os.execvpe(argv[0], list(argv), {**os.environ, _VARIABLE: str(memory)})  # noqa: S606  our own command
    finally:
        os.close(memory)


def take_handover(environ: MutableMapping[str, str]) -> Handover | None:
    """The handover this process was executed with, if it was; its descriptors are private again afterwards.

    Raises StartError when it comes from a build this one cannot follow.
    """
    number = environ.pop(_VARIABLE, "")
    if not number.isdigit():
        return None
    with open(int(number), "rb") as memory:  # noqa: PTH123  a descriptor has no path
        try:
            handover = msgspec.json.decode(memory.read(), type=Handover)
        except msgspec.DecodeError as error:
            raise StartError(f"the running build handed over in an unknown form ({error}): restart") from error
    if handover.version != HANDOVER_VERSION or handover.pid != os.getpid():
        raise StartError(f"handover version {handover.version} from pid {handover.pid} is not for us: restart")
    _set_inheritable(handover.descriptors(), inheritable=False)
    return handover


@dataclass(slots=True)
class Preflight:
    """The new build checking itself; `pid` is reaped by the supervisor like any child."""

    pid: int
    until_ns: int

    @classmethod
    def start(cls, argv: Sequence[str], until_ns: int) -> "Preflight":
        """Run the check command, its output on our stderr; raises OSError when it cannot be run."""
        environ = {name: value for name, value in os.environ.items() if name not in {"NOTIFY_SOCKET", "WATCHDOG_USEC"}}
        pid = os.posix_spawnp(
            argv[0],
            list(argv),
            environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)],
            setsigmask=[],
            setsigdef=[*HANDLED, signal.SIGUSR1],
        )
        return cls(pid, until_ns)

    def kill(self) -> None:
        """End it; its exit is seen like any other."""
        os.kill(self.pid, signal.SIGKILL)


@contextmanager
def _inheritable(descriptors: Sequence[int]) -> Iterator[None]:
    _set_inheritable(descriptors, inheritable=True)
    try:
        yield
    finally:
        _set_inheritable(descriptors, inheritable=False)


def _set_inheritable(descriptors: Sequence[int], *, inheritable: bool) -> None:
    for fd in descriptors:
        os.set_inheritable(fd, inheritable)
