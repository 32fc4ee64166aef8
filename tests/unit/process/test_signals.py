"""Signals wait in a queue, in order, and through a blocked stretch."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from gateway.process.signals import HANDLED, SignalQueue, blocked


@pytest.fixture
def queue() -> Iterator[SignalQueue]:
    before = {number: signal.getsignal(number) for number in (*HANDLED, signal.SIGUSR1)}
    queue = SignalQueue()
    yield queue
    queue.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_are_read_in_the_order_they_came(queue: SignalQueue) -> None:
    assert queue.wait(0) == []
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    assert queue.wait(0) == [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]
    assert queue.wait(0) == []


def test_a_signal_ends_a_wait(queue: SignalQueue) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert queue.wait(30) == [signal.SIGUSR2]


def test_one_nobody_asked_for_is_ignored(queue: SignalQueue) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    assert queue.wait(0) == []


def test_blocked_signals_are_kept(queue: SignalQueue) -> None:
    with blocked():
        signal.raise_signal(signal.SIGHUP)  # to this thread: another one of the process might not block it
        assert queue.wait(0) == []
    assert queue.wait(0) == [signal.SIGHUP]


def test_a_new_queue_hears_what_was_blocked_before_it(queue: SignalQueue) -> None:
    queue.close()
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    signal.raise_signal(signal.SIGHUP)
    with closing(SignalQueue()) as after:  # also when it fails: a socket left open fails some later test
        assert after.wait(0) == [signal.SIGHUP]
