"""A result read back from its folder, so that a later question can be asked of an earlier run.

Only raw.json is read: report.md and report.html are made from the same values. Settings that a run did not have yet
take their defaults; distributions come back with their buckets and maximum, without the sum of what was recorded.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from bench.speed.disturbance import Disturbance, Thrown
from bench.speed.histogram import Histogram
from bench.speed.memory import MemoryResult, Moment
from bench.speed.native import LoadResult
from bench.speed.report import Result
from bench.speed.sections import Sample, Settings
from bench.speed.start import Start

RAW: Final = "raw.json"


class NotAResult(ValueError):
    """The folder holds no result of `bench.speed`, or one that cannot be read; the message names the file."""


def load(folder: Path) -> Result:
    """The result that was written to `folder`; NotAResult when there is none."""
    path = folder / RAW
    try:
        raw = json.loads(path.read_text())
        return _result(raw)
    except OSError as error:
        raise NotAResult(f"{path}: {error.strerror}; a result is a folder that `python -m bench.speed` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = _of_another(path) or f" ({error!r})"
        raise NotAResult(f"{path}: not a result of `python -m bench.speed`{why}") from None


def is_result(folder: Path) -> bool:
    """Whether it can be loaded."""
    try:
        load(folder)
    except NotAResult:
        return False
    return True


def _of_another(path: Path) -> str:
    """Which other bench says it wrote the file; empty when none does."""
    with suppress(ValueError, KeyError, TypeError):
        command: str = json.loads(path.read_text())["conditions"]["command"]
        return f", but of `{command}`"
    return ""


def _result(raw: Mapping[str, Any]) -> Result:
    return Result(
        conditions=dict(raw["conditions"]),
        settings=_settings(raw["settings"]),
        samples=[_sample(sample) for sample in raw["samples"]],
        memory=[_memory(result) for result in raw["memory"]],
        rate=raw["rate"],
        remarks=list(raw["remarks"]),
        thrown=[_thrown(one) for one in raw.get("thrown", ())],
        tls_memory=[_memory(result) for result in raw.get("tls_memory", ())],
        starts=[_start(one) for one in raw.get("starts", ())],
    )


def _settings(stored: Mapping[str, Any]) -> Settings:
    known = {field.name for field in fields(Settings)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Settings(**{name: value for name, value in values.items() if name in known})


def _histogram(stored: Mapping[str, Any] | None) -> Histogram:
    if stored is None:
        return Histogram()
    counts = {int(bucket): int(count) for bucket, count in stored["buckets"]}
    return Histogram(counts, stored["count"], 0, round(stored["max_us"] * 1e3))


def _sample(stored: Mapping[str, Any]) -> Sample:
    load = stored["load"]
    return Sample(
        section=stored["section"],
        target=stored["target"],
        repeat=stored["repeat"],
        load=LoadResult(
            seconds=load["seconds"],
            ok=load["ok"],
            rps=load["rps"],
            events=load["events"],
            terminated=load["terminated"],
            held=load["held"],
            errors=dict(load["errors"]),
            latency=_histogram(load.get("latency")),
            ttft=_histogram(load.get("ttft")),
            lag=_histogram(load.get("lag")),
            lateness=_histogram(load.get("lateness")),
            notes=tuple(load["notes"]),
        ),
        units=stored["units"],
        cpu_us=dict(enumerate(stored["cpu_us"])),  # which pid it was is forgotten
        disturbance=_disturbance(stored),
        rate=stored.get("rate"),
    )


def _disturbance(stored: Mapping[str, Any]) -> Disturbance:
    """Earlier results know only of the target's core."""
    return Disturbance(**stored["disturbance"]) if "disturbance" in stored else Disturbance(stored["others"])


def _thrown(stored: Mapping[str, Any]) -> Thrown:
    return Thrown(stored["section"], _disturbance(stored), stored["found"])


def _start(stored: Mapping[str, Any]) -> Start:
    return Start(**{**stored, "disturbance": _disturbance(stored)})


def _memory(stored: Mapping[str, Any]) -> MemoryResult:
    moments = [
        Moment(moment["when"], moment["rss_kb"], moment["descriptors"], moment.get("at_s"))
        for moment in stored["moments"]
    ]
    return MemoryResult(stored["target"], stored["wanted_streams"], stored["streams"], moments, dict(stored["errors"]))
