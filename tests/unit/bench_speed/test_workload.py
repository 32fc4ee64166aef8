"""Requests have the size they claim, are JSON, and carry one nonce and at most one directive."""

import json
from pathlib import Path

import pytest

from bench.speed import workload
from bench.speed.workload import Workload


@pytest.mark.parametrize("work", [workload.plain(), workload.streamed(10), workload.idle_stream(5000)])
def test_a_body_is_json_of_just_that_size(work: Workload, tmp_path: Path) -> None:
    body = work.write(tmp_path).read_bytes()
    assert len(body) == workload.REQUEST_BYTES
    request = json.loads(body)
    assert request["model"] == workload.MODEL
    assert request.get("stream", False) is work.stream
    assert body.count(b"[[nonce ") == 1
    assert body.count(b"[[bench ") == 1


@pytest.mark.parametrize("size", [0, 500, 100_000])
def test_other_sizes(size: int) -> None:
    assert len(Workload("x", request_bytes=size).body()) == max(size, len(Workload("x", request_bytes=0).body()))


def test_the_tails_three_events_are_one_chunk() -> None:
    assert workload.chunks_seen(events=2 * (workload.CHUNKS + workload.TAIL_EVENTS), streams=2) == 2 * (
        workload.CHUNKS + 1
    )
