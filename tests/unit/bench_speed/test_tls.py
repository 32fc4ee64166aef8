"""What is measured with TLS, in how little time, and that both kinds of connections take their turns."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from bench.speed import targets, tls
from bench.speed.memory import MemoryRun
from bench.speed.progress import Progress
from bench.speed.sections import Bench, Sample, Settings
from bench.speed.targets import Running
from bench.speed.tls import Surrounded
from tests.unit.bench_speed.samples import again, sample


def test_nginx_and_the_subject_are_measured_where_they_speak_tls() -> None:
    known = targets.make(targets.NAMES, {})
    assert [target.name for target in tls.measured(known, "limited")] == ["nginx", "limited"]
    assert [target.name for target in tls.measured(known, "aiohttp")] == ["nginx"]


def test_the_section_takes_a_little_over_a_minute_at_most() -> None:
    assert 30 < tls.expected_s(Settings(), 2) <= 75


def test_what_is_asked_for_to_be_short_stays_short() -> None:
    short = tls.shorter(Settings(seconds=0.2, warmup=0.1, hold=5, hold_seconds=2.0))
    assert (short.seconds, short.warmup, short.hold, short.hold_seconds) == (0.2, 0.1, 5, 2.0)
    assert tls.shorter(Settings()).hold == tls.MOST_STREAMS


def test_kept_connections_come_before_new_ones_each_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, int]] = []

    def measured(_: Bench, section: str, target: Running, repeat: int, *__: object) -> Sample:
        asked.append((section, target.name, target.port))
        return sample(section, target.name, repeat=repeat)

    monkeypatch.setattr(Bench, "sample", measured)
    found = [Surrounded(Running(name, 1, 2), Running(name, 3, 4)) for name in ("nginx", "limited")]
    bench = Bench(Settings(repeats=2), (), tmp_path, Progress(1), again())
    samples = tls.requests(bench, found)
    kept = [("tls", "nginx", 1), ("tls", "limited", 1), ("tls", "limited", 1), ("tls", "nginx", 1)]
    assert asked == kept + [(f"{section}-new", name, 3) for section, name, _ in kept]
    assert [one.repeat for one in samples] == [0, 0, 1, 1] * 2


def test_memory_is_of_connections_that_are_kept_and_of_a_fresh_target_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[tuple[str, int, int]] = []

    def noted(name: str) -> Callable[[MemoryRun], None]:
        return lambda run: did.append((name, run._target.stream_port, run._streams))

    def start() -> AbstractContextManager[Surrounded]:
        did.append(("start", 0, 0))
        return nullcontext(surrounded)

    for name in ("open_streams", "large_answers"):
        monkeypatch.setattr(MemoryRun, name, noted(name))
    surrounded = Surrounded(Running("limited", 1, 2), Running("limited", 3, 4))
    settings = Settings(hold=500)
    found = tls.memory("limited", start, settings, 1_000, tmp_path, Progress(1))
    begun = ("start", 0, 0)
    assert did == [begun, ("open_streams", 2, 300), begun, ("large_answers", 2, 300)]
    assert (found.target, found.wanted_streams) == ("limited", 500)
