"""Revoked keys in the journal: each is told there once, whoever revoked it and whoever was down meanwhile.

What is revoked stands in one file (`config/revocations.py`), to which anybody who has the node may add while control is
away. Which of these the journal knows stands in a second file of the same form, beside the chains, so that who moves a
journal away begins another that is told of all. A key is added to it when its record is on the disk. A crash in between
leaves a record that the second file does not know of; therefore control's chain is searched before the first key is
told, and again after every attempt of which it is not known what came of it.

Invariants: a key gets one record, also when it is revoked twice; a record counts once it is signed, so on the disk.
Left out: that a revoked key is refused, which depends on nothing here.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.config.revocations import Revocations
from gateway.control.publisher import OPERATOR
from gateway.journal import layout
from gateway.journal.read import START
from gateway.journal.search import Query, end_of, search
from gateway.record import Kind, Record
from gateway.units import NS_PER_MS, NS_PER_US

ACTION: Final = "key.revoke"
_log: Final = logging.getLogger("gateway.control")


class Revokers:
    """Who has revoked keys by way of control; everybody else did it as who has the node. For the loop to change."""

    def __init__(self) -> None:
        self.busy: set[str] = set()  # keys that are being revoked at the moment: who asked says so when it is done
        self.actors: dict[str, str] = {}

    @contextmanager
    def revoking(self, key_id: str) -> Iterator[None]:
        """While somebody revokes a key: if it comes to that, `revoked` says who it was."""
        self.busy.add(key_id)
        try:
            yield
        finally:
            self.busy.discard(key_id)

    def revoked(self, key_id: str, actor: str) -> None:
        """It came to that."""
        self.actors[key_id] = actor


class RevokedKeys:
    """Tells the journal of revoked keys. `turn` blocks, in any thread.

    `write` returns when a record is on the disk, and raises OSError; `signed_seq` is the last signed line of control's
    chain.
    """

    def __init__(
        self,
        state_dir: Path,
        write: Callable[[Record], None],
        signed_seq: Callable[[], int],
        revokers: Revokers,
        clock_us: Callable[[], int],
    ) -> None:
        self._journal = layout.journal_of(state_dir)
        self._revoked = Revocations(state_dir)
        self._told = Revocations(self._journal)
        self._write, self._signed_seq, self._clock_us = write, signed_seq, clock_us
        self._revokers = revokers
        self._turning = threading.Lock()
        self._sure = False  # all records of revocations that are in the chain are known
        self._searched = START  # up to here they are in any case: a full disk makes it look again and again
        self._problem = ""

    def turn(self) -> None:
        """Tell of every key that is not told yet; what the disk refuses is said, and tried again next time."""
        with self._turning:
            try:
                self._tell()
            except OSError as error:
                self._sure = False
                if str(error) != self._problem:
                    _log.warning("revoked keys are not told to the journal, tried again later: %s", error)
                self._problem = str(error)
            else:
                self._problem = ""

    def _tell(self) -> None:
        self._revoked.poll()
        self._told.poll()
        if self._revoked.ids <= self._told.ids or not (self._sure or self._found()):
            return
        revoked_ms = self._revoked.times_ms()
        for key_id in sorted(revoked_ms.keys() - self._told.ids - self._revokers.busy):
            self._write(self._record(key_id, revoked_ms[key_id]))
            self._remember(key_id)

    def _found(self) -> bool:
        """Remember what the chain knows; False while some of that is not signed yet."""
        query = Query(kind=Kind.ADMIN.value, also=lambda record: record.action == ACTION)
        end = end_of(self._journal, layout.CONTROL)
        found = search(self._journal, layout.CONTROL, query, self._searched, end)
        known = {entry.record.subject: entry.seq for entry in found}
        if max(known.values(), default=-1) > self._signed_seq():
            return False
        for key_id in sorted((self._revoked.ids & known.keys()) - self._told.ids):
            self._remember(key_id)
        self._searched, self._sure = end, True
        return True

    def _remember(self, key_id: str) -> None:
        self._told.add(key_id, self._clock_us() * NS_PER_US // NS_PER_MS)
        self._told.poll()

    def _record(self, key_id: str, revoked_ms: int) -> Record:
        detail = json.dumps({"revoked_at_ms": revoked_ms})
        actor = self._revokers.actors.get(key_id, OPERATOR)
        return Record(Kind.ADMIN, "", self._clock_us(), action=ACTION, subject=key_id, actor=actor, detail=detail)
