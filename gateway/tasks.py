"""Background work: the one way to start a task nobody awaits.

asyncio keeps only a weak reference to a task, so a bare `create_task` can vanish mid-way, and its exception is
reported when the garbage collector gets round to it. `spawn` keeps the reference and reports the crash at once.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

_log: Final = logging.getLogger("gateway.tasks")
_running: Final[set[asyncio.Task[Any]]] = set()


def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Start `work` on the running loop, held until it ends; a crash is logged with its traceback."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def running() -> int:
    """How many spawned tasks have not ended yet."""
    return len(_running)


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        _log.error("task %s crashed", task.get_name(), exc_info=error)
