"""Whatever order records, syncs, failures, kills and power cuts come in, a chain keeps its promises.

A run is a list of moves, played on real files with a loop that is turned by hand, and syncs that end by hand, made by
the kernel or by a thread. At every check:
the chain verifies and its numbers have no gap, records stand in the order handed over and none twice, what was answered
as written is there after a kill, what was answered as synced or was signed is there after a power cut, and what was
given up is counted and told.
"""

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.disk import Fault, broken, no_space
from tests.fakes.journal_story import Killed, Story

Move = Callable[[Story], object]
CALLS = ("pwrite", "sync", "begin", "synced", "truncate", "create", "sync_dir", "rename")


def fails(name: str, what: Callable[[], Fault]) -> Move:
    """From now on these calls fail."""

    def fault(called: str, _number: int) -> Fault | None:
        return what() if called == name else None

    return lambda story: setattr(story, "fault", fault)


def fails_after(calls: int, what: Callable[[], Fault], times: int) -> Move:
    """So many calls from now, so many calls fail."""

    def move(story: Story) -> None:
        first = len(story.disk.calls) + calls + 1
        story.fault = lambda _name, number: what() if first <= number < first + times else None

    return move


def takes_part(taken: int) -> Move:
    """The next write takes so many bytes, and the rest of it fails."""

    def move(story: Story) -> None:
        writes: list[str] = []

        def fault(name: str, _number: int) -> Fault | None:
            if name == "pwrite":
                writes.append(name)
            if name != "pwrite" or len(writes) > 2:
                return None
            return taken if len(writes) == 1 else no_space()

        story.fault = fault

    return move


def power_cut(seed: int) -> Move:
    return lambda story: story.lose_power(random.Random(seed))


def heal(story: Story) -> None:
    story.fault = None


def burst(story: Story) -> None:
    """What a busy turn looks like."""
    story.append()
    story.commit(synced=False)
    story.commit(synced=True)
    story.append()
    story.turn()


WRITES: tuple[Move, ...] = (
    Story.append,
    lambda story: story.commit(synced=False),
    lambda story: story.commit(synced=True),
    burst,
)
HAPPENINGS: tuple[Move, ...] = (Story.leave, Story.unrecorded, Story.sign, Story.close, Story.kill, Story.check)
ERRORS = st.sampled_from((no_space, broken, Killed))
MOVES = st.one_of(
    st.sampled_from(WRITES),
    st.sampled_from((Story.turn, Story.sync, Story.round, Story.elsewhere, Story.pass_time, Story.age)),
    st.sampled_from((heal, Story.sync, burst)),
    st.sampled_from(HAPPENINGS),
    st.builds(fails, st.sampled_from(CALLS), ERRORS),
    st.builds(fails_after, st.integers(0, 12), ERRORS, st.integers(1, 4)),
    st.builds(takes_part, st.integers(0, 2_500)),
    st.builds(power_cut, st.integers(0, 1_000)),
)


def play(story: Story, move: Move) -> None:
    try:
        move(story)
        story.open()
    except Killed:
        story.kill()


@given(st.lists(MOVES, min_size=20, max_size=60), st.booleans())
def test_any_life_of_a_chain(moves: list[Move], kernel: bool) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        story = Story(directory / "journal", kernel=kernel)
        story.open()
        for move in moves:
            play(story, move)
        story.check()
        story.lose_power(random.Random(len(moves)))
        story.check()
    finally:
        shutil.rmtree(directory)
