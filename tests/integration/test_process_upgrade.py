"""SIGUSR2: a new build takes over under the same pid, with the same sockets, and no caller notices."""

import signal
import time
from pathlib import Path

from tests.fakes.running_node import Answer, RunningNode


def settled(node: RunningNode, build: str) -> set[Answer]:
    """Who answers, once everybody who does is of this build."""

    def look() -> set[Answer]:
        answers = {node.ask() for _ in range(20)}
        return answers if {answer.build for answer in answers} == {build} else set()

    return node.until(look, f"build {build}")


def test_an_upgrade_keeps_pid_and_sockets_and_no_caller_notices(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        held = [node.begun("/held") for _ in range(4)]
        with node.caller() as caller:
            before = node.workers()
            node.write_config(build="v2")
            node.signal(signal.SIGUSR2)
            node.logged("the new workers have taken over")
            assert {answer.generation for answer in settled(node, "v2")} == {2}
        assert not caller.refused
        assert not caller.broken
        node.release()
        assert [pending.answer() for pending in held] == [(200, "late but whole")] * 4
        victim, _ = node.until_workers(2, without=before)
        assert not (tmp_path / "imported").exists()
        node.kill(victim)  # everything still works afterwards
        node.until_workers(2, without=[victim])
        node.write_config(build="v3")
        node.signal(signal.SIGHUP)
        settled(node, "v3")
        node.signal(signal.SIGTERM)
        assert node.ended() == 0


def test_one_upgrade_after_another(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        for number in range(2, 5):
            node.write_config(build=f"v{number}")
            node.signal(signal.SIGUSR2)
            node.logged("the new workers have taken over", times=number - 1)
            settled(node, f"v{number}")
            node.until_workers(2)
    assert not caller.refused
    assert not caller.broken


def test_a_build_that_fails_its_own_check_changes_nothing(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        before = node.pids()
        node.write_config(build="v2", fail_check=True)
        node.signal(signal.SIGUSR2)
        node.logged("upgrade given up: the new build or its configuration does not pass")
        assert sorted(node.pids()) == sorted(before)
        assert node.ask().build == "v1"
    assert not caller.refused
    assert not caller.broken


def test_new_workers_that_do_not_start_leave_the_old_ones_serving(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        before = set(node.workers())
        node.write_config(build="v2", fail_start=True)
        node.signal(signal.SIGUSR2)
        node.logged("upgrade: rolled back")
        node.until(lambda: set(node.workers()) == before, "the new ones to go")
        assert node.ask()[:2] == ("v1", 1)
        node.write_config(build="v3", fail_start=False)
        node.signal(signal.SIGUSR2)
        node.logged("the new workers have taken over")
        settled(node, "v3")
    assert not caller.refused
    assert not caller.broken


def test_a_signal_that_arrives_during_the_exec_is_kept(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        node.write_config(build="v2")
        old = node.control()
        node.signal(signal.SIGUSR2)
        node.until(lambda: old not in node.children(), "control to leave, which is just before the exec")
        time.sleep(0.05)
        node.signal(signal.SIGTERM)
        assert node.ended() == 0


def imports(node: RunningNode) -> list[str]:
    """What counters were brought, a line each time: between two segments or not."""
    path = node.directory / "imported"
    return path.read_text().split() if path.exists() else []


def test_another_segment_layout_gets_a_new_segment_and_the_counters(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        before, held = node.workers(), node.begun("/held")
        node.write_config(build="v2", extra=7)
        node.signal(signal.SIGUSR2)
        node.logged("the control segment has another layout")
        node.logged("the new workers have taken over")
        settled(node, "v2")
        node.until(lambda: len(imports(node)) >= 2, "the counters to be brought again and again")
        brought = len(imports(node))
        node.release()
        assert held.answer() == (200, "late but whole")
        node.until_workers(2, without=before)
        node.until(lambda: len(imports(node)) > brought, "the counters to be brought a last time")
        assert set(imports(node)) == {"True"}
        node.write_config(build="v3")
        node.signal(signal.SIGHUP)
        settled(node, "v3")
    assert not caller.refused
    assert not caller.broken


def test_an_upgrade_may_bring_another_number_of_workers(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        for upgrades, (build, workers) in enumerate((("v2", 4), ("v3", 1)), start=1):
            before = node.workers()
            node.write_config(build=build, workers=workers)
            node.signal(signal.SIGUSR2)
            node.logged("the new workers have taken over", times=upgrades)
            settled(node, build)
            node.until_workers(workers, without=before)
    assert not caller.refused
    assert not caller.broken
