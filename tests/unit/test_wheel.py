"""The wheel fires late by at most a tick, never early, and forgets whom it is told to forget."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.wheel import TICK_NS, Wheel


class Member:
    def __init__(self, again: list[int] | None = None) -> None:
        self.wheel_tick = 0
        self.fired: list[int] = []
        self.again = again or []

    def on_deadline(self, now_ns: int) -> int:
        self.fired.append(now_ns)
        return self.again.pop(0) if self.again else 0


def _wheel_at(now_ns: int) -> Wheel:
    wheel = Wheel()
    wheel._done = now_ns // TICK_NS
    return wheel


def test_fires_once_and_not_before_its_time() -> None:
    wheel, member = _wheel_at(0), Member()
    wheel.arm(member, 10 * TICK_NS)
    wheel.advance(10 * TICK_NS)
    assert member.fired == []
    wheel.advance(11 * TICK_NS)
    wheel.advance(50 * TICK_NS)
    assert member.fired == [11 * TICK_NS]
    assert member.wheel_tick == 0


def test_a_later_deadline_replaces_the_earlier_one() -> None:
    wheel, member = _wheel_at(0), Member()
    wheel.arm(member, 2 * TICK_NS)
    wheel.arm(member, 20 * TICK_NS)
    wheel.advance(10 * TICK_NS)
    assert member.fired == []
    wheel.advance(21 * TICK_NS)
    assert len(member.fired) == 1


def test_disarmed_members_are_forgotten() -> None:
    wheel, member = _wheel_at(0), Member()
    wheel.arm(member, TICK_NS)
    wheel.disarm(member)
    wheel.disarm(member)
    wheel.advance(100 * TICK_NS)
    assert member.fired == []


def test_the_answer_of_a_member_is_its_next_deadline() -> None:
    wheel, member = _wheel_at(0), Member(again=[30 * TICK_NS])
    wheel.arm(member, TICK_NS)
    wheel.advance(5 * TICK_NS)
    wheel.advance(29 * TICK_NS)
    assert len(member.fired) == 1
    wheel.advance(31 * TICK_NS)
    assert len(member.fired) == 2


def test_a_deadline_in_the_past_fires_at_the_next_tick() -> None:
    wheel, member = _wheel_at(1000 * TICK_NS), Member()
    wheel.arm(member, 3)
    wheel.advance(1001 * TICK_NS)
    assert len(member.fired) == 1


def test_a_member_may_disarm_another_while_firing() -> None:
    wheel, victim = _wheel_at(0), Member()

    class Killer(Member):
        def on_deadline(self, now_ns: int) -> int:
            wheel.disarm(victim)
            return super().on_deadline(now_ns)

    killers = [Killer() for _ in range(8)]
    for member in (*killers, victim):
        wheel.arm(member, TICK_NS)
    wheel.advance(3 * TICK_NS)
    assert all(len(killer.fired) == 1 for killer in killers)
    assert len(victim.fired) <= 1
    wheel.advance(10 * TICK_NS)
    assert victim.wheel_tick == 0


@given(st.lists(st.integers(0, 400), max_size=30), st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_every_member_fires_in_its_window_whatever_the_steps(deadlines: list[int], steps: list[int]) -> None:
    wheel = _wheel_at(0)
    members = {deadline * TICK_NS // 7: Member() for deadline in deadlines}
    for deadline, member in members.items():
        wheel.arm(member, deadline)
    now = 0
    for step in [*steps, 1000]:
        before, now = now, now + step * TICK_NS // 3
        wheel.advance(now)
        for deadline, member in members.items():
            if member.fired and member.fired[-1] == now:
                assert deadline <= now
            if deadline + 2 * TICK_NS <= before:
                assert member.fired
    assert all(len(member.fired) == 1 for member in members.values())
