"""A journal that cannot be written for a while: what waits until it can, what was lost, and the records that say so.

Models one outage, from the first failed write or sync until everything that waited is in. Nothing can be written when
it begins, so its two mode records come when it ends: `entered` first, with the time it really began, then what
waited, then `left` with what was lost and why.

Invariants: what waits is bounded in bytes, beyond that it is counted lost; order is kept; every loss stands in some
`left` record, also one that is told of after the outage was over. Left out: when to try again (`journal.py`).
"""

import errno
import json
import time
from collections import Counter, deque
from typing import Final

from gateway.journal.line import content_of
from gateway.record import Kind, Record
from gateway.units import NS_PER_US

SUBJECT: Final = "journal_failing"
_KIND_AT: Final = len('{"kind":"')
_BATCH_BYTES: Final = 256 * 1024


class Outage:
    """What outages leave to be told, one after the other; also used before the first, when there is nothing."""

    def __init__(self, backlog_bytes: int) -> None:
        self.backlog_bytes = backlog_bytes
        self.lost = 0  # records given up, over all outages
        self._untold = Counter[str]()  # those by kind that no `left` record has told yet
        self._waiting = deque[bytes]()
        self._waiting_bytes = 0
        self._at_us = 0
        self._began_ns = 0  # 0: over
        self._errno = 0
        self._entered_told = True

    def begin(self, error: OSError) -> None:
        """The journal cannot be written any more, for this reason."""
        self._at_us = time.time_ns() // NS_PER_US
        self._began_ns = time.monotonic_ns()
        self._errno = error.errno or errno.EIO
        self._entered_told = False

    def wait(self, content: bytes) -> None:
        """Keep a record until it can be written, or count it lost when too much waits."""
        if self._waiting_bytes + len(content) > self.backlog_bytes:
            self.lose(kind_of(content))
            return
        self._waiting.append(content)
        self._waiting_bytes += len(content)

    def lose(self, kind: str) -> None:
        """Count a record of this kind that will never be written."""
        self.lost += 1
        self._untold[kind] += 1

    def give_up(self) -> None:
        """Count as lost what still waits, and from now on whatever comes."""
        self.backlog_bytes = 0
        while self._waiting:
            self.lose(kind_of(self._waiting.popleft()))
        self._waiting_bytes = 0

    def owed(self) -> int:
        """How many lost records no record has told of."""
        return self._untold.total()

    def batch(self) -> list[bytes]:
        """What to write next: as much of what waits as one turn of the loop may take, between the two mode records."""
        contents = [] if self._entered_told else [self._mode(self._at_us, "entered", {"errno": self._reason()})]
        size = 0
        for content in self._waiting:
            size += len(content)
            if size > _BATCH_BYTES and contents:
                return contents
            contents.append(content)
        contents.append(self._left())
        return contents

    def wrote(self, count: int) -> bool:
        """Note that the first `count` of a `batch` were written; True when `left` was among them: all is told."""
        if count and not self._entered_told:
            self._entered_told = True
            count -= 1
        while count and self._waiting:
            self._waiting_bytes -= len(self._waiting.popleft())
            count -= 1
        if not count:
            return False
        self._untold.clear()
        self._began_ns = 0
        return True

    def _left(self) -> bytes:
        now_ns = time.monotonic_ns()
        detail = {
            "lost": self._untold.total(),
            "lost_by_kind": dict(self._untold),
            "failed_us": (now_ns - self._began_ns) // NS_PER_US if self._began_ns else 0,
            "errno": self._reason(),
        }
        return self._mode(time.time_ns() // NS_PER_US, "left", detail)

    def _mode(self, at_us: int, action: str, detail: dict[str, object]) -> bytes:
        return content_of(Record(Kind.MODE, "", at_us, action=action, subject=SUBJECT, detail=json.dumps(detail)))

    def _reason(self) -> str:
        return errno.errorcode.get(self._errno, "")


def kind_of(content: bytes) -> str:
    """The kind of an encoded record: it is the first field of every one."""
    return content[_KIND_AT : content.index(b'"', _KIND_AT)].decode()
