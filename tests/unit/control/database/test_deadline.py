"""A connection that is silent for too long ends, and no other one does."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.database.deadline import Deadline

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


def test_waiting_ends_when_the_time_is_over(pair: Pair) -> None:
    with Deadline(0.01) as limit:
        limit.watch(pair[0].fileno())
        assert pair[0].recv(1) == b""
    assert limit.expired


def test_within_the_time_nothing_happens(pair: Pair) -> None:
    with Deadline(60) as limit:
        limit.watch(pair[0].fileno())
    pair[1].send(b"x")
    assert pair[0].recv(1) == b"x"
    assert not limit.expired


def test_the_time_is_not_begun_anew_by_another_connection(pair: Pair) -> None:
    other = socket.socketpair()
    with other[0], other[1], Deadline(0.01) as limit:
        limit.watch(other[0].fileno())
        assert other[0].recv(1) == b""
        limit.watch(pair[0].fileno())
        assert pair[0].recv(1) == b""


def test_only_the_last_one_is_watched(pair: Pair) -> None:
    other = socket.socketpair()
    with other[0], other[1], Deadline(0.05) as limit:
        limit.watch(pair[0].fileno())
        limit.watch(other[0].fileno())
        assert other[0].recv(1) == b""
        pair[1].send(b"x")
        assert pair[0].recv(1) == b"x"


def test_a_descriptor_that_was_given_to_another_is_left_alone(pair: Pair) -> None:
    watched, peer = socket.socketpair()
    with peer, Deadline(0.05) as limit:
        number = watched.fileno()
        limit.watch(number)
        watched.close()
        os.dup2(pair[0].fileno(), number)
        try:
            end = time.monotonic() + 10
            while not limit.expired and time.monotonic() < end:
                time.sleep(0.001)
            pair[1].send(b"x")
            assert pair[0].recv(1) == b"x"
        finally:
            os.close(number)
    assert limit.expired


def test_nothing_is_left_open(pair: Pair) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for limit_s in (60, 0):
        with Deadline(limit_s) as limit:
            limit.watch(pair[0].fileno())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_without_a_connection_there_is_no_clock() -> None:
    threads = threading.active_count()
    with Deadline(60):
        assert threading.active_count() == threads
