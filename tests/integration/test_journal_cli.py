"""`gateway journal` as a command, on a node that does not run: whole lives, rivals, and kills in the middle."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.control import holds
from gateway.journal import layout
from gateway.journal.seal import Opener
from gateway.process.lock import StateLock
from tests.fakes.journal_node import JournalNode

PROGRAM = """
import argparse, sys
from gateway.cli.journal import add_journal
parser = argparse.ArgumentParser(prog="gateway")
add_journal(parser.add_subparsers(required=True))
given = parser.parse_args(["journal", *sys.argv[1:]])
sys.exit(given.run(given))
"""
LONG_S = 60
KILLS = 12

pytestmark = pytest.mark.slow


@pytest.fixture
def node(tmp_path: Path) -> JournalNode:
    return JournalNode(tmp_path)


def started(node: JournalNode, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *words, "--config", str(node.path)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(node: JournalNode, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    process = started(node, *words)
    out, err = process.communicate(timeout=LONG_S)
    return process.returncode, out, err


def forgotten(node: JournalNode) -> list[bool]:
    """Of ann and bob, whether their records can still be opened."""
    opener = Opener(layout.sealing_of(node.state_dir))
    return [opener.open(record) is None for record in node.exchanges]


def test_a_hold_and_an_erasure_from_beginning_to_end(node: JournalNode) -> None:
    code, out, err = run(node, "status")
    assert (code, "oldest record 1970-01-02" in out, "read from its files" in err) == (0, True, True)

    code, out, _ = run(node, "hold", "add", "--why", "case 17", "--org", "acme", "--actor", "ann")
    assert code == 0
    hold_id = out.split()[1]
    code, out, _ = run(node, "hold", "list", "--json")
    assert [hold["id"] for hold in json.loads(out)["holds"]] == [hold_id]

    code, _, err = run(node, "erase", "--tenant", "acme", "--user", "ann", "--yes", "--actor", "ann")
    assert (code, f"release {hold_id}" in err) == (1, True)
    assert run(node, "erase", "--tenant", "acme", "--user", "ann")[0] == 2, "nobody can be asked"
    assert forgotten(node) == [False, False]

    assert run(node, "hold", "release", hold_id, "--actor", "eve")[0] == 0
    code, out, _ = run(node, "erase", "--tenant", "acme", "--user", "ann", "--yes", "--actor", "eve")
    assert (code, out) == (0, "1 keys are destroyed; 0 rows of usage name nobody now\n")
    assert forgotten(node) == [True, False]

    assert [(record.action, record.actor) for record in node.told()] == [
        ("journal.hold", "ann"), ("journal.release", "eve"), ("journal.erase", "eve"),
    ]  # fmt: skip
    report = node.verified()
    assert (report.findings, report.unsigned) == ([], 0)
    assert not (node.state_dir / "lock").exists()


def test_a_node_in_use_is_left_alone(node: JournalNode) -> None:
    lock = StateLock.acquire(node.state_dir, 0.0)
    before = {path: path.read_bytes() for path in node.journal.path.rglob("*.jsonl")}
    for words in (["hold", "add", "--why", "x"], ["erase", "--tenant", "acme", "--yes"]):
        code, _, err = run(node, *words, "--actor", "ann")
        assert (code, "a gateway runs and could not be asked" in err) == (1, True)
    assert run(node, "status")[0] == run(node, "hold", "list")[0] == 0, "looking is free"
    lock.release()
    assert {path: path.read_bytes() for path in node.journal.path.rglob("*.jsonl")} == before


def test_rivals_come_one_after_the_other_or_are_sent_away(node: JournalNode) -> None:
    rivals = [started(node, "hold", "add", "--why", str(number), "--actor", "ann") for number in range(4)]
    codes = [(rival.communicate(timeout=LONG_S), rival.returncode)[1] for rival in rivals]
    assert set(codes) <= {0, 1}
    assert 0 in codes
    assert len(holds.read(node.journal.path)) == len(node.told()) == codes.count(0)
    assert node.verified().findings == []


def test_killed_at_any_moment_it_can_be_run_again(node: JournalNode) -> None:
    """Kills spread over the time that a whole run takes; whatever each hit, the next run finds a journal in order."""
    begun_s = time.monotonic()
    assert run(node, "hold", "list")[0] == 0
    loading_s = time.monotonic() - begun_s
    for number in range(KILLS):
        victim = started(node, "erase", "--tenant", "acme", "--user", "ann", "--yes", "--actor", "eve")
        try:
            victim.wait(loading_s * (0.5 + number / KILLS))
        except subprocess.TimeoutExpired:
            victim.send_signal(signal.SIGKILL)
        victim.communicate(timeout=LONG_S)
    code, _, err = run(node, "erase", "--tenant", "acme", "--user", "ann", "--yes", "--actor", "eve")
    assert code == 0, err
    assert forgotten(node) == [True, False]
    assert node.told()[-1].action == "journal.erase"
    report = node.verified()
    assert (report.findings, report.unsigned) == ([], 0)
