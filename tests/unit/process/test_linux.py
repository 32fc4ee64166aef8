"""The calls without a Python name do what they say."""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.process import linux
from gateway.units import MIB


def test_a_title_is_what_ps_shows_cut_to_fit() -> None:
    before = Path("/proc/self/comm").read_text().strip()
    try:
        linux.set_title("gw-worker-12345678")
        assert Path(f"/proc/{os.getpid()}/comm").read_text() == "gw-worker-12345\n"
    finally:
        linux.set_title(before)


def test_a_living_parent_is_told_from_another() -> None:
    assert linux.signal_on_parent_death(signal.SIGTERM, os.getppid())
    assert not linux.signal_on_parent_death(signal.SIGTERM, os.getpid())
    linux._prctl(1, ctypes.c_ulong(0))  # as it was


def test_core_dumps_are_off_until_somebody_wants_them() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        linux.forbid_core_dumps()
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


FREES = """
import resource, sys
from gateway.process import linux
if sys.argv[1] == "keep":
    linux.keep_freed_memory()

def freed():
    held = [b"x" * int(sys.argv[2]) for _ in range(8)]

freed()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    freed()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str, size: int) -> int:
    done = subprocess.run([sys.executable, "-c", FREES, way, str(size)], capture_output=True, check=True, timeout=60)
    return int(done.stdout)


def test_freed_memory_is_kept_and_not_faulted_in_again() -> None:
    pages = 20 * 8 * MIB // resource.getpagesize()
    assert faults("keep", MIB) < pages // 20
    assert faults("", MIB) > pages // 2, "malloc keeps it by itself: the call is of no use any more"


def test_what_is_large_is_given_back() -> None:
    size = linux.LARGE_BYTES + MIB
    assert faults("keep", size) > 20 * 8 * size // resource.getpagesize() // 2


THREADS = """
import sys, threading
from pathlib import Path
from gateway.process import linux
linux.keep_freed_memory()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

def freed():
    held = [b"x" * (1 << 20) for _ in range(16)]
    together.wait()

before = resident()
together = threading.Barrier(6)
threads = [threading.Thread(target=freed) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident() - before)
"""


def test_threads_keep_no_more_than_one_of_them_would() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, check=True, timeout=60)
    assert int(done.stdout) * resource.getpagesize() < linux.KEPT_BYTES + 16 * MIB


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_libc", object())
    linux.keep_freed_memory()
