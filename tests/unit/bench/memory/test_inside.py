"""A process counts its own collections, also one that was forked."""

import gc
import os
import subprocess
import sys
from pathlib import Path

from bench.memory import drive
from bench.memory.inside import sitecustomize
from bench.memory.inside.sitecustomize import Counter

PROGRAM = """
import gc, os
gc.collect()
child = os.fork()
if child == 0:
    gc.collect()
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
gc.collect(0)
print(os.getpid(), child, flush=True)
os._exit(0)  # the interpreter collects once more when it ends
"""


def test_each_process_has_its_own_numbers(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(drive.INSIDE), sitecustomize.FOLDER_NAME: str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    ).stdout
    parent, child = (drive.collections(tmp_path / pid) for pid in said.split())
    assert parent[0] >= 1
    assert (parent[2], child[2]) == (1, 2)


def test_a_process_without_a_file_has_counted_nothing(tmp_path: Path) -> None:
    assert drive.collections(tmp_path / "7") == (0, 0, 0)


def test_only_the_end_of_a_collection_counts(tmp_path: Path) -> None:
    counter = Counter(tmp_path)
    counter("start", {"generation": 1})
    assert not list(tmp_path.iterdir())
    counter("stop", {"generation": 1})
    assert drive.collections(tmp_path / str(os.getpid())) == (0, 1, 0)


def test_nobody_counts_unasked() -> None:
    assert not any(isinstance(callback, Counter) for callback in gc.callbacks)
