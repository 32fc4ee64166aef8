"""Samples belong to the stage of the journey that asked for what was done, and every stage is there to be found."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.profile import journey, stacks
from bench.profile.stacks import Frame, Stack

GATEWAY = Path(__file__).parents[4] / "gateway"
WORKER = "main (gateway/cli/main.py:1);run_worker (gateway/process/worker.py:90);Runner.run (asyncio/runners.py:118)"
SERVE = f"{WORKER};DownstreamConnection._serve (gateway/listener/connection.py:10)"
RUN = f"{SERVE};run (gateway/pipeline.py:150)"
FINISH = f"{SERVE};Listener.finished (gateway/listener/app.py:90);finish (gateway/pipeline.py:180)"
PROVIDER = f"{WORKER};Connection.data_received (gateway/relay/upstream.py:5)"


@pytest.mark.parametrize(
    ("stack", "stage"),
    [
        (f"{WORKER};DownstreamConnection.data_received (gateway/listener/connection.py:7)", journey.LISTEN),
        (f"{SERVE};identify (gateway/pipeline.py:145);digest (gateway/config/keys.py:3)", journey.IDENTIFY),
        (f"{RUN};_read (gateway/pipeline.py:9);read_object (gateway/dialects/jsonguard.py:3)", journey.ROUTE),
        (f"{RUN};_reserve (gateway/pipeline.py:9);QuickTable.reserve (gateway/limiter/quick.py:3)", journey.RESERVE),
        (f"{RUN};_decide (gateway/pipeline.py:9);SealKey.seal (gateway/journal/seal.py:3)", journey.DECISION),
        (
            f"{RUN};Transfer.run (gateway/relay/stream.py:9);Connection.start (gateway/relay/upstream.py:3)",
            journey.RELAY,
        ),
        (f"{PROVIDER};of_answer (gateway/dialects/openai/usage.py:3)", journey.RELAY),
        (
            f"{PROVIDER};Responder.whole (gateway/listener/respond.py:3);limit_headers (gateway/limiter/headers.py:1)",
            journey.ANSWER,
        ),
        (f"{PROVIDER};DownstreamConnection.write (gateway/listener/connection.py:3)", journey.ANSWER),
        (f"{FINISH};_settle (gateway/pipeline.py:9);QuickTable.settle (gateway/limiter/quick.py:3)", journey.SETTLE),
        (f"{FINISH};price_of (gateway/spending.py:9);cost (gateway/ledger/cost.py:3)", journey.SETTLE),
        (f"{FINISH};compose (gateway/journal/line.py:3)", journey.OUTCOME),
        (f"{FINISH};Recorder.exchange (gateway/telemetry/recorder.py:3);bisect (bisect.py:1)", journey.METRICS),
        (f"{WORKER};Disk.pwrite (gateway/journal/disk.py:3)", journey.WRITTEN),
        (f"{WORKER};Limiter.renew (gateway/limiter/limiter.py:3)", journey.LIMITER),
        (f"{RUN};dumps (json/__init__.py:3)", journey.BETWEEN),
        (f"{WORKER};Wheel._turn (gateway/wheel.py:3)", journey.REST),
        (WORKER, stacks.LOOP),
        ("run (asyncio/runners.py:118)", stacks.LOOP),
    ],
)
def test_the_innermost_stage_has_the_sample(stack: str, stage: str) -> None:
    assert journey.stage(stacks.parse(f"{stack} 1")[0]) == stage


def test_every_stage_has_a_place_in_the_order() -> None:
    marks = (*journey.MARKS, *journey.PACKAGES)
    assert {mark.stage for mark in marks} == set(journey.JOURNEY)
    assert len(set(journey.JOURNEY)) == len(journey.JOURNEY)


def functions(path: Path) -> Iterator[str]:
    """As a profiler names them: those of a class by its name."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{own.name}" for own in node.body if isinstance(own, ast.FunctionDef))


@pytest.mark.parametrize("mark", [*journey.MARKS, *journey.PACKAGES], ids=lambda mark: f"{mark.path}: {mark.stage}")
def test_what_stands_for_a_stage_is_in_the_gateway(mark: journey.Mark) -> None:
    assert (GATEWAY / mark.path).exists()
    assert not mark.functions or set(mark.functions) <= set(functions(GATEWAY / mark.path))


def test_the_pipelines_functions_are_all_of_some_stage() -> None:
    """A new one is to be given to a stage, or to be known as what holds them together."""
    helpers = {"run", "_dedicated", "_raw_limits", "_answer_models", "_shown"}
    between = {
        name
        for name in functions(GATEWAY / "pipeline.py")
        if "." not in name and journey.stage(Stack([Frame(name, "gateway/pipeline.py")], 1)) == journey.BETWEEN
    }
    assert between == helpers
