"""The mutex excludes, survives its holder's death, and never waits without end.

Processes here die or stop at a stated point, and say so through a pipe, so nothing depends on how fast they are.
"""

import errno
import mmap
import os
import platform
import signal
import sysconfig
import time
from collections.abc import Callable

import pytest

from gateway.limiter import mutex as mutex_module
from gateway.limiter.mutex import (
    LIBCS,
    MUTEX_WORDS,
    Mutex,
    MutexBusy,
    MutexLost,
    MutexUnsupported,
    require_support,
    this_libc,
)

WAIT_MS = 10_000  # far beyond any wait that ends well


_MAPPED: list[mmap.mmap] = []  # never unmapped: the C library links held mutexes by address, even in a failing test


def mapped(fd: int = -1) -> memoryview:
    _MAPPED.append(mmap.mmap(fd, 4096))
    return memoryview(_MAPPED[-1]).cast("q")


@pytest.fixture
def words() -> memoryview:
    return mapped()


@pytest.fixture
def mutex(words: memoryview) -> Mutex:
    return Mutex.initialise(words[:MUTEX_WORDS])


def forked(work: Callable[[], None]) -> tuple[int, int]:
    """A process that has done `work` and now waits; its pid, and the pipe whose closing lets it end."""
    ready, tell = os.pipe()
    wait, go = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(go)
        work()
        os.write(tell, b"!")
        os.read(wait, 1)
        os._exit(0)
    os.close(tell)
    os.close(wait)
    said = os.read(ready, 1)
    os.close(ready)
    assert said == b"!"
    return pid, go


