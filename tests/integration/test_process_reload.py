"""SIGHUP on a running node: the new config or the old one and why, and no caller notices either way."""

import os
import signal
from pathlib import Path

from tests.fakes.running_node import RunningNode


def test_a_reload_reaches_every_worker_and_no_caller(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        before = set(node.workers())
        node.write_config(build="v2")
        node.signal(signal.SIGHUP)
        node.logged("snapshot 2 is in use by all 2 workers")
        assert {node.ask()[:2] for _ in range(20)} == {("v2", 2)}
        assert set(node.workers()) == before
        node.until(lambda: caller.answered[-1].build == "v2", "the caller to be served by it")
    assert not caller.refused
    assert not caller.broken
    assert {answer.build for answer in caller.answered} == {"v1", "v2"}


def test_a_bad_config_changes_nothing(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        (tmp_path / "config.json").write_text("{ nonsense")
        node.signal(signal.SIGHUP)
        node.logged("reload refused: serving with the old configuration")
        assert node.ask()[:2] == ("v1", 1)
    assert not caller.refused
    assert not caller.broken


def test_a_snapshot_the_workers_cannot_adopt_leaves_them_on_the_old_one(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        node.write_config(build="v2", fail_swap=True)
        node.signal(signal.SIGHUP)
        node.logged("2 workers refused it and stay on the old one")
        assert node.ask()[:2] == ("v1", 1)
        node.write_config(build="v3", fail_swap=False)
        node.signal(signal.SIGHUP)
        node.logged("snapshot 3 is in use by all 2 workers")
        assert node.ask()[:2] == ("v3", 3)


def test_a_reload_asked_for_while_control_is_dead_is_not_lost(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node:
        node.write_config(build="v2")
        control = node.control()
        os.kill(control, signal.SIGSTOP)
        node.signal(signal.SIGHUP)
        node.logged("reload requested")
        node.kill(control)
        node.logged("snapshot 2 is in use by all 2 workers")
        assert node.control() != control
        assert node.ask()[:2] == ("v2", 2)


def test_the_number_of_workers_follows_the_config(tmp_path: Path) -> None:
    with RunningNode(tmp_path) as node, node.caller() as caller:
        for wanted in (4, 1, 3):
            node.write_config(workers=wanted)
            node.signal(signal.SIGHUP)
            node.until_serving(node.until_workers(wanted))
    assert not caller.refused
    assert not caller.broken
