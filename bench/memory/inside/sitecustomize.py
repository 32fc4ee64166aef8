"""Counts the garbage collections of each process of a gateway, where the bench can read them.

Python imports this module when it starts, as it is on the path that `bench.memory` gives the gateway. With FOLDER_NAME
in the environment each process has a file there, named by its pid: three unsigned 64-bit numbers, the collections of
each generation since it was forked. A count is two additions in memory, so what is measured does not change.
"""

import gc
import mmap
import os
from pathlib import Path

FOLDER_NAME = "BENCH_COLLECTIONS"
GENERATIONS = 3
BYTES = 8 * GENERATIONS


class Counter:
    """Called by the collector; a forked process begins a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._counts = memoryview(bytearray(BYTES)).cast("Q")

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """As `gc.callbacks` has it."""
        if phase != "stop":
            return
        if self._pid != os.getpid():
            self._begin()
        self._counts[info["generation"]] += 1

    def _begin(self) -> None:
        self._pid = os.getpid()
        path = self._folder / str(self._pid)
        path.write_bytes(bytes(BYTES))
        with path.open("r+b") as file:
            self._counts = memoryview(mmap.mmap(file.fileno(), BYTES)).cast("Q")


if FOLDER_NAME in os.environ:
    gc.callbacks.append(Counter(Path(os.environ[FOLDER_NAME])))
