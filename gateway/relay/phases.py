"""The phases of a transfer, as a table: what may follow what, from the first attempt to the end.

Absent pairs are defects and raise. docs/ARCHITECTURE.md draws its diagram from this table, and the test of this
module keeps the two equal.
"""

from enum import IntEnum
from typing import Final


class Phase(IntEnum):
    """Where a transfer stands."""

    CONNECTING = 0  # a target is chosen, no request byte is out
    AWAITING = 1  # the request is out; nothing of the answer has gone downstream
    FAILOVER = 2  # an attempt failed and nothing but keep-alive comments has gone downstream
    STREAMING = 3  # content is going downstream: from here no attempt can be repeated
    COMPLETE = 4
    FAILED = 5  # no attempt produced an answer
    TRUNCATED = 6  # the upstream broke off while STREAMING
    ABANDONED = 7  # the caller left


class Happening(IntEnum):
    """What can happen to it."""

    CONNECTED = 0
    CONTENT = 1
    ENDED = 2
    UPSTREAM_FAILED = 3
    NEXT_TARGET = 4
    NO_MORE_TARGETS = 5
    DOWNSTREAM_GONE = 6


_P, _H = Phase, Happening

TRANSITIONS: Final[dict[tuple[int, int], Phase]] = {
    (_P.CONNECTING, _H.CONNECTED): _P.AWAITING,
    (_P.CONNECTING, _H.UPSTREAM_FAILED): _P.FAILOVER,
    (_P.AWAITING, _H.CONTENT): _P.STREAMING,
    (_P.AWAITING, _H.ENDED): _P.COMPLETE,  # a whole answer at once, or one that is complete though empty
    (_P.AWAITING, _H.UPSTREAM_FAILED): _P.FAILOVER,  # nothing sent yet: another attempt is free
    (_P.FAILOVER, _H.NEXT_TARGET): _P.CONNECTING,
    (_P.FAILOVER, _H.NO_MORE_TARGETS): _P.FAILED,
    (_P.STREAMING, _H.ENDED): _P.COMPLETE,
    (_P.STREAMING, _H.UPSTREAM_FAILED): _P.TRUNCATED,  # bytes are out: never retry, end the stream honestly
    (_P.CONNECTING, _H.DOWNSTREAM_GONE): _P.ABANDONED,
    (_P.AWAITING, _H.DOWNSTREAM_GONE): _P.ABANDONED,  # stop reading, settle what was used
    (_P.FAILOVER, _H.DOWNSTREAM_GONE): _P.ABANDONED,
    (_P.STREAMING, _H.DOWNSTREAM_GONE): _P.ABANDONED,
}

TERMINAL: Final = frozenset({_P.COMPLETE, _P.FAILED, _P.TRUNCATED, _P.ABANDONED})


def step(phase: Phase, happening: Happening) -> Phase:
    """The phase that follows; a pair that is not in the table is a defect and raises KeyError."""
    return TRANSITIONS[phase, happening]
