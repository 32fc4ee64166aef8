"""Locust is started with the load that was asked for, and its outcome is read back."""

import json
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from bench.load import drive
from bench.load.drive import Outcome, Size
from bench.load.orders import VARIABLE, Orders
from bench.load.profiles import BY_NAME, PROFILES, Profile
from bench.speed import launch
from bench.speed.launch import CannotRun
from bench.speed.targets import ROOT

SIZE = Size(rate=20, users=40, seconds=0.2, workers=1)
ENTRY = {
    "kind": "POST",
    "name": "chat",
    "count": 5,
    "failures": 1,
    "p50_ms": 3,
    "p99_ms": 9,
    "max_ms": 9.5,
    "rps": 2.5,
}


def test_every_profile_has_its_locustfile() -> None:
    assert all(profile.locustfile.is_file() for profile in PROFILES)
    files = {path.stem for path in (ROOT / "bench" / "locust").glob("*.py")} - {"__init__", "kit"}
    assert files == set(BY_NAME)


def test_the_command_says_how_much_and_by_how_many() -> None:
    words = drive.command("locust", BY_NAME["chat"], "http://h:1", SIZE, ("Quiet",))
    told = dict(pairwise(words))
    assert (told["--host"], told["--users"], told["--run-time"]) == ("http://h:1", "40", "0.2s")
    assert words[-1] == "Quiet"
    assert "--processes" not in words
    assert "--headless" not in drive.web_command("locust", BY_NAME["chat"], "h", SIZE)


@pytest.mark.parametrize("command", [drive.command, drive.web_command])
def test_processes_of_this_machine_speak_over_loopback_and_those_of_others_are_waited_for(
    command: Callable[[str, Profile, str, Size], list[str]],
) -> None:
    own = command("locust", BY_NAME["chat"], "h", Size(1, 1, 5, workers=3))
    told = dict(pairwise(own))
    assert (told["--processes"], told["--master-bind-host"]) == ("3", "127.0.0.1")
    assert told["--master-bind-port"] == told["--master-port"], "a port of its own, so that two runs do not meet"
    remote = dict(pairwise(command("locust", BY_NAME["chat"], "h", Size(1, 1, 5, remote_workers=2))))
    assert (remote["--master"], remote["--expect-workers"]) == ("--expect-workers", "2")
    assert float(remote["--expect-workers-max-wait"]) == drive.WORKERS_PATIENCE_S
    assert "--processes" not in remote


def test_an_outcome_counts_real_requests_once() -> None:
    gap = {**ENTRY, "kind": "GAP", "count": 50, "failures": 0}
    outcome = Outcome.parse(json.dumps({"entries": [ENTRY, gap], "problems": {"chat: x": 1}}))
    assert (outcome.requests, outcome.failures, outcome.problems) == (5, 1, {"chat: x": 1})
    assert [entry.label for entry in outcome.entries] == ["chat GAP", "chat"]
    assert outcome.entry(outcome.entries[1]) == outcome.entries[1]


def fake_locust(folder: Path, body: str) -> str:
    path = folder / "locust"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_run_gives_its_orders_and_reads_the_outcome(tmp_path: Path) -> None:
    told = json.dumps({"entries": [ENTRY], "problems": {}})
    script = f"""echo "${VARIABLE}" > {tmp_path}/orders; echo '{told}' > {tmp_path}/outcome.json"""
    outcome = drive.run([fake_locust(tmp_path, script)], Orders(key="gw-1"), SIZE, tmp_path, 0)
    assert outcome.requests == 5
    orders = json.loads((tmp_path / "orders").read_text())
    assert (orders["key"], orders["outcome"]) == ("gw-1", str(tmp_path / "outcome.json"))


def test_a_run_without_an_outcome_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text("of an earlier run")
    with pytest.raises(CannotRun, match="no such profile"):
        drive.run([fake_locust(tmp_path, "echo no such profile; exit 3")], Orders(), SIZE, tmp_path, 0)


def test_locust_is_found_or_told_how_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = fake_locust(tmp_path, "exit 0")
    assert drive.program(own) == own
    with pytest.raises(CannotRun, match="missing at nowhere: `make bench-load`"):
        drive.program("nowhere")
    monkeypatch.setattr(drive, "OWN", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert drive.program(None) == own


@pytest.fixture
def page_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A free port for the page, and Ctrl-C as a program of the bench has it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(drive, "WEB_PORT", launch.free_port())
    yield drive.WEB_PORT
    signal.signal(signal.SIGINT, before)


def test_the_page_is_there_until_ctrl_c(tmp_path: Path, page_port: int) -> None:
    locust = fake_locust(tmp_path, f"exec {sys.executable} -m http.server {page_port} --bind 127.0.0.1")
    there: list[bool] = []

    def ready() -> None:
        there.append(launch.accepts(page_port))
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        drive.serve([locust], Orders(), tmp_path, 0, ready)
    assert there == [True]
    assert not launch.accepts(page_port)


def test_a_page_that_cannot_be_served_is_told(tmp_path: Path, page_port: int) -> None:
    def ready() -> None:
        raise AssertionError("there is no page")

    with pytest.raises(CannotRun, match="no such profile"):
        drive.serve([fake_locust(tmp_path, "echo no such profile; exit 3")], Orders(), tmp_path, 0, ready)
    with socket.create_server(("127.0.0.1", page_port)), pytest.raises(CannotRun, match=f"port {page_port} is taken"):
        drive.serve([fake_locust(tmp_path, "exit 3")], Orders(), tmp_path, 0, ready)
