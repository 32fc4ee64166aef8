"""Whether the store is asked at all: a breaker, as a table of states.

CLOSED: calls go to the store. OPEN: they fail at once, and the store rests. HALF_OPEN: calls still fail at once while
a probe finds out whether the store can do its work again; no caller's request is ever the probe. A strike is a turn in
which calls came late or failed and none was answered; STRIKES of them in a row open the breaker, a lost connection
opens it at once. Rests grow from REST_S to `max_rest_s`, each drawn at random from its upper half, so that a fleet does
not come back as one.

Absent pairs are defects and raise. Left out: the clock, and the probe itself (`store.py`).
"""

from enum import IntEnum
from typing import Final

STRIKES: Final = 3
REST_S: Final = 0.1
MAX_REST_S: Final = 5.0
_DOUBLINGS: Final = 6  # 0.1 s, 0.2 s … 6.4 s: beyond MAX_REST_S


class BreakerState(IntEnum):
    """Whether calls go to the store."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class BreakerEvent(IntEnum):
    """What moves it."""

    STRUCK_OUT = 0  # too many strikes in a row
    LOST = 1  # the connection is gone
    RESTED = 2
    PROBED = 3  # the probe was answered in time
    FAILED = 4  # it was not, or there is no connection to send it on


_S, _E = BreakerState, BreakerEvent

TRANSITIONS: Final[dict[tuple[BreakerState, BreakerEvent], BreakerState]] = {
    (_S.CLOSED, _E.STRUCK_OUT): _S.OPEN,
    (_S.CLOSED, _E.LOST): _S.OPEN,
    (_S.OPEN, _E.LOST): _S.OPEN,  # it was kept after it had struck out, and broke while resting
    (_S.OPEN, _E.RESTED): _S.HALF_OPEN,
    (_S.HALF_OPEN, _E.LOST): _S.HALF_OPEN,  # the probe will fail of it
    (_S.HALF_OPEN, _E.PROBED): _S.CLOSED,
    (_S.HALF_OPEN, _E.FAILED): _S.OPEN,
}


class Breaker:
    """One store's breaker, as one worker sees it. It begins OPEN: the first probe closes it."""

    def __init__(self, *, max_rest_s: float = MAX_REST_S) -> None:
        self._max_rest_s = max_rest_s
        self.state = BreakerState.OPEN
        self.trips = 0  # times it opened
        self._strikes = 0
        self._failures = 0

    @property
    def closed(self) -> bool:
        """Whether calls go to the store."""
        return self.state is BreakerState.CLOSED

    def on(self, event: BreakerEvent) -> None:
        """Move; a pair that is not in the table is a defect and raises KeyError."""
        before = self.state
        self.state = TRANSITIONS[before, event]
        if event is BreakerEvent.PROBED:
            self._strikes = self._failures = 0
        elif event is BreakerEvent.FAILED:
            self._failures += 1
        if before is BreakerState.CLOSED:
            self.trips += 1

    def answered(self) -> None:
        """A call was answered in time."""
        self._strikes = 0

    def strike(self) -> bool:
        """Calls came late or failed, and none was answered; True if that opened the breaker."""
        if not self.closed:
            return False
        self._strikes += 1
        if self._strikes < STRIKES:
            return False
        self.on(BreakerEvent.STRUCK_OUT)
        return True

    def rest_s(self, chance: float) -> float:
        """How long to rest before the next probe; `chance` is a random number in [0, 1)."""
        if not self._failures:
            return REST_S * chance  # a store that restarts quickly is back quickly
        longest = min(REST_S * (1 << min(self._failures, _DOUBLINGS)), self._max_rest_s)
        return longest * (0.5 + chance / 2)
