"""What was written is read back: samples, memory, settings, and the words for what is no result."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.speed import report, stored
from bench.speed.disturbance import Disturbance, Thrown
from bench.speed.memory import MemoryResult, Moment
from bench.speed.report import Result
from bench.speed.sections import Settings
from bench.speed.start import FRESH, PROCESSES, Start
from tests.unit.bench_speed.samples import repeats, sample

TAKEN = Disturbance(0.2, 0.01, 0.05)


def a_result() -> Result:
    memory = MemoryResult("gateway", 100, 90, [Moment("idle", 2048, 9, 1.5)], {"reset": 2})
    samples = [
        *repeats("json", "nginx", [100, 101]),
        replace(sample("sweep", "gateway", rps=60, cpu_us=12, errors=3), disturbance=TAKEN, rate=70.0),
    ]
    settings = Settings(repeats=2, targets=("nginx", "gateway"))
    thrown = [Thrown("json", TAKEN, {"target": "gateway", "load": {"errors": {"reset": 7}}})]
    conditions = {"date": "2026-01-02 03:04 UTC"}
    tls_memory = [replace(memory, streams=80)]
    starts = [Start("gateway", FRESH, 0, 0.5, 0.6, 0.4, dict.fromkeys(PROCESSES, 7), {"reset": 1}, TAKEN)]
    return Result(conditions, settings, samples, [memory], 50, ["a remark"], thrown, tls_memory, starts)


def test_a_result_survives_its_folder(tmp_path: Path) -> None:
    written = a_result()
    report.write(written, tmp_path)
    read = stored.load(tmp_path)
    assert (read.conditions, read.settings, read.rate) == (written.conditions, written.settings, 50)
    assert (read.memory, read.remarks, read.thrown) == (written.memory, ["a remark"], written.thrown)
    assert (read.tls_memory, read.starts) == (written.tls_memory, written.starts)
    assert read.goals() == written.goals()
    last, was = read.samples[-1], written.samples[-1]
    assert (last.rate, last.disturbance, last.load.errors) == (70.0, TAKEN, {"short_body": 3})
    assert (last.cpu_us_per_unit, last.busiest_us_per_unit) == (was.cpu_us_per_unit, was.busiest_us_per_unit)
    assert last.load.latency.quantile_us(0.99) == was.load.latency.quantile_us(0.99)
    assert last.load.ttft.total == 0


def test_an_older_result_lacks_what_was_not_known_then(tmp_path: Path) -> None:
    report.write(a_result(), tmp_path)
    raw = json.loads((tmp_path / "raw.json").read_text())
    del raw["settings"]["sweep"], raw["memory"][0]["moments"][0]["at_s"]
    raw["settings"]["forgotten"] = 1
    for one in raw["samples"]:
        del one["rate"], one["disturbance"]
        one["others"] = 0.25
    del raw["thrown"], raw["tls_memory"], raw["starts"]
    (tmp_path / "raw.json").write_text(json.dumps(raw))
    read = stored.load(tmp_path)
    assert read.settings.sweep == Settings().sweep
    assert read.memory[0].moments[0].at_s is None
    assert (read.samples[-1].rate, read.samples[-1].others, read.thrown) == (None, 0.25, [])
    assert (read.tls_memory, read.starts) == ([], [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"conditions": {}, "settings": 3}'])
def test_what_is_no_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "raw.json").write_text(text)
    with pytest.raises(stored.NotAResult, match=r"raw\.json: not a result"):
        stored.load(tmp_path)


def test_a_result_of_another_bench_says_of_which(tmp_path: Path) -> None:
    (tmp_path / "raw.json").write_text('{"conditions": {"command": "python -m bench.scaling"}}')
    with pytest.raises(stored.NotAResult, match=r"`python -m bench\.speed`, but of `python -m bench\.scaling`$"):
        stored.load(tmp_path)
    assert not stored.is_result(tmp_path)
    report.write(a_result(), tmp_path)
    assert stored.is_result(tmp_path)


def test_a_folder_without_a_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(stored.NotAResult, match="No such file or directory; a result is a folder"):
        stored.load(tmp_path)
