"""The budgets of keys by their ids, as far as somebody asks: the index of keys knows them by their secrets only.

Finding an id takes a pass over all keys, which is seconds where there are a million. So what is asked for is noted and
looked up by all at once, in a thread, and passes take at most one part in PASS_SHARE of the time. What was found holds
until there are other keys, and only what was asked for is kept.

Left out: which ids matter (`budget_events.py`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance

PASS_SHARE: Final = 20


class KeyAllowances:
    """`keys` tells the index in use, None while there is none. Belongs to one loop."""

    def __init__(
        self, keys: Callable[[], Iterable[KeyRecord] | None], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._clock_s = clock_s
        self._of: Iterable[KeyRecord] | None = None  # the index that `_known` is about
        self._known: dict[str, Allowance | None] = {}
        self._asked: set[str] = set()
        self._not_before_s = 0.0

    def find(self, key_id: str) -> Allowance | None:
        """The allowance of a key; None where it has none, or where it is not known before the next `look`."""
        self._follow()
        if key_id not in self._known:
            self._asked.add(key_id)
        return self._known.get(key_id)

    async def look(self) -> None:
        """Find what was asked for, unless that has taken too much of the time already."""
        self._follow()
        index, asked, began_s = self._of, frozenset(self._asked), self._clock_s()
        if index is None or not asked or began_s < self._not_before_s:
            return
        found = await asyncio.to_thread(_found, index, asked)
        now_s = self._clock_s()
        self._not_before_s = now_s + PASS_SHARE * (now_s - began_s)
        if self._keys() is index:
            self._known |= dict.fromkeys(asked) | found
            self._asked -= asked

    def _follow(self) -> None:
        keys = self._keys()
        if keys is not self._of:
            self._asked |= self._known.keys()
            self._known.clear()
            self._of = keys


def _found(keys: Iterable[KeyRecord], ids: frozenset[str]) -> dict[str, Allowance | None]:
    return {record.id: record.allowance for record in keys if record.id in ids}
