"""A lock in shared memory that outlives its holder: a robust, process-shared pthread mutex, reached through ctypes.

Models one word of ownership that the kernel watches. When a process dies holding the mutex, by SIGKILL or otherwise,
the kernel marks it; the next locker gets it together with the news (EOWNERDEAD), repairs what the mutex guards, and
says so (`mark_consistent`). A POSIX semaphore, which `multiprocessing.Lock` is, would block everybody for ever instead.

Invariants: the memory is initialised once, by the supervisor before it forks, and never moves in the file; every
process may map it elsewhere. A repair that failed ends in `abandon`: nobody gets the mutex again, since what it guards
is broken. A wait is bounded, and after one in vain the next ones are short until one succeeds: a stopped holder costs a
worker one pause, not one per request. Taking the mutex twice in a thread is an error, never a deadlock. A held mutex
must not be unmapped: the C library links those a thread holds by address.

The uncontended calls go through PyDLL, which keeps the interpreter lock (0.16 µs for the pair); waiting goes through
CDLL, which lets the process's other threads run. Sizes are those of 64-bit glibc and musl on x86-64 and arm64, the
platforms supported; anything else is refused at start, as is a kernel whose robust list does not work (tried once, by
a thread that ends holding a mutex). The wait's deadline is CLOCK_REALTIME, the only clock both libraries offer here: a
clock set back prolongs at most one slice of a wait. Left out: fairness, recursion, condition variables.
"""

import ctypes
import errno
import os
import platform
import sys
import sysconfig
import threading
import time
from typing import Final

import msgspec

from gateway.units import NS_PER_MS, NS_PER_S

MUTEX_WORDS: Final = 16  # two cache lines: eight words for the mutex, one for the mark, the rest unused
_MARK_AT: Final = 8
_MARK: Final = 0x58455455_4D5F5247  # "GR_MUTEX", read as one word
_MUTEX_BYTES: Final = 64
_ATTRIBUTE_BYTES: Final = 16

_PROCESS_SHARED: Final = 1
_ROBUST: Final = 1
_ERROR_CHECK: Final = 2
_TID_MASK: Final = 0x3FFF_FFFF  # FUTEX_TID_MASK: what the kernel requires of a robust lock's word

_TRIAL_MS: Final = 2_000
_SLICE_NS: Final = 20 * NS_PER_MS
_IMPATIENT_NS: Final = 10 * NS_PER_S  # how long after a wait in vain no wait is longer than
_IMPATIENT_MS: Final = 5  # which lets anybody finish who is running


class LibC(msgspec.Struct, frozen=True):
    """What a C library says of its mutex: bytes it takes, and the 32-bit word that names the holder."""

    mutex_bytes: int
    attribute_bytes: int
    holder_at: int


LIBCS: Final = {
    ("glibc", "x86_64"): LibC(40, 4, 0),
    ("glibc", "aarch64"): LibC(48, 8, 0),
    ("musl", "x86_64"): LibC(40, 4, 1),
    ("musl", "aarch64"): LibC(40, 4, 1),
}


LOST: Final = "a repair of the shared table failed; restart the gateway to build it anew from the journal"


class MutexUnsupported(Exception):
    """This machine has no robust mutex that we know the shape of; limits cannot be kept in shared memory on it."""


class MutexBusy(Exception):
    """Somebody held the mutex for the whole wait; nothing was taken."""


class MutexLost(Exception):
    """A repair failed earlier and the mutex guards broken memory: nobody gets it again until it is made anew."""


