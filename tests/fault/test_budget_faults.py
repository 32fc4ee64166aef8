"""Control killed at every step it does to the disk, and a disk or an engine that fails the Nth time: the sum stays.

After each, the whole node dies as well and begins anew; what is spent then equals what its journal says.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from gateway.control.readers.runner import Limits, Runner, Source
from gateway.control.webhook_queue import Pending, Queue
from gateway.limiter.changes import CheckpointFiles
from tests.fakes import killed_steps
from tests.fakes.killed_steps import How, Say
from tests.fakes.limits_node import LimitsNode, run

MOST_STEPS = 200
HOWS: tuple[How, How] = ("before", "after")
FEW = Limits(records=2, first_wait_s=0, longest_wait_s=0)
SPENT = 10 * 3 + 500


def node_with_a_past(state_dir: Path) -> LimitsNode:
    """Ten requests that settled, one that did not, and a checkpoint before all of them."""
    node = LimitsNode(state_dir)
    run(node)
    for number in range(10):
        node.reserves(f"h{number}", 90)
        node.settles(f"h{number}", 3)
    node.reserves("open", 500)
    source = Source(node.journal.path, node.journal.node, node.journal.signed, node.journal.heads)
    node.runner = Runner(node.reader, source, node.journal.state_dir, FEW)
    return node


def follow(node: LimitsNode) -> None:
    """Control at work: a few lines, a checkpoint, a few more."""
    run(node, turns=12)


def begin_anew(node: LimitsNode) -> int:
    """Everything dies and begins; what is spent before the node is ready."""
    node.engine.forget()
    node.live()
    asyncio.run(node.keeper.begin())
    return node.used


@pytest.mark.slow
def test_control_killed_at_any_step(tmp_path: Path) -> None:
    for step in range(1, MOST_STEPS):
        for how in HOWS:
            node = node_with_a_past(tmp_path / f"{step} {how}")

            def work(say: Say, node: LimitsNode = node) -> None:
                follow(node)
                say("done")

            ended = killed_steps.run(work, step, how)
            node.start_control()
            assert begin_anew(node) == SPENT, (step, how, ended.call)
            if how == "before" and not ended.killed:
                assert ended.said == ["done"]
                assert step > 20
                return
    pytest.fail("it never came to an end")


class Failing:
    """Fails the Nth of these calls, once."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, real: Callable[..., Any], *given: Any, **more: Any) -> object:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.EIO, "Input/output error")
        return real(*given, **more)


@pytest.mark.parametrize("name", ["open", "fsync", "fdatasync", "pwrite", "replace", "mkdir"])
def test_a_disk_that_fails_once_at_any_step(tmp_path: Path, name: str) -> None:
    real = getattr(os, name)
    for nth in range(1, MOST_STEPS):
        node = node_with_a_past(tmp_path / str(nth))
        failing = Failing(nth)
        with mock.patch.object(os, name, lambda *given, _at=failing, **more: _at(real, *given, **more)):
            follow(node)
        kept = CheckpointFiles(node.reader.path, node.journal.node).load()
        assert kept is not None
        assert sum(found.used for found in kept.checkpoint.ledger.used(node.now_us // 1000)) == SPENT
        assert begin_anew(node) == SPENT
        if failing.left > 0:
            return
    pytest.fail("it never came to an end")


def test_an_engine_that_goes_away_after_any_settlement(tmp_path: Path) -> None:
    for settlements in range(12):
        node = LimitsNode(tmp_path / str(settlements), marked=True)
        node.engine.fresh = False
        run(node)
        node.engine.away = True
        for number in range(10):
            node.settles(f"h{number}", 3)
        run(node)
        node.engine.forget()
        node.engine.away, node.engine.fails_after = False, settlements
        run(node)
        node.engine.away, node.engine.fails_after = False, -1
        run(node, turns=2)
        assert node.used == 30


@pytest.mark.slow
def test_a_queue_of_events_killed_at_any_step(tmp_path: Path) -> None:
    for step in range(1, MOST_STEPS):
        for how in HOWS:
            state_dir = tmp_path / f"{step} {how}"

            def work(say: Say, state_dir: Path = state_dir) -> None:
                queue = Queue(state_dir, "ops")
                for number in range(4):
                    queue.add(Pending(f"e{number}", number, "{}"))
                    say(f"e{number}")
                queue.done(Pending("e0", 0, "{}"))

            ended = killed_steps.run(work, step, how)
            kept = waiting(state_dir)
            assert set(ended.said) - kept <= ({"e0"} if len(ended.said) == 4 else set[str]()), (step, how, ended)
            if how == "before" and not ended.killed:
                assert kept == {"e1", "e2", "e3"}
                return
    pytest.fail("it never came to an end")


def waiting(state_dir: Path) -> set[str]:
    queue, found = Queue(state_dir, "ops"), set[str]()
    while (event := queue.next_due()) is not None:
        found.add(event.id)
        queue.done(event)
    return found
