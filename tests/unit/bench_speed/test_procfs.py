"""Readings of real processes: our own, and a child's."""

import os
import subprocess
import sys
import time

import pytest

from bench.speed import procfs
from bench.speed.procfs import Process, Reading


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


def test_a_core_is_busy_while_we_work() -> None:
    assert procfs.core_busy_us(0) > 0
    with pytest.raises(ValueError, match="no core"):
        procfs.core_busy_us(100_000)


def test_the_worker_is_the_one_that_is_called_so() -> None:
    found = {1: Process(1, 0, 900, 5, "gw-control"), 2: Process(2, 0, 100, 7, "gw-worker-0")}
    assert Reading(found).worker() == found[2]
    assert Reading({1: found[1], 3: Process(3, 0, 10, 1, "nginx")}).worker() == found[1]
