"""Which end users a journal is counted for one by one: as many as the node's table has rows for, the others together.

Callers name end users, so nothing but this bounds how many there are. The rule is the table's own (`rows.py`): buckets
that differ in their end user alone are a *set*; a set has at most `each` accounts, and never more than are still free
of `most`; who gets none shares one with the others of its set, `…|end_user=*`. Given back, that is charged to the row
which they share in the table. Who is counted there does not show in a journal, so it may be somebody else than in the
table. Nothing is lost by it: the shared account counts every charge and refills as one, so all of a set have used as
much of a budget as one by one, and of a rate no less, but that who gets an account after having shared one refills in
both, as in the table.

Invariants: nobody who has an account loses it to another; what is reserved in one account is taken back from there.
Left out: a store, which has a bucket for each end user (`each` and `most` unbounded), and the accounts (`replay.py`).
"""

import sys
from collections.abc import Container, Iterable
from typing import Final

from gateway.limiter.recorded import Key
from gateway.limiter.rows import EVERYBODY, shared_name

UNBOUNDED: Final = sys.maxsize


class Crowd:
    """The end users of one ledger who are counted one by one."""

    def __init__(self, each: int = UNBOUNDED, most: int = UNBOUNDED, known: Iterable[Key] = ()) -> None:
        self.folds = False  # whether anybody was ever counted with others
        self._each = each
        self._most = most
        self._sizes: dict[Key, int] = {}
        self._count = 0
        for key in known:
            self._know(key)

    def of(self, known: Iterable[Key]) -> "Crowd":
        """The same bounds for these."""
        return Crowd(self._each, self._most, known)

    def enter(self, key: Key, reserved: Container[Key]) -> Key:
        """The account that a bucket without one gets, or that of its set: also where its hold has `reserved` there."""
        shared = shared_key(key)
        if shared is None:
            return key
        size = self._sizes.get(shared, 0)
        if size >= min(self._each, self._most - self._count) or shared in reserved:
            self.folds = True
            return shared
        self._sizes[shared] = size + 1
        self._count += 1
        return key

    def leave(self, key: Key) -> None:
        """It has no account any more."""
        shared = shared_key(key)
        if shared is not None:
            self._sizes[shared] -= 1
            self._count -= 1
            if not self._sizes[shared]:
                del self._sizes[shared]

    def _know(self, key: Key) -> None:
        self.folds |= EVERYBODY in key.bucket
        shared = shared_key(key)
        if shared is not None:
            self._sizes[shared] = self._sizes.get(shared, 0) + 1
            self._count += 1


def shared_key(key: Key) -> Key | None:
    """What an end user's bucket shares with the others of its set; None for any other bucket."""
    shared = shared_name(key.bucket)
    return Key(key.kind, shared, key.start_ms) if shared else None
