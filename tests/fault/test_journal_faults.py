"""Fail the Nth call that a journal makes of the disk, for N = 1, 2, 3 …, in every way a disk can fail.

One script goes through everything a chain does: it opens, writes, syncs, rolls by size and by time, is torn, repaired,
closed and opened again. Whatever call fails, and however: the chain verifies, and nothing that was answered for is
missing.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.disk import Fault, broken, no_space, unsupported
from tests.fakes.journal_story import Killed, Story

MANY = 1_000  # more calls than the script makes


def script(story: Story) -> Iterator[Callable[[], object]]:
    """Two processes, the first of which is killed in a write."""
    yield story.open
    for number in range(8):
        yield story.append
        yield lambda: story.commit(synced=False)
        yield lambda: story.commit(synced=True)
        yield story.turn
        yield story.sync
        yield story.turn
        if number == 3:
            yield story.pass_time
            yield story.sign
            yield story.age
        yield story.pass_time
    yield lambda: tear(story)
    yield story.open
    yield story.append
    yield story.pass_time
    yield lambda: story.commit(synced=True)
    yield story.pass_time
    yield story.sync
    yield story.append
    yield story.close


def tear(story: Story) -> None:
    """The process is killed in the middle of a write, whatever else goes wrong."""
    faults: dict[int, Fault] = {}
    before = story.fault

    def fault(name: str, number: int) -> Fault | None:
        if name == "pwrite" and not faults:
            faults[number] = 10
            return 10
        return Killed() if faults else None

    story.fault = fault
    story.append()
    try:
        story.turn()
    except Killed:
        assert story.writer is not None
    story.fault = before
    story.kill()


def at(number: int, what: Callable[[], Fault], calls: int = 1) -> Callable[[str, int], Fault | None]:
    """A fault of so many calls from the Nth on."""
    return lambda _name, count: what() if number <= count < number + calls else None


def short(number: int) -> Callable[[str, int], Fault | None]:
    """From the Nth call on, the next write takes a part of what it is given, and the one after it fails."""
    seen: list[int] = []

    def fault(name: str, count: int) -> Fault | None:
        if count < number or name != "pwrite" or len(seen) > 1:
            return None
        seen.append(count)
        return broken() if len(seen) > 1 else 60 + number * 7 % 400

    return fault


def refused(number: int) -> Callable[[str, int], Fault | None]:
    """From the Nth call on, the kernel begins no sync, or says at its end that it has made none."""
    return lambda name, count: unsupported() if count >= number and name in {"begin", "synced"} else None


WAYS: dict[str, Callable[[int], Callable[[str, int], Fault | None]]] = {
    "full": lambda number: at(number, no_space),
    "full for a while": lambda number: at(number, no_space, calls=5),
    "broken": lambda number: at(number, broken),
    "broken for a while": lambda number: at(number, broken, calls=5),
    "short": short,
    "refused": refused,
    "killed": lambda number: at(number, Killed),
    "power cut": lambda number: at(number, Killed),
}


@pytest.mark.parametrize("kernel", [True, False], ids=["synced by the kernel", "synced by a thread"])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_call_fails_the_chain_verifies_and_no_answer_was_wrong(tmp_path: Path, way: str, kernel: bool) -> None:
    for number in range(1, MANY):
        story = Story(tmp_path / f"{number}", kernel=kernel)
        story.fault = fault = WAYS[way](number)
        for move in script(story):
            try:
                move()
            except Killed:
                story.lose_power(random.Random(number)) if way == "power cut" else story.kill()
        assert story.fault is fault
        reached = len(story.disk.calls) >= number
        story.check()
        story.lose_power(random.Random(number))  # after a clean close there is nothing to lose
        story.check()
        if not reached:
            return
    raise AssertionError("the script does not end")
