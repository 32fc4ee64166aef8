"""The way down: announced, accepting for a while, then draining; nothing is left, and nobody is cut before time."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.running_node import RunningNode


def test_callers_are_served_until_accepting_ends_and_open_requests_to_the_end(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_delay_s=0.6) as node:
        slow = [node.called("/slow?1500") for _ in range(4)]
        with node.caller() as caller:
            time.sleep(0.2)
            node.signal(signal.SIGTERM)
            time.sleep(0.2)
            assert node.call("/readyz") == (503, "draining")
            assert node.ask().build == "v1"
            caller.stop()
        assert not caller.refused
        assert not caller.broken
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            node.call()
        assert [pending.answer() for pending in slow] == [(200, "slow but whole")] * 4
        assert node.ended() == 0
        assert not (tmp_path / "state" / "lock").exists()


def test_up_to_the_moment_accepting_ends_a_caller_is_answered_or_refused_but_never_cut(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        time.sleep(0.2)
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
        caller.stop()
    assert caller.refused  # after the end
    assert not caller.broken


def test_at_drain_s_what_is_open_is_cut(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_s=0.8) as node:
        slow = node.called("/slow?20000")
        time.sleep(0.1)
        started = time.monotonic()
        node.signal(signal.SIGTERM)
        with pytest.raises(ConnectionError):
            slow.answer()
        assert node.ended() == 0
        assert 0.7 < time.monotonic() - started < 10


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_s=30) as node:
        slow = node.called("/slow?20000")
        time.sleep(0.1)
        node.signal(signal.SIGTERM)
        node.logged("stopping: accepting for")
        node.signal(signal.SIGTERM)
        started = time.monotonic()
        assert node.ended() == 0
        assert time.monotonic() - started < 10
        with pytest.raises(ConnectionError):
            slow.answer()


def test_ctrl_c_reaches_the_whole_group_and_drains_without_delay(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_delay_s=20, drain_s=25) as node:
        slow = node.called("/slow?600")
        time.sleep(0.1)
        started = time.monotonic()
        os.killpg(node.pid, signal.SIGINT)
        assert slow.answer() == (200, "slow but whole")
        assert node.ended() == 0
        assert time.monotonic() - started < 10


def test_a_worker_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_s=0.5, stuck_s=30) as node:
        hanging = node.called("/hang?30000")
        time.sleep(0.1)
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
        with pytest.raises(ConnectionError):
            hanging.answer()


def test_a_worker_that_dies_during_the_delay_is_still_replaced(tmp_path: Path) -> None:
    with RunningNode(tmp_path, workers=1, drain_delay_s=2.0) as node:
        worker = node.workers()[0]
        node.signal(signal.SIGTERM)
        node.logged("stopping: accepting for")
        os.kill(worker, signal.SIGKILL)
        assert node.ask().pid != worker
        assert node.call("/readyz")[0] == 503
        assert node.ended() == 0
