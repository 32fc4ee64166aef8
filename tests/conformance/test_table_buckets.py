"""Every row of corpus/bucket on the table in shared memory, by its long way and with the short one."""

from typing import Any

import pytest

from gateway.limiter.quick import QuickTable
from gateway.limiter.table import Table
from tests.conformance.test_buckets import Case, Run, cases
from tests.fakes.limit_table import TimedTable


@pytest.fixture(params=[Table, QuickTable])
def engine(request: pytest.FixtureRequest) -> TimedTable:
    kind: Any = request.param
    return TimedTable(kind=kind, checked=True)


@pytest.mark.parametrize("case", list(cases()))
def test_the_table_gives_what_the_corpus_says(case: Case, engine: TimedTable) -> None:
    run = Run(engine, case["buckets"])
    for step in case["steps"]:
        run.step(step)