class Mutex:
    """One robust mutex in MUTEX_WORDS words of shared memory.

    `try_lock(at)` and `unlock(at)` are the bare C calls, for a hot path that cannot pay for a method: 0 from
    `try_lock` means taken, anything else goes to `resolve`.
    """

    __slots__ = ("_buffer", "_impatient_until_ns", "_libc", "_words", "at", "try_lock", "unlock")

    def __init__(self, words: memoryview) -> None:
        if words[_MARK_AT] != _MARK:
            message = "the memory holds no initialised mutex: the supervisor calls Mutex.initialise before it forks"
            raise MutexLost(message)
        self._libc = this_libc()
        self._words = words
        self._buffer = (ctypes.c_char * _MUTEX_BYTES).from_buffer(words)
        self._impatient_until_ns = 0
        self.at = ctypes.byref(self._buffer)
        self.try_lock = _keeping_gil.pthread_mutex_trylock
        self.unlock = _keeping_gil.pthread_mutex_unlock

    @classmethod
    def initialise(cls, words: memoryview) -> "Mutex":
        """Make a new, unlocked mutex in these words, which nobody uses yet, whatever they held.

        Raises MutexUnsupported where the platform's mutex is not known or cannot be robust.
        """
        require_support()
        _initialise(words)
        return cls(words)

    def acquire(self, wait_ms: int) -> bool:
        """Take the mutex within `wait_ms`; True when its last holder died and what it guards must be repaired.

        Raises MutexBusy, MutexLost; OSError(EDEADLK) when this thread has it already.
        """
        code = self.try_lock(self.at)
        return code != 0 and self.resolve(code, wait_ms)

    def resolve(self, code: int, wait_ms: int) -> bool:
        """What `acquire` makes of a `try_lock` that did not return 0."""
        if code == errno.EBUSY and not self.is_lost:
            code = self._wait(wait_ms)
        if code in {0, errno.EOWNERDEAD}:
            self._impatient_until_ns = 0
            return code != 0
        if self.is_lost:
            raise MutexLost(LOST)
        if code in {errno.EBUSY, errno.ETIMEDOUT}:
            self._impatient_until_ns = time.monotonic_ns() + _IMPATIENT_NS
            raise MutexBusy(f"the shared table is held by process {self.holder}, which does not let go of it")
        raise OSError(code, os.strerror(code))

    def release(self) -> None:
        """Give the mutex up. Raises OSError(EPERM) when this thread does not have it."""
        code = self.unlock(self.at)
        if code:
            raise OSError(code, os.strerror(code))

    def abandon(self) -> None:
        """Instead of `mark_consistent` and `release`: the repair failed, and nobody shall have the mutex again.

        Our own mark says it too: glibc 2.36 tells ENOTRECOVERABLE only to the first who tries, and EBUSY to all after
        it. Where no holder died, `try_lock` goes on to succeed, and what is guarded has to look at `is_lost`.
        """
        self._words[_MARK_AT] = 0
        self.unlock(self.at)

    def mark_consistent(self) -> None:
        """Say that what a dead holder left half done is repaired; then the mutex is an ordinary one again."""
        code = _keeping_gil.pthread_mutex_consistent(self.at)
        if code:
            raise OSError(code, os.strerror(code))

    @property
    def is_lost(self) -> bool:
        """Whether it was abandoned."""
        return bool(self._words[_MARK_AT] != _MARK)

    @property
    def holder(self) -> int:
        """Thread id of the holder (a process's main thread has its pid), 0 when nobody has it; a glance, not a lock."""
        return self._words[: _MUTEX_BYTES // 8].cast("B").cast("I")[self._libc.holder_at] & _TID_MASK

    def _wait(self, wait_ms: int) -> int:
        now_ns = time.monotonic_ns()
        if now_ns < self._impatient_until_ns:
            wait_ms = min(wait_ms, _IMPATIENT_MS)
        until_ns = now_ns + wait_ms * NS_PER_MS
        code = errno.EBUSY
        while now_ns < until_ns and code in {errno.EBUSY, errno.ETIMEDOUT}:
            deadline_ns = time.time_ns() + min(_SLICE_NS, until_ns - now_ns)
            deadline = _Timespec(deadline_ns // NS_PER_S, deadline_ns % NS_PER_S)
            code = _dropping_gil.pthread_mutex_timedlock(self.at, ctypes.byref(deadline))
            now_ns = time.monotonic_ns()
        return code


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


_keeping_gil: Final = ctypes.PyDLL(None)
_dropping_gil: Final = ctypes.CDLL(None)


def this_libc() -> LibC:
    """The C library this process runs on. Raises MutexUnsupported naming what was found and what is known."""
    found = (_libc_name(), platform.machine())
    libc = LIBCS.get(found)
    if libc is None or not sys.platform.startswith("linux") or sys.maxsize < 2**63 - 1:
        known = ", ".join(f"{name} on {machine}" for name, machine in LIBCS)
        message = (
            f"limits in shared memory need 64-bit Linux with one of: {known}; this is {found[0]} on {found[1]}"
            f" ({sys.platform}): set limits.store to a redis:// URL here"
        )
        raise MutexUnsupported(message)
    return libc


def require_support() -> None:
    """Try once whether a mutex survives its holder here. Raises MutexUnsupported when not, saying what failed."""
    this_libc()
    words = memoryview(bytearray(MUTEX_WORDS * 8)).cast("q")
    _initialise(words)
    mutex = Mutex(words)
    holder = threading.Thread(target=mutex.acquire, args=(0,))
    holder.start()
    holder.join()
    try:
        told = mutex.acquire(_TRIAL_MS)  # the kernel's news may come a moment after Python's thread has ended
    except MutexBusy:
        told = False
    if not told:
        message = (
            "a mutex was not handed on when its holder ended: this kernel or sandbox has no robust futexes;"
            " set limits.store to a redis:// URL here"
        )
        raise MutexUnsupported(message)
    mutex.mark_consistent()
    mutex.release()


def _initialise(words: memoryview) -> None:
    words[_MARK_AT] = 0  # until the mutex is one, nobody can attach
    buffer = (ctypes.c_char * _MUTEX_BYTES).from_buffer(words)
    attributes = (ctypes.c_int64 * (_ATTRIBUTE_BYTES // 8))()
    for name, arguments in (
        ("pthread_mutexattr_init", (attributes,)),
        ("pthread_mutexattr_setpshared", (attributes, _PROCESS_SHARED)),
        ("pthread_mutexattr_setrobust", (attributes, _ROBUST)),
        ("pthread_mutexattr_settype", (attributes, _ERROR_CHECK)),
        ("pthread_mutex_init", (buffer, attributes)),
        ("pthread_mutexattr_destroy", (attributes,)),
    ):
        code = getattr(_keeping_gil, name)(*arguments)
        if code:
            message = f"{name}: {os.strerror(code)}: set limits.store to a redis:// URL here"
            raise MutexUnsupported(message)
    words[_MARK_AT] = _MARK


def _libc_name() -> str:
    if "CS_GNU_LIBC_VERSION" in os.confstr_names and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
        return "glibc"
    return "musl" if "musl" in str(sysconfig.get_config_var("SOABI")) else "an unknown C library"
