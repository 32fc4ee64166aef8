"""Forgetting people: their keys are destroyed, the usage tables made to name nobody, and the journal is told of it.

The keys go first: from then on nothing that is read or written names the person from the journal, and the tables can
be cleaned for good. A legal hold forbids all of it. The record of an erasure names the organisation and, for a user,
the tag that stands in key files (`keytable.py`), never the name: a record cannot be erased.

Invariants: every erasure that destroyed anything, or may have, is recorded, with what it left undone; one that was cut
short is finished by running it again. Left out: copies that have left this node, and the other nodes of a fleet, each
of which holds its own keys.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gateway.control.database.trouble import DatabaseTrouble
from gateway.control.holds import Hold, Holds, blocks_erasure
from gateway.journal.erase import NotErased, erase
from gateway.journal.keytable import NoSalt, Tags, read_salt
from gateway.journal.layout import sealing_of
from gateway.record import Kind, Record


class ErasureRefused(Exception):
    """Nothing was erased, and nothing will be until what the message says has changed."""


class ErasureUnfinished(Exception):
    """Some of it was not done; the message says what was and what was not. Running it again does the rest."""


class Erased(NamedTuple):
    """What an erasure came to: keys destroyed, and rows of the usage tables that named somebody and do not any more."""

    keys: int
    usage_rows: int


Forget = Callable[[str, str], int]
"""Make the usage tables forget a user of an organisation, "" all of them; how many rows. Raises DatabaseTrouble."""


class Erasure:
    """Erases on one node. `append` puts a record into the journal, and raises OSError when it cannot."""

    def __init__(
        self,
        state_dir: Path,
        holds: Holds,
        forget: Forget,
        append: Callable[[Record], None],
        now_us: Callable[[], int],
    ) -> None:
        self._sealing = sealing_of(state_dir)
        self._holds = holds
        self._forget = forget
        self._append = append
        self._now_us = now_us

    def run(self, org: str, user: str, actor: str) -> Erased:
        """Forget a user of an organisation, or with `user` "" all of its users. Blocks.

        Raises ErasureRefused, HoldsUnreadable, ErasureUnfinished.
        """
        if not actor.strip():
            raise ErasureRefused("an erasure needs the name of who asks for it")
        with self._holds.standing() as holds:
            _allow(org, holds)
            return self._erase(org, user, actor)

    def _erase(self, org: str, user: str, actor: str) -> Erased:
        keys, rows, undone = 0, 0, list[str]()
        try:
            keys = erase(self._sealing, org=org, user=user)
        except NotErased as error:
            keys = error.destroyed
            undone.append(error.left)
        try:
            rows = self._forget(org, user)
        except DatabaseTrouble as error:
            undone.append(f"the usage tables still name them: {error}")
        try:
            self._append(self._record(org, user, actor, Erased(keys, rows), undone))
        except OSError as error:
            undone.append(f"the journal could not be told: {error}")
        if undone:
            done = f"{keys} keys are destroyed, {rows} rows of usage name nobody now"
            raise ErasureUnfinished(f"{done}, but: {'; '.join(undone)}. Mend it and run this again")
        return Erased(keys, rows)

    def _record(self, org: str, user: str, actor: str, erased: Erased, undone: list[str]) -> Record:
        detail: dict[str, object] = {"keys": erased.keys, "usage_rows": erased.usage_rows}
        if user:
            detail["user_tag"] = self._tag(org, user)
        if undone:
            detail["undone"] = len(undone)
        return Record(
            Kind.ADMIN, "", self._now_us(), action="journal.erase", subject=org, actor=actor, detail=json.dumps(detail)
        )

    def _tag(self, org: str, user: str) -> str:
        """By what the salt's holder can tell later who was forgotten; "" where there is no salt, and so no key."""
        try:
            return Tags(read_salt(self._sealing)).user(org, user).hex()
        except (NoSalt, OSError):
            return ""


def _allow(org: str, holds: tuple[Hold, ...]) -> None:
    held = next((hold for hold in holds if blocks_erasure(hold, org)), None)
    if held is not None:
        raise ErasureRefused(
            f"legal hold {held.id} ({held.why}) keeps the data of {held.org or 'every organisation'}: "
            f"release it first, if it may be: gateway journal hold release {held.id}"
        )
