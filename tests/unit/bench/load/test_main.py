"""Words become a load; two runs become findings and a status."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from bench import program
from bench.load import __main__ as load
from bench.load import drive
from bench.load.drive import Entry, Outcome, Size
from bench.load.orders import Orders
from bench.load.profiles import BY_NAME
from bench.speed.disturbance import Disturbance, Watch
from bench.speed.launch import CannotRun
from bench.speed.sections import CLIENT_CORE


def outcome(p99_ms: float) -> Outcome:
    return Outcome([Entry("POST", "chat short", 500, 0, 1, p99_ms, p99_ms, 60)], {})


class Runs:
    """Locust, played: one outcome a run, and with what it was started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.seen: list[tuple[list[str], Orders]] = []
        monkeypatch.setattr(drive, "program", lambda _: "locust")
        monkeypatch.setattr(drive, "run", self.run)

    def run(self, words: list[str], orders: Orders, size: Size, folder: Path, core: int) -> Outcome:
        assert folder.is_dir()
        assert (size.seconds, core) == (6.0, CLIENT_CORE)
        self.seen.append((words, orders))
        return self.outcomes[len(self.seen) - 1]


GIVEN = ["chat", "--seconds", "6", "--url", "http://gateway", "--key", "gw-1"]


def test_a_gateway_that_runs_is_compared_with_what_stands_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, outcome(10), outcome(30))
    assert load.main([*GIVEN, "--direct-url", "http://direct"]) == load.HOLDS
    hosts = [words[words.index("--host") + 1] for words, _ in runs.seen]
    assert hosts == ["http://direct", "http://gateway"]
    assert {(orders.key, orders.rate_per_user) for _, orders in runs.seen} == {("gw-1", 1.5)}


def test_a_missed_threshold_is_a_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Runs(monkeypatch, outcome(10), outcome(90))
    assert load.main([*GIVEN, "--direct-url", "http://direct"]) == load.MISSED
    assert "| p99 added, chat short | +80 ms" in capsys.readouterr().out


def test_without_a_direct_run_latency_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, outcome(900))
    assert load.main(GIVEN) == load.HOLDS
    assert len(runs.seen) == 1


def test_the_quiet_ones_run_alone_first_as_many_as_later(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, outcome(10), outcome(10))
    words = ["noisy_neighbour", *GIVEN[1:], "--neighbours-key", "gw-2"]
    assert load.main(words) == load.HOLDS
    alone, beside = (words for words, _ in runs.seen)
    assert (alone[-1], beside[-1] == "Quiet") == ("Quiet", False)
    users = [int(words[words.index("--users") + 1]) for words in (alone, beside)]
    assert users == [BY_NAME["noisy_neighbour"].users // 2, BY_NAME["noisy_neighbour"].users]


def test_the_page_is_in_front_of_the_gateway_and_ctrl_c_is_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def served(words: list[str], orders: Orders, _folder: Path, core: int, ready: Callable[[], None]) -> None:
        assert (words[words.index("--host") + 1], orders.key, core) == ("http://gateway", "gw-1", CLIENT_CORE)
        ready()
        raise KeyboardInterrupt

    monkeypatch.setattr(drive, "program", lambda _: "locust")
    monkeypatch.setattr(drive, "serve", served)
    assert load.main([*GIVEN, "--web"]) == load.HOLDS
    assert "http://127.0.0.1:8089, in front of http://gateway; Ctrl-C ends it" in capsys.readouterr().err


def test_workers_elsewhere_are_told_their_orders_without_the_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Runs(monkeypatch, outcome(10))
    assert load.main([*GIVEN, "--remote-workers", "2"]) == load.HOLDS
    said = capsys.readouterr().err
    assert "waiting for 2 workers; BENCH_ORDERS=" in said
    assert '"key": "KEY"' in said
    assert "gw-1" not in said


class Looking:
    """A watch that finds what it is told."""

    def __init__(self, taken: float) -> None:
        self.taken, self.looks = taken, 0

    def look(self) -> None:
        self.looks += 1

    def found(self) -> Disturbance:
        assert self.looks == 2, "before and after"
        return Disturbance(self.taken)


@pytest.mark.parametrize(
    ("taken", "remarks"),
    [(0.09, []), (0.78, ["- through the gateway: others took 78% of a core; a latency may be theirs"])],
)
def test_what_others_took_from_the_cores_is_told(
    taken: float, remarks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Runs(monkeypatch, outcome(10))
    watch = Looking(taken)
    run = load.Run(BY_NAME["chat"], Size(60, 40, 6.0), "locust", tmp_path, lambda: cast("Watch", watch))
    run.against("through the gateway", "http://gateway", Orders())
    assert run.remarks == remarks


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chat", "--rate", "0"], "at least 0.01"),
        (["chat", "--seconds", "1"], "at least 4"),
        (["chat", "--key", "k"], "go with --url"),
        (["degraded", "--url", "http://h"], "leave --url out"),
        (["noisy_neighbour", "--url", "http://h"], "--neighbours-key"),
        (["limits", "--url", "http://h"], "limits needs keys whose quotas it knows"),
        (["quotas"], "invalid choice"),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(_: str | None) -> str:
        raise CannotRun("locust is missing")

    monkeypatch.setattr(drive, "program", missing)
    assert load.main(GIVEN) == program.CANNOT_RUN
    assert "locust is missing" in capsys.readouterr().err


def test_help_names_every_profile(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in BY_NAME)
    assert "--remote-workers" in said
