"""Keys that are revoked while control is away, dies or is stopped: the journal tells of each once."""

from collections import Counter
from pathlib import Path

import pytest

from gateway.journal import layout
from gateway.journal.read import entries
from gateway.record import Record
from tests.fakes.gateway_node import GatewayNode, running

pytestmark = pytest.mark.slow
ROUNDS = 6


def told(node: GatewayNode) -> list[Record]:
    journal = Path(node.config["state_dir"]) / "journal"
    return [entry.record for entry in entries(journal, layout.CONTROL) if entry.record.action == "key.revoke"]


def revoke(node: GatewayNode, key_id: str) -> None:
    done = node.command("keys", "revoke", key_id)
    assert done.returncode == 0, done.stderr


def keys(count: int) -> list[dict[str, str]]:
    return [{"id": f"k{at}", "secret": f"gw-revoked-{at:039}"} for at in range(count)]


def test_revoked_while_nothing_runs() -> None:
    with running({"keys": keys(2)}) as node:
        node.stop()
        revoke(node, "k0")
        revoke(node, "k1")
        for _ in range(2):
            node.start()
            node.until(lambda: len(told(node)) == 2, "two records")
            node.stop()
            assert [(record.subject, record.actor) for record in told(node)] == [("k0", "operator"), ("k1", "operator")]
        verified = node.command("audit", "verify", str(Path(node.config["state_dir"]) / "journal"))
        assert verified.returncode == 0, verified.stdout + verified.stderr
        node.start()


def test_revoked_while_control_is_killed_again_and_again() -> None:
    with running({"keys": keys(ROUNDS)}) as node:
        for at in range(ROUNDS):
            control = node.control()
            if at % 2:
                node.kill_child(control)
            revoke(node, f"k{at}")
            if not at % 2:
                node.kill_child(control)
            node.control(without=control)
        node.until(lambda: len(told(node)) >= ROUNDS, "all records")
        assert Counter(record.subject for record in told(node)) == Counter(f"k{at}" for at in range(ROUNDS))
