"""Spawned work is held until it ends, and its crash is heard of at once."""

import asyncio
import gc
import logging

import pytest

from gateway import tasks


def test_work_is_not_collected_while_it_waits() -> None:
    async def scenario() -> None:
        ready = asyncio.Event()
        done: list[str] = []

        async def work() -> None:
            await ready.wait()
            done.append("whole")

        tasks.spawn(work(), name="work")
        await asyncio.sleep(0)
        gc.collect()
        assert tasks.running() == 1
        ready.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert done == ["whole"]
        assert tasks.running() == 0

    asyncio.run(scenario())


def test_a_crash_is_logged_with_its_name_and_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def crash() -> None:
        raise LookupError("gone")

    async def scenario() -> None:
        task = tasks.spawn(crash(), name="reader of cursors")
        await asyncio.wait({task})
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR, "gateway.tasks"):
        asyncio.run(scenario())
    [record] = caplog.records
    assert record.getMessage() == "task reader of cursors crashed"
    assert record.exc_info
    assert record.exc_info[0] is LookupError


def test_a_cancelled_task_is_no_crash(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        task = tasks.spawn(asyncio.sleep(3600), name="sleeper")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert tasks.running() == 0

    asyncio.run(scenario())
    assert not caplog.records
