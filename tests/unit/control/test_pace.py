"""Work is cut into steps with pauses between them, unless it is in a hurry."""

from gateway.control.pace import FEW, PAUSE_S, STEP_S, Pace


class Clock:
    """A clock that only moves when told to, or while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.pauses: list[float] = []

    def read(self) -> float:
        return self.now_s

    def sleep(self, length_s: float) -> None:
        self.pauses.append(length_s)
        self.now_s += length_s

    def pace(self, *, hurried: bool = False) -> Pace:
        return Pace(hurried=hurried, now_s=self.read, sleep=self.sleep)


def test_a_pause_follows_when_a_step_was_long_enough() -> None:
    clock = Clock()
    pace = clock.pace()
    pace.step()
    clock.now_s += 0.9 * STEP_S
    pace.step()
    assert not clock.pauses
    clock.now_s += 0.2 * STEP_S
    pace.step()
    assert clock.pauses == [PAUSE_S]
    pace.step()
    assert clock.pauses == [PAUSE_S], "the next step begins behind the pause"


def test_who_is_far_behind_does_not_pause() -> None:
    clock = Clock()
    pace = clock.pace(hurried=True)
    clock.now_s += 1
    pace.step()
    assert not clock.pauses
    pace.hurried = False
    pace.step()
    assert clock.pauses == [PAUSE_S]


def test_items_come_in_order_and_a_step_follows_each_few() -> None:
    clock = Clock()
    items, found = list(range(2 * FEW + 1)), list[int]()
    for some in clock.pace().over(items):
        assert len(clock.pauses) == len(found) // FEW
        clock.now_s += 2 * STEP_S
        found += some
    assert found == items
    assert len(clock.pauses) == 3


def test_nothing_is_no_step() -> None:
    assert not list(Clock().pace().over([]))


def test_it_pauses_for_as_long_as_it_says() -> None:
    slept: list[float] = []
    pace = Pace(now_s=iter((0.0, 1.0, 1.0)).__next__, sleep=slept.append)
    pace.step()
    assert slept == [PAUSE_S]
