"""How large a node is made, from what its config says and what its machine has."""

import os
from pathlib import Path

import pytest

from gateway.process.settings import ServeSettings, bounded_workers, cores


@pytest.mark.parametrize(
    ("asked", "room", "expected"), [(3, 8, 3), (99, 8, 8), (-1, 8, 1), (0, 500, cores()), (0, 1, 1)]
)
def test_workers_are_as_asked_within_bounds(asked: int, room: int, expected: int) -> None:
    assert bounded_workers(asked, room) == expected


@pytest.mark.parametrize(("workers", "room", "slots"), [(2, 8, 18), (32, 32, 66)])
def test_two_generations_of_workers_fit_beside_supervisor_and_control(workers: int, room: int, slots: int) -> None:
    settings = ServeSettings(config=Path("c"), state_dir=Path("s"), workers=workers)
    assert (settings.worker_count(), settings.room(), settings.slots()) == (workers, room, slots)


def test_cores_are_those_this_process_may_use() -> None:
    assert cores() == len(os.sched_getaffinity(0)) >= 1
