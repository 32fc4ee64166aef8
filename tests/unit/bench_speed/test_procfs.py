"""Readings of real processes: our own, and a child's."""

import os
import socket
import subprocess
import sys
import time

import pytest

from bench.speed import procfs
from bench.speed.procfs import CoreTimes, Process, Reading, Spent


def test_our_own_process() -> None:
    own = Process.read(os.getpid())
    assert own is not None
    assert own.rss_kb > 1000
    assert own.descriptors >= 3


def test_cpu_time_grows_with_work() -> None:
    before = Reading.of(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    spent = Reading.of(os.getpid()).cpu_us_since(before)[os.getpid()]
    assert 20_000 <= spent <= 500_000


def test_children_belong_to_the_tree_until_they_end() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in procfs.tree(os.getpid())
        assert procfs.tree(child.pid) == [child.pid]
    finally:
        child.communicate(b"\n")
    assert procfs.tree(child.pid) == []
    assert Process.read(child.pid) is None


def test_a_process_born_in_the_window_counts_from_its_birth() -> None:
    before = Reading({1: Process(1, 100, 0, 0)})
    after = Reading({1: Process(1, 150, 0, 0), 2: Process(2, 30, 0, 0)})
    assert after.cpu_us_since(before) == {1: 50, 2: 30}


def test_no_root_no_processes() -> None:
    assert Reading.of(None).worker() is None


def test_what_a_core_did_is_read() -> None:
    assert CoreTimes.read(0).idle_us > 0
    with pytest.raises(ValueError, match="no core"):
        CoreTimes.read(100_000)


def test_our_work_and_that_of_children_who_ended_is_ours() -> None:
    before = Spent.by(os.getpid())
    subprocess.run([sys.executable, "-c", "for _ in range(2_000_000): pass"], check=True)
    after = Spent.by(os.getpid())
    assert sum(after.since(before, core) for core in range(os.cpu_count() or 1)) >= 10_000


def test_time_counts_on_the_core_where_a_process_was_last() -> None:
    before = Spent({1: (100, 0), 2: (50, 0)})
    after = Spent({1: (150, 0), 2: (80, 1), 3: (7, 1)})  # the second one moved, the third was born
    assert (after.since(before, 0), after.since(before, 1)) == (50, 37)


def test_the_machine_says_whether_interrupts_count_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.6, 0.99])
    monkeypatch.setattr(procfs, "_own_share", lambda _: next(shares))
    assert procfs.processes_have_interrupts()  # once nobody came between, all of it was ours
    monkeypatch.setattr(procfs, "_own_share", lambda _: 0.6)
    assert not procfs.processes_have_interrupts()


def test_sending_to_oneself_takes_time() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("127.0.0.1", 0))
        echo.connect(echo.getsockname())
        assert 0 < procfs._own_share(echo) < 1.5


def test_the_worker_is_the_one_that_is_called_so() -> None:
    found = {1: Process(1, 0, 900, 5, "gw-control"), 2: Process(2, 0, 100, 7, "gw-worker-0")}
    assert Reading(found).worker() == found[2]
    assert Reading({1: found[1], 3: Process(3, 0, 10, 1, "nginx")}).worker() == found[1]
    assert Reading(found).called("control") == found[1]
    assert Reading(found).called("nginx") is None


def test_memory_that_is_shared_counts_in_parts() -> None:
    assert procfs.pss_kb(os.getpid()) > 1000
    assert procfs.pss_kb(2**22 + 1) == 0
