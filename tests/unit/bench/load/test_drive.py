"""Locust is started with the load that was asked for, and its outcome is read back."""

import json
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from bench.load import drive
from bench.load.drive import Outcome, Size
from bench.load.orders import VARIABLE, Orders
from bench.load.profiles import BY_NAME, PROFILES
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
    assert drive.command("locust", BY_NAME["chat"], "h", Size(1, 1, 5, workers=3))[-2:] == ["--processes", "3"]
    remote = drive.command("locust", BY_NAME["chat"], "h", Size(1, 1, 5, remote_workers=2))
    assert remote[-3:] == ["--master", "--expect-workers", "2"]
    assert "--headless" not in drive.web_command("locust", BY_NAME["chat"], "h", SIZE)


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
