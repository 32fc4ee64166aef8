"""The way down: announced, accepting for a while, then draining; nothing is left, and nobody is cut before time."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE_S
from tests.fakes.running_node import RunningNode

NEVER_S = 10 * PATIENCE_S  # a test that waited for it would have failed before


def test_callers_are_served_until_accepting_ends_and_open_requests_to_the_end(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_delay_s=4.0) as node:
        held = [node.begun("/held") for _ in range(4)]
        with node.caller() as caller:
            node.signal(signal.SIGTERM)
            node.until(lambda: node.call("/readyz") == (503, "draining"), "readyz to fail")
            assert node.ask().build == "v1"
            caller.stop()
        assert not caller.refused
        assert not caller.broken
        node.until_refused()
        node.release()
        assert [pending.answer() for pending in held] == [(200, "late but whole")] * 4
        assert node.ended() == 0
        assert not (tmp_path / "state" / "lock").exists()


def test_up_to_the_moment_accepting_ends_a_caller_is_answered_or_refused_but_never_cut(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
        node.until(lambda: caller.refused, "a caller to be refused")  # after the end
    assert not caller.broken


def test_at_drain_s_what_is_open_is_cut(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_s=0.8) as node:
        held = node.begun("/held")
        started = time.monotonic()
        node.signal(signal.SIGTERM)
        with pytest.raises(ConnectionError):
            held.answer()
        assert time.monotonic() - started > 0.7
        assert node.ended() == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_s=NEVER_S) as node:
        held = node.begun("/held")
        node.signal(signal.SIGTERM)
        node.logged("stopping: accepting for")
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
        with pytest.raises(ConnectionError):
            held.answer()


def test_ctrl_c_reaches_the_whole_group_and_drains_without_delay(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_delay_s=NEVER_S, drain_s=NEVER_S) as node:
        held = node.begun("/held")
        os.killpg(node.pid, signal.SIGINT)
        node.until_refused()
        node.release()
        assert held.answer() == (200, "late but whole")
        assert node.ended() == 0


def test_a_worker_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with RunningNode(tmp_path, drain_s=0.5, stuck_s=NEVER_S) as node:
        hanging = node.begun("/hang")
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
        with pytest.raises(ConnectionError):
            hanging.answer()


def test_a_worker_that_dies_during_the_delay_is_still_replaced(tmp_path: Path) -> None:
    with RunningNode(tmp_path, workers=1, drain_delay_s=NEVER_S, drain_s=NEVER_S) as node:
        worker = node.workers()[0]
        node.signal(signal.SIGTERM)
        node.logged("stopping: accepting for")
        node.kill(worker)
        assert node.ask().pid != worker
        assert node.call("/readyz")[0] == 503
        node.signal(signal.SIGTERM)
        assert node.ended() == 0
