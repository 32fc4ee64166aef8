"""Silence is counted only while the observer itself was on time; the last one that serves is never a victim."""

from gateway.process.stuck import StuckWatch, Suspect, victim

TICK = 100


def watched(*steps: tuple[int, int]) -> StuckWatch:
    """A watch after observing one process at (time, heartbeat)."""
    watch = StuckWatch(TICK)
    for now, beat in steps:
        watch.observe(now, {1: beat})
    return watch


def test_silence_grows_with_time_and_ends_with_a_beat() -> None:
    steps = [(1000 + TICK * n, 5) for n in range(11)]
    assert watched(*steps).silent_ns(1) == 10 * TICK
    assert watched(*steps, (2100, 6)).silent_ns(1) == 0


def test_time_in_which_the_observer_slept_accuses_nobody() -> None:
    assert watched((1000, 5), (1100, 5), (99_000, 5)).silent_ns(1) == 100
    assert watched((1000, 5), (99_000, 5), (99_100, 5)).silent_ns(1) == 100


def test_quick_observations_after_signals_count_what_passed() -> None:
    assert watched((1000, 5), (1001, 5), (1003, 5)).silent_ns(1) == 3


def test_the_dead_are_forgotten_even_if_a_pid_returns() -> None:
    watch = watched((1000, 5), (1100, 5))
    watch.observe(1200, {})
    watch.observe(1300, {1: 5})
    assert watch.silent_ns(1) == 0
    assert watch.silent_ns(2) == 0


def test_whom_to_kill() -> None:
    serving, longer, leaving = Suspect(1, 10, serving=True), Suspect(2, 20, serving=True), Suspect(3, 5, serving=False)
    assert victim([], 3) is None
    assert victim([serving, longer], 1) is longer
    assert victim([serving, longer], 0) is None
    assert victim([serving, longer, leaving], 0) is leaving
