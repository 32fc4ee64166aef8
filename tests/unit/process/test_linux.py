"""The calls without a Python name do what they say."""

import ctypes
import os
import resource
import signal
from pathlib import Path

from gateway.process import linux


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