def end(pid: int, go: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(go)


def hold(mutex: Mutex) -> tuple[int, int]:
    def take() -> None:
        mutex.acquire(0)

    return forked(take)


def die_holding(mutex: Mutex, *, heal: bool = False) -> None:
    """A process takes the mutex (repairing it first, or not) and is killed with it in hand."""

    def take() -> None:
        if mutex.acquire(WAIT_MS) and heal:
            mutex.mark_consistent()

    end(*forked(take))


def test_two_processes_never_have_it_together(words: memoryview, mutex: Mutex) -> None:
    turns = 3_000

    def count() -> None:
        for _ in range(turns):
            mutex.acquire(WAIT_MS)
            words[100] += 1  # loses updates when two do it at once
            mutex.release()

    child = os.fork()
    if not child:
        count()
        os._exit(0)
    count()
    os.waitpid(child, 0)
    assert words[100] == 2 * turns
    assert mutex.holder == 0


def test_a_killed_holder_is_told_once_and_healed(mutex: Mutex) -> None:
    die_holding(mutex)
    assert mutex.acquire(WAIT_MS)
    mutex.mark_consistent()
    mutex.release()
    assert not mutex.acquire(0)
    mutex.release()


def test_who_dies_while_repairing_hands_the_news_on(mutex: Mutex) -> None:
    die_holding(mutex)
    die_holding(mutex)
    assert mutex.acquire(WAIT_MS)


def test_who_dies_after_repairing_is_news_again(mutex: Mutex) -> None:
    die_holding(mutex)
    die_holding(mutex, heal=True)
    assert mutex.acquire(WAIT_MS)


def test_a_repair_that_failed_ends_the_mutex_for_everybody(mutex: Mutex) -> None:
    die_holding(mutex)
    assert mutex.acquire(WAIT_MS)
    mutex.abandon()
    for _ in range(2):
        with pytest.raises(MutexLost, match="restart"):
            mutex.acquire(WAIT_MS)
    pid = os.fork()
    if not pid:
        try:
            mutex.acquire(WAIT_MS)
        except MutexLost:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_mutex_made_anew_serves_again(words: memoryview, mutex: Mutex) -> None:
    die_holding(mutex)
    mutex.acquire(WAIT_MS)
    mutex.abandon()
    again = Mutex.initialise(words[:MUTEX_WORDS])
    assert not again.acquire(0)
    assert mutex.try_lock(mutex.at) != 0
    again.release()
    assert not mutex.acquire(0)  # who was attached before sees the new one: it is the same memory


def test_a_wait_for_a_stopped_holder_ends_and_names_it(mutex: Mutex) -> None:
    pid, go = hold(mutex)
    try:
        assert mutex.holder == pid
        began = time.monotonic()
        with pytest.raises(MutexBusy, match=str(pid)):
            mutex.acquire(50)
        assert time.monotonic() - began >= 0.05
    finally:
        end(pid, go)


def test_after_a_wait_in_vain_the_next_is_short(mutex: Mutex) -> None:
    pid, go = hold(mutex)
    try:
        with pytest.raises(MutexBusy):
            mutex.acquire(1)
        began = time.monotonic()
        with pytest.raises(MutexBusy):
            mutex.acquire(100 * WAIT_MS)
        assert 0.005 <= time.monotonic() - began < WAIT_MS / 1_000
    finally:
        end(pid, go)
    assert mutex.acquire(0), "a mutex that is free is taken without waiting, patient or not"


def test_a_wait_that_succeeds_brings_patience_back(mutex: Mutex) -> None:
    pid, go = hold(mutex)
    with pytest.raises(MutexBusy):
        mutex.acquire(1)
    end(pid, go)
    assert mutex.acquire(WAIT_MS)
    mutex.mark_consistent()
    mutex.release()
    pid, go = hold(mutex)
    try:
        began = time.monotonic()
        with pytest.raises(MutexBusy):
            mutex.acquire(50)
        assert time.monotonic() - began >= 0.05
    finally:
        end(pid, go)


def test_patience_comes_back(mutex: Mutex, monkeypatch: pytest.MonkeyPatch) -> None:
    pid, go = hold(mutex)
    try:
        with pytest.raises(MutexBusy):
            mutex.acquire(1)
        real, ahead_ns = time.monotonic_ns, 11_000_000_000
        monkeypatch.setattr(time, "monotonic_ns", lambda: real() + ahead_ns)
        began = real()
        with pytest.raises(MutexBusy):
            mutex.acquire(50)
        assert real() - began >= 50_000_000
    finally:
        end(pid, go)


def test_a_waiter_is_let_in_when_the_holder_leaves(mutex: Mutex) -> None:
    go_in, come_in = os.pipe()
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        mutex.acquire(WAIT_MS)
        os.write(tell, b"!")
        os.read(go_in, 1)
        mutex.release()
        os._exit(0)
    os.read(ready, 1)
    assert mutex.try_lock(mutex.at) == errno.EBUSY
    os.write(come_in, b"!")
    assert not mutex.acquire(WAIT_MS)
    assert mutex.holder == os.getpid()
    mutex.release()
    os.waitpid(pid, 0)
    for fd in (go_in, come_in, ready, tell):
        os.close(fd)


def test_taking_it_twice_is_an_error_not_a_deadlock(mutex: Mutex) -> None:
    mutex.acquire(0)
    with pytest.raises(OSError, match="deadlock"):
        mutex.acquire(WAIT_MS)
    mutex.release()


def test_only_the_holder_may_release_or_heal(mutex: Mutex) -> None:
    with pytest.raises(OSError) as released:
        mutex.release()
    assert released.value.errno == errno.EPERM
    with pytest.raises(OSError) as healed:
        mutex.mark_consistent()
    assert healed.value.errno == errno.EINVAL


def test_another_mapping_of_the_memory_is_the_same_mutex() -> None:
    fd = os.memfd_create("mutex")
    os.ftruncate(fd, 4096)
    one, two = (mapped(fd)[:MUTEX_WORDS] for _ in range(2))
    first = Mutex.initialise(one)
    second = Mutex(two)  # as an upgraded build would attach
    first.acquire(0)
    assert second.try_lock(second.at) != 0
    first.release()
    die_holding(second)
    assert first.acquire(WAIT_MS)
    os.close(fd)


def test_memory_without_a_mutex_is_refused(words: memoryview) -> None:
    with pytest.raises(MutexLost, match="initialise"):  # zeroes would work as a mutex that is not robust
        Mutex(words[:MUTEX_WORDS])


def test_the_mutex_fits_its_words_on_every_platform_named() -> None:
    for libc in LIBCS.values():
        assert max(libc.mutex_bytes, (libc.holder_at + 1) * 4) <= mutex_module._MUTEX_BYTES
        assert libc.attribute_bytes <= mutex_module._ATTRIBUTE_BYTES
    assert mutex_module._MUTEX_BYTES <= mutex_module._MARK_AT * 8
    assert mutex_module._MARK_AT < MUTEX_WORDS


def test_this_machine_is_supported() -> None:
    require_support()
    assert this_libc() in LIBCS.values()


def test_an_unknown_machine_is_refused_with_the_way_out(words: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(MutexUnsupported, match=r"riscv64.*limits\.store"):
        Mutex.initialise(words[:MUTEX_WORDS])


def test_an_unknown_c_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: None)
    with pytest.raises(MutexUnsupported, match="an unknown C library"):
        this_libc()


def test_musl_is_known_by_what_python_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: None)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: "cpython-311-aarch64-linux-musl")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert this_libc() is LIBCS["musl", "aarch64"]


def test_a_kernel_without_robust_futexes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutex_module, "_ROBUST", 0)  # then nobody is told of a holder's end, as on such a kernel
    monkeypatch.setattr(mutex_module, "_TRIAL_MS", 20)
    with pytest.raises(MutexUnsupported, match="robust futexes"):
        require_support()


def test_a_call_the_library_refuses_is_named(words: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutex_module, "_ROBUST", 99)
    with pytest.raises(MutexUnsupported, match="setrobust"):
        Mutex.initialise(words[:MUTEX_WORDS])
