"""Processes that die, hang or stop: what callers see is at most the streams that died with their worker."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.running_node import RunningNode, call

STUCK_S = 2.0  # much longer than a healthy process goes without a turn on a busy machine


def test_a_killed_worker_is_replaced_at_once_and_costs_what_it_had_accepted(tmp_path: Path) -> None:
    deaths_s, took_s = [], []
    with RunningNode(tmp_path) as node, node.caller() as caller:
        for _ in range(3):
            victim, other = node.until_workers(2)
            began_s = time.monotonic()
            node.kill(victim)
            deaths_s.append((began_s, time.monotonic()))
            workers = node.until_workers(2, without=[victim])
            took_s.append(time.monotonic() - began_s)
            assert other in workers
            node.until_serving(workers)
        node.logged("killed by SIGKILL", times=3)
        assert {node.ask().slot for _ in range(40)} == {0, 1}  # the slots, and so their counters, go on
    assert not caller.refused
    assert all(any(broken.open_within(*death_s) for death_s in deaths_s) for broken in caller.broken), caller.broken
    assert min(took_s) < 1, took_s  # the best of three: the others may say more about the machine than about the node


def test_connections_queued_on_a_dead_workers_socket_are_served_by_its_replacement(tmp_path: Path) -> None:
    with RunningNode(tmp_path, workers=1) as node:
        worker = node.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        waiting = [node.called() for _ in range(20)]
        os.kill(worker, signal.SIGKILL)
        assert [pending.answer()[0] for pending in waiting] == [200] * 20


def test_control_dies_and_callers_do_not_notice(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        control = node.control()
        os.kill(control, signal.SIGKILL)
        status, body = call(node.admin_port)
        assert status == 200
        assert body == f"control {node.control()}" != f"control {control}"
    assert not caller.refused
    assert not caller.broken


def test_a_stuck_worker_says_where_it_was_and_is_replaced(tmp_path: Path) -> None:
    with RunningNode(tmp_path, stuck_s=STUCK_S) as node:
        hanging = node.begun("/hang")
        with node.caller() as caller:
            node.logged("is stuck: no heartbeat for ")
            node.logged("Fatal Python error: Aborted")
            node.logged("in respond\n")  # the function that slept, from the stack
            node.logged("killed by SIG")
            node.until_workers(2)
        with pytest.raises(ConnectionError):
            hanging.answer()
        assert not caller.refused
        time.sleep(STUCK_S + 0.2)
        assert node.log().count("is stuck") == 1


def test_a_stopped_worker_is_killed_all_the_same(tmp_path: Path) -> None:
    with RunningNode(tmp_path, stuck_s=STUCK_S) as node, node.caller() as caller:
        stopped = node.workers()[1]
        os.kill(stopped, signal.SIGSTOP)
        node.logged("is stuck: no heartbeat")
        node.until_workers(2, without=[stopped])
    assert not caller.refused


def test_long_before_a_worker_counts_as_stuck_a_neighbour_accepts_for_it(tmp_path: Path) -> None:
    with RunningNode(tmp_path, stuck_s=600) as node:
        hanging = node.begun("/hang")
        assert len({node.ask().pid for _ in range(60)}) == 1  # of which some had waited in the queue of the other
        node.release()
        assert hanging.answer()[0] == 200
        node.until_serving(node.workers())


def test_the_last_worker_gets_a_successor_before_it_is_killed(tmp_path: Path) -> None:
    with RunningNode(tmp_path, workers=1, stuck_s=STUCK_S) as node:
        stuck = node.workers()[0]
        hanging = node.begun("/hang")
        assert node.ask().pid != stuck
        node.until_workers(1, without=[stuck])
        with pytest.raises(ConnectionError):
            hanging.answer()


def test_a_tree_that_was_stopped_as_a_whole_loses_nobody(tmp_path: Path) -> None:
    with RunningNode(tmp_path, stuck_s=STUCK_S) as node:
        pids = node.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * STUCK_S)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(STUCK_S)
        assert sorted(node.pids()) == sorted(pids)
        assert "is stuck" not in node.log()


def test_a_body_that_killed_two_workers_is_refused(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                node.call("/poison")
        node.logged("is refused for ten minutes")
        node.until_workers(2)
        assert node.call("/poison") == (400, "refused")
        assert node.ask().build == "v1"


def test_while_one_seat_keeps_failing_its_neighbour_accepts_for_it(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        (tmp_path / "state" / "1.json").write_text('{"fail_start": true}')
        victim, neighbour = node.workers()
        os.kill(victim, signal.SIGKILL)
        node.logged("ended with code 1", times=3)
        assert {node.ask().pid for _ in range(30)} == {neighbour}
        (tmp_path / "state" / "1.json").write_text('{"build": "healed"}')
        node.until(lambda: len({node.ask().pid for _ in range(30)}) == 2, "both to serve")


def test_sigterm_to_one_worker_replaces_it_without_a_gap(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        old = node.workers()
        os.kill(old[0], signal.SIGTERM)
        node.until_serving(node.until_workers(2, without=old[:1]))
    assert not caller.refused
    assert not caller.broken


def test_when_the_supervisor_is_killed_open_requests_end_well_and_nothing_stays(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        held = [node.begun("/held") for _ in range(4)]
        node.signal(signal.SIGKILL)
        node.logged("the supervisor is gone", times=2)
        node.release()
        assert [pending.answer() for pending in held] == [(200, "late but whole")] * 4
        assert node.process
        node.process.wait()
        node.until(lambda: node.session() == [], "the orphans to leave")


def test_after_the_supervisor_was_killed_the_next_one_waits_for_its_orphans(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        first = node.process
        held = node.begun("/held")
        node.signal(signal.SIGKILL)
        assert first
        first.wait()
        (tmp_path / "ready").unlink()
        node.spawn()
        node.logged("waiting for the workers of a gateway that was killed")
        node.release()
        node.wait_ready()
        assert held.answer() == (200, "late but whole")
        assert node.ask().build == "v1"
