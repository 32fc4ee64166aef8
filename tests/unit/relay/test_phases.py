"""The table of phases: every ending can be reached, nothing leaves one, and the docs draw the same picture."""

import re
from pathlib import Path

import pytest

from gateway.relay.phases import TERMINAL, TRANSITIONS, Happening, Phase, step

ARCHITECTURE = Path(__file__).parents[3] / "docs" / "ARCHITECTURE.md"


def test_nothing_leaves_a_terminal_phase() -> None:
    assert not [pair for pair in TRANSITIONS if pair[0] in TERMINAL]


def test_every_phase_can_be_reached_and_every_other_one_left() -> None:
    reached = set(TRANSITIONS.values()) | {Phase.CONNECTING}
    assert reached == set(Phase)
    assert {pair[0] for pair in TRANSITIONS} == set(Phase) - TERMINAL


def test_the_caller_may_leave_in_any_open_phase() -> None:
    for phase in set(Phase) - TERMINAL:
        assert step(phase, Happening.DOWNSTREAM_GONE) is Phase.ABANDONED


def test_content_ends_failover() -> None:
    assert step(Phase.STREAMING, Happening.UPSTREAM_FAILED) is Phase.TRUNCATED
    with pytest.raises(KeyError):
        step(Phase.STREAMING, Happening.NEXT_TARGET)


def test_the_docs_draw_this_table() -> None:
    drawn = set(re.findall(r"^\s*([A-Z]+) --> ([A-Z]+): (\w+)", ARCHITECTURE.read_text(), re.MULTILINE))
    table = {(Phase(p).name, after.name, Happening(h).name.lower()) for (p, h), after in TRANSITIONS.items()}
    assert drawn == table
