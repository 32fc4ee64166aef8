"""Syncs that the kernel makes by itself: begun on the loop's thread, and told of through a descriptor the loop watches.

Models Linux AIO (io_setup(2) and its kin) with one operation, IOCB_CMD_FDSYNC, and one of it at a time. A thread that
waits in fdatasync has to take the interpreter lock twice a sync, and each time the loop stands still until that thread
has been scheduled: 10 µs a request at 200 syncs a second. Here a sync costs the loop two system calls, 20 µs.

Invariants: a context belongs to the process that made it, so it is made after the fork; a sync that goes on when it is
closed, or when the process ends, is made all the same. What the kernel says of a sync is told as it is, and of none but
the one that was begun last. EINVAL, ENOSYS and their like mean that it makes none here (`refuses`), anything else is
about the disk.
Left out: what to do without (`syncer.py`), and every other operation: of a buffered file, AIO would read and write in
the caller's time.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

OnDone = Callable[[OSError | None], None]
"""Told on the loop's thread how a sync ended; None: all that was written before it began is on the disk."""

_FDSYNC: Final = 3  # IOCB_CMD_FDSYNC
_TELL: Final = 1  # IOCB_FLAG_RESFD
_REFUSALS: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP})


class Calls(NamedTuple):
    """The numbers of the system calls: the C library has no functions for them."""

    setup: int
    destroy: int
    getevents: int
    submit: int


CALLS: Final = {"x86_64": Calls(206, 207, 208, 209), "aarch64": Calls(0, 1, 4, 2)}


class _Control(ctypes.Structure):
    """`struct iocb`, as it lies on little-endian machines."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("tell_fd", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """`struct io_event`."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("control", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class KernelSyncs:
    """One process's context of the kernel. Raises OSError where there is none to be had."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_done: OnDone) -> None:
        self._calls = _calls_here()
        self._call = _system_calls(ctypes.PyDLL)  # it keeps the interpreter lock: these calls do not wait
        context = ctypes.c_ulong(0)
        self._checked(self._call(self._calls.setup, 1, ctypes.addressof(context), 0, 0, 0))
        self._context = context.value
        self._loop = loop
        self._on_done = on_done
        try:
            self._tell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            self._give_back()
            raise
        self._control = _Control(opcode=_FDSYNC, flags=_TELL, tell_fd=self._tell_fd)
        self._controls = (ctypes.c_void_p * 1)(ctypes.addressof(self._control))
        self._event = _Event()
        loop.add_reader(self._tell_fd, self._told)

    def begin(self, fd: int) -> None:
        """Begin to bring a file's bytes and its size to the disk. Raises OSError when the kernel will not."""
        self._control.fd = fd
        self._control.data += 1
        self._checked(self._call(self._calls.submit, self._context, 1, ctypes.addressof(self._controls), 0, 0))

    def close(self) -> None:
        """Tell nobody any more, and give the context back: in a thread, for the kernel takes 30 ms for that."""
        self._loop.remove_reader(self._tell_fd)
        os.close(self._tell_fd)
        self._give_back()

    def _give_back(self) -> None:
        destroy = _system_calls(ctypes.CDLL)
        self._loop.run_in_executor(None, destroy, self._calls.destroy, self._context, 0, 0, 0, 0)

    def _told(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._tell_fd)
        while True:
            ended = self._call(self._calls.getevents, self._context, 0, 1, ctypes.addressof(self._event), 0)
            if not ended:
                return
            if ended > 0 and self._event.data == self._control.data:
                self._on_done(_error(-self._event.result) if self._event.result else None)
                return
            code = ctypes.get_errno() if ended < 0 else errno.EINTR  # or of one whose end could not be asked for then
            if code != errno.EINTR:  # a filter may let everything through but this
                self._on_done(_error(code))
                return

    def _checked(self, result: int) -> None:
        if result < 0:
            raise _error(ctypes.get_errno())


def _system_calls(library: type[ctypes.CDLL]) -> Callable[..., int]:
    call = library(None, use_errno=True).syscall
    call.argtypes = [ctypes.c_long] * 6
    call.restype = ctypes.c_long
    return call


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def refuses(error: OSError) -> bool:
    """Whether the kernel says with this that it makes no such syncs here."""
    return error.errno in _REFUSALS


def _calls_here() -> Calls:
    calls = CALLS.get(platform.machine())
    if calls is None or not sys.platform.startswith("linux") or sys.maxsize < 2**63 - 1:
        raise OSError(errno.ENOSYS, "no asynchronous syncs are known on this platform")
    return calls
