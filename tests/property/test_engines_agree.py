"""All engines give the same numbers: the model, the table by its long way and its short one, the scripts anywhere.

A few hundred random lives as the suite runs; `make fuzz` (HYPOTHESIS_PROFILE=fuzz) plays ten thousand of each kind.
All are seeded: a failure names the operation, its number, and the engine that differs.
"""

import os
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from gateway.limiter.quick import QuickTable
from gateway.limiter.table import Table
from tests.fakes.limit_engines import lua_engine, store_engine
from tests.fakes.limit_lives import lives
from tests.fakes.limit_model import LimitModel
from tests.fakes.limit_sequences import Operation, play, sequence
from tests.fakes.limit_table import TimedTable
from tests.fakes.store_server import StoreConnection, any_store, connect

FUZZ = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
LIVES = 10_000 if FUZZ else 150
LENGTH = 25


@pytest.fixture(scope="module")
def store() -> Iterator[StoreConnection]:
    with any_store() as url, connect(url) as connection:
        yield connection


@pytest.mark.slow
@pytest.mark.parametrize("calls", [sequence, lives])
def test_every_engine_gives_the_same(calls: Callable[[int], Iterator[Operation]], store: StoreConnection) -> None:
    tables = [TimedTable(kind=Table, checked=True), TimedTable(kind=QuickTable, checked=True)]
    for seed in range(LIVES):
        for table in tables:
            table.forget()
        scripts = [lua_engine(51), lua_engine(54), store_engine(store, f"agree-{calls.__name__}-{seed}")]
        operations = islice(calls(seed), LENGTH)
        assert play(operations, [LimitModel(), *tables, *scripts]) == LENGTH
        long, short = (table.counts() for table in tables)
        assert short == long, f"{calls.__name__}({seed})"
