"""A process that is killed between two stores to the limit table, at whichever one is told.

`killed` forks: in the child every store of a word to the table is counted, those that one call packs word by word, and
just before the one it is told the child kills itself, with the mutex in hand. If the work needs fewer stores, it dies
after the last one, before it gives the mutex back; then `killed` tells how many there were.
"""

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any, Final

from gateway.limiter import holds, layout, quick
from gateway.limiter.layout import ID_BYTES, ints
from gateway.limiter.table import Table
from gateway.segment import WORD

_STORES_BYTES = 4


def killed(table: Table, work: Callable[[Table], object], before_store: int) -> int | None:
    """Do the work in a child that dies just before that store, counted from 1; how many there were, if it did not."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            _Watch(table, before_store, writing)
            work(table)
        except BaseException:  # noqa: BLE001 - the child never returns into the parent's test
            traceback.print_exc()
        os._exit(1)  # it should have died
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the work raised, or kept the mutex: see above"
    return int.from_bytes(said, "little") if said else None


class _Words:
    """A table's words; every store is one more."""

    def __init__(self, real: memoryview, before_store: int) -> None:
        self.real = real
        self.stores = 0
        self._before_store = before_store

    def __getitem__(self, at: Any) -> Any:  # noqa: ANN401 - an int or a slice, as of a memoryview
        return self.real[at]

    def __setitem__(self, at: int, word: int) -> None:
        self.stores += 1
        if self.stores == self._before_store:
            os.kill(os.getpid(), signal.SIGKILL)
        self.real[at] = word


def _get(get: Callable[[memoryview, int], Any]) -> Callable[[Any, int], Any]:
    return lambda words, at: get(words.real, at)


def _put(words: _Words, at: int, *values: int) -> None:
    for index, value in enumerate(values):
        words[at // WORD + index] = value


def _put_hold(words: _Words, at: int, key: bytes, *values: int) -> None:
    _put(words, at, *ints(key))
    _put(words, at + ID_BYTES, *values)


_GETS: Final = [_get(get) for get in layout.GET]


class _Watch:
    """Puts itself between a table and its words, in a process that is going to die."""

    def __init__(self, table: Table, before_store: int, pipe: int) -> None:
        words: Any = _Words(table.words, before_store)
        self._words = words
        self._pipe = pipe
        for part in (table, table.rows, table.rows.index, table.holds, table.holds.index):
            part.words = words
        vars(table)["_unlock"] = self._die_at_the_end
        layout.GET[:] = _GETS
        layout.PUT[:] = [_put] * len(layout.PUT)
        layout.PUT_HOLD[:] = [_put_hold] * len(layout.PUT_HOLD)
        get_hold: list[Any] = layout.GET_HOLD
        get_hold[:] = [_get(get) for get in get_hold]
        vars(holds)["GET_HEAD"] = _get(layout.GET_HEAD)
        vars(quick).update(_get2=_GETS[2], _get4=_GETS[4], _put3=_put, _put4=_put)

    def _die_at_the_end(self, _mutex: object) -> int:
        os.write(self._pipe, self._words.stores.to_bytes(_STORES_BYTES, "little"))
        os.kill(os.getpid(), signal.SIGKILL)
        return 0
