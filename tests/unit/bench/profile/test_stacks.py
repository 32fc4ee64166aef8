"""Samples belong to the function of the gateway that they were taken in or under."""

import pytest

from bench.profile import stacks
from bench.profile.stacks import Frame, Stack

LOOP = "main (gateway/cli/main.py:1);run_worker (gateway/process/worker.py:90);run (asyncio/runners.py:118)"
RAW = f"""{LOOP};_serve (gateway/listener/connection.py:10);run (gateway/pipeline.py:7);dumps (json/__init__.py:3) 30
{LOOP};data_received (gateway/relay/upstream.py:5) 20
{LOOP} 40
bootstrap (threading.py:9);_wait (gateway/journal/syncer.py:4) 500
{LOOP};compose (/usr/lib/python3/site-packages/gateway/journal/line.py:44) 10
"""


def test_only_the_serving_thread_counts_and_its_shares_are_whole() -> None:
    found = stacks.serving(stacks.parse(RAW))
    shares = stacks.shares(found, stacks.module)
    assert shares == [
        ("process/worker.py", 0.4),
        ("pipeline.py", 0.3),
        ("relay/upstream.py", 0.2),
        ("journal/line.py", 0.1),
    ]
    assert sum(share for _, share in shares) == pytest.approx(1)


def test_what_a_library_does_is_its_callers() -> None:
    first = stacks.parse(RAW)[0]
    assert (stacks.module(first), stacks.function(first)) == ("pipeline.py", "run (pipeline.py)")


def test_a_stack_without_the_gateway_is_the_loops() -> None:
    alone = Stack([Frame("run", "asyncio/runners.py")], 1)
    assert {of(alone) for of in (stacks.module, stacks.function)} == {stacks.LOOP}


@pytest.mark.parametrize(
    ("word", "frame"),
    [
        ("run (gateway/pipeline.py:7)", Frame("run", "gateway/pipeline.py")),
        ("<lambda> (a (b).py:3)", Frame("<lambda> (a (b).py:3)", "")),
        ("Pool.get (gateway/relay/pool.py)", Frame("Pool.get", "gateway/relay/pool.py")),
        ("[kernel]", Frame("[kernel]", "")),
    ],
)
def test_frames_are_read(word: str, frame: Frame) -> None:
    assert stacks.parse(f"{word} 1")[0].frames == [frame]


def test_a_line_without_a_count_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        stacks.parse("run (a.py:1) many")


def test_no_samples_have_no_shares() -> None:
    assert stacks.shares([], stacks.module) == []
