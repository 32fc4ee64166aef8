"""The two calls Python has no name for: a process's title, and a signal when its parent dies."""

import ctypes
import os
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_TITLE_BYTES: Final = 15

_libc: Final = ctypes.CDLL(None, use_errno=True)


def set_title(title: str) -> None:
    """Name this process as `ps -o comm` and `top` show it; at most 15 bytes are kept."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(title.encode()[:_TITLE_BYTES]))


def signal_on_parent_death(signum: signal.Signals, parent_pid: int) -> bool:
    """Have the kernel send `signum` when the parent dies; False when it is already dead and none will come."""
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signum))
    return os.getppid() == parent_pid


def forbid_core_dumps() -> None:
    """A core file would hold provider keys and prompts; an operator who wants one raises the soft limit again."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _prctl(option: int, argument: ctypes.c_char_p | ctypes.c_ulong) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
