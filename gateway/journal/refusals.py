"""Refusals that are counted instead of told one by one, so that a flood of them does not fill the disk.

Models, for the seconds that are not over yet, how many refusals there were of each reason and key. Always counted:
callers nobody knows. Told one by one up to a rate per reason, and counted beyond it: rate limits (429) of known
callers, and at fifty times that rate their other refusals, which people look for.

Invariants: a refusal is told or counted, never both and never neither; a second holds a bounded number of rows, and
what is beyond folds into the reason's row without a key; a second that is over is given out once. Pure: a record
brings its own time. Left out: writing (`scribe.py`).
"""

from collections import Counter
from typing import Final, NamedTuple

from gateway.record import Ending, Kind, Record
from gateway.units import US_PER_S

MAX_ROWS: Final = 1_000  # of one second
OTHERS: Final = 50  # times the rate of 429s, for every other reason
_TOO_MANY: Final = 429


class _Row(NamedTuple):
    reason: str
    org: str = ""
    team: str = ""
    key_id: str = ""


class _Second:
    """What came in one second: how many of each reason were told, and the counts of the others."""

    __slots__ = ("rows", "told")

    def __init__(self) -> None:
        self.told = Counter[str]()
        self.rows = Counter[_Row]()


class Refusals:
    """Counts per second. `per_s`: how many 429s of one reason are told one by one in a second; may be changed."""

    def __init__(self, per_s: int) -> None:
        self.per_s = per_s
        self._seconds: dict[int, _Second] = {}

    def counted(self, record: Record, *, known: bool) -> bool:
        """True: this refusal is counted here. False: write it as it is."""
        second = self._seconds.setdefault(record.at_us // US_PER_S, _Second())
        if known and self._may_tell(second, record):
            return False
        row = _Row(record.error, record.org, record.team, record.key_id) if known else _Row(record.error)
        if row not in second.rows and len(second.rows) >= MAX_ROWS:
            row = _Row(record.error)
        second.rows[row] += 1
        return True

    def take(self, now_s: int) -> list[Record]:
        """The counts of the seconds before `now_s`, in order; they are forgotten here."""
        over = sorted(second for second in self._seconds if second < now_s)
        return [
            _record(second, row, count)
            for second in over
            for row, count in sorted(self._seconds.pop(second).rows.items())
        ]

    def _may_tell(self, second: _Second, record: Record) -> bool:
        second.told[record.error] += 1
        return second.told[record.error] <= self.per_s * (1 if record.status == _TOO_MANY else OTHERS)


def _record(second: int, row: _Row, count: int) -> Record:
    return Record(
        Kind.OUTCOME,
        "",
        second * US_PER_S,
        org=row.org,
        team=row.team,
        key_id=row.key_id,
        decision="refuse",
        ending=Ending.REFUSED.value,
        error=row.reason,
        action="refusals",
        subject=row.reason,
        count=count,
    )
