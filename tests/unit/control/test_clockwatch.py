"""A clock that leaps ahead is believed only after it has stayed there; all others at once."""

from pathlib import Path
from unittest import mock

import pytest

from gateway.control.clockwatch import CALM_S, LEAP_S, SAVE_S, ClockWatch
from gateway.units import US_PER_S

HOUR_S = 3_600.0
YEAR_S = 365 * 86_400.0
BEGAN_S = 1_800_000_000.0


class Scene:
    """A node with two clocks."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "clock"
        self.wall_s = BEGAN_S
        self.counted_s = 5.0
        self.start()

    def start(self) -> None:
        self.watch = ClockWatch(self.path, lambda: int(self.wall_s * US_PER_S), lambda: self.counted_s)

    def restart(self, off_s: float = 1.0) -> None:
        self.wall_s += off_s
        self.counted_s = 77.0  # of another boot
        self.start()

    def after(self, seconds: float) -> str:
        """What is said when both clocks have gone on by that much."""
        self.wall_s += seconds
        self.counted_s += seconds
        return self.watch.doubt()

    def leap(self, seconds: float) -> str:
        """What is said after the wall clock alone was moved."""
        self.wall_s += seconds
        return self.after(10)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    assert made.after(0) == ""
    return made


def test_time_that_passes_is_believed(scene: Scene) -> None:
    assert [scene.after(step) for step in (10, HOUR_S, 3 * LEAP_S, YEAR_S, 0)] == [""] * 5


@pytest.mark.parametrize("step_s", [-YEAR_S, -HOUR_S, HOUR_S, LEAP_S - 60])
def test_a_clock_that_is_put_back_or_a_little_ahead_is_believed(scene: Scene, step_s: float) -> None:
    assert scene.leap(step_s) == ""


def test_a_leap_is_believed_when_it_has_lasted(scene: Scene) -> None:
    doubt = scene.leap(YEAR_S)
    assert "the clock is 8760 hours ahead of what it was" in doubt
    assert {scene.after(CALM_S / 4) for _ in range(3)} == {doubt}, "told in the same words, so it is told once"
    assert scene.after(CALM_S / 4) == ""
    assert scene.after(10) == ""


def test_a_leap_that_is_put_right_leaves_nothing(scene: Scene) -> None:
    assert scene.leap(YEAR_S)
    assert scene.leap(-YEAR_S) == ""
    assert scene.leap(YEAR_S), "and did not count for the next one"
    assert scene.after(CALM_S - 60)


def test_a_clock_that_goes_on_leaping_is_not_believed(scene: Scene) -> None:
    scene.leap(YEAR_S)
    scene.after(CALM_S / 2)
    scene.leap(YEAR_S)
    assert scene.after(CALM_S / 2)
    assert scene.after(CALM_S / 2) == ""


def test_a_clock_that_was_behind_and_is_put_right_has_not_leapt(scene: Scene) -> None:
    scene.leap(-YEAR_S)
    scene.after(HOUR_S)
    assert scene.leap(YEAR_S) == ""


def test_a_restart_remembers(scene: Scene) -> None:
    scene.after(10 * SAVE_S)
    scene.restart()
    assert scene.after(0) == ""
    scene.leap(YEAR_S)
    scene.restart()
    assert scene.after(0), "its records and manifests say the wrong time by now"
    assert scene.after(CALM_S) == ""
    scene.restart(off_s=HOUR_S)
    assert scene.after(0) == ""


def test_a_node_that_was_off_for_long_waits(scene: Scene) -> None:
    scene.restart(off_s=3 * LEAP_S)
    assert scene.after(0)
    assert scene.after(CALM_S) == ""


@pytest.mark.parametrize("content", [b"", b"soon", b"-5", b"\xff", b"9" * 40])
def test_a_file_that_says_nothing_leaves_the_clock_believed(scene: Scene, content: bytes) -> None:
    scene.path.write_bytes(content)
    scene.restart(off_s=YEAR_S)
    assert scene.after(0) == ""
    assert int(scene.path.read_bytes()) == int(scene.wall_s * US_PER_S)


def test_it_is_written_once_an_hour_and_tried_again(scene: Scene) -> None:
    with mock.patch("gateway.control.clockwatch.replacing", side_effect=OSError(28, "full")) as written:
        scene.after(SAVE_S - 60)
        assert written.call_count == 0
        assert [scene.after(60), scene.after(10)] == ["", ""]
        assert written.call_count == 2
    before = scene.path.read_bytes()
    scene.after(10)
    assert scene.path.read_bytes() > before
