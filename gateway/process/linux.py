"""What Python has no name for: a process's title, a signal when its parent dies, and what malloc does with its room."""

import ctypes
import os
import resource
import signal
from typing import Final

from gateway.units import MIB

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_TITLE_BYTES: Final = 15
_M_TRIM_THRESHOLD: Final = -1  # <malloc.h>
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

KEPT_BYTES: Final = 32 * MIB
LARGE_BYTES: Final = 4 * MIB

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


def keep_freed_memory() -> None:
    """Have malloc keep up to KEPT_BYTES at the end of its heap, one for all threads; call it before there are others.

    By itself glibc gives back to the kernel whatever is freed at the end of its heap, from about twice the largest body
    on, and is given it anew, zeroed, page by page, for the next one: hundreds of page faults for a request of 1 MB,
    which were a third of what it cost. What is above LARGE_BYTES is still given back at once. Threads share one heap,
    as each would keep as much for itself. Another libc is left as it is.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def _prctl(option: int, argument: ctypes.c_char_p | ctypes.c_ulong) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
