"""A request through a worker takes no more calls than it did: the guard against a hot path that grows by and by.

No time is measured, so a busy machine cannot fail it. The figures below were counted on CPython 3.11; later versions
make fewer. A change that is worth its calls raises them here, in the commit that makes it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.calls import Calls, Counter, head_end

ROOT = Path(__file__).parents[3]
COUNTED = {
    "request": Calls(python=142.0, c=175.0),
    "limited": Calls(python=191.0, c=263.0),
    "chunk": Calls(python=11.0, c=13.0),
}
BAND = 1.2


@pytest.fixture(scope="module")
def found() -> dict[str, Calls]:
    command = [sys.executable, "-W", "error", "-m", "bench.calls"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name: Calls(**calls) for name, calls in json.loads(done.stdout).items()}


@pytest.mark.slow
@pytest.mark.parametrize("what", COUNTED)
def test_a_worker_makes_no_more_calls_than_it_did(what: str, found: dict[str, Calls]) -> None:
    assert found[what].python <= COUNTED[what].python * BAND, f"calls of Python functions a {what}"
    assert found[what].c <= COUNTED[what].c * BAND, f"calls of C functions a {what}"


@pytest.mark.slow
@pytest.mark.parametrize("what", COUNTED)
def test_the_count_is_of_a_worker_that_works(what: str, found: dict[str, Calls]) -> None:
    assert found[what].python > COUNTED[what].python / 2, "far fewer: nothing was counted, or count anew"


def test_calls_are_counted_between_begin_and_end() -> None:
    counter = Counter()
    head_end(b"not counted")
    counter.begin()
    for _ in range(10):
        head_end(b"abc\r\n\r\n")
    counter.end()
    head_end(b"not counted")
    assert (counter.python, counter.c) == (10 + 1, 10 + 1)  # `end` is the last, and what it calls
    assert counter.each(11) == Calls(1.0, 1.0)


def test_a_head_ends_at_its_empty_line() -> None:
    assert head_end(b"a: b\r\n\r\nbody") == 8
    assert head_end(b"a: b\r\n") == -1
