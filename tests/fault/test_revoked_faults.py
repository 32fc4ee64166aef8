"""Control dies at every step of telling the journal of revoked keys: the next one leaves one record of each."""

import shutil
from pathlib import Path

import pytest

from gateway.config.revocations import Revocations
from gateway.control.revoked import RevokedKeys, Revokers
from tests.fakes.control_chain import ControlChain
from tests.fakes.killed_steps import How, Say, run

ALL_STEPS = 60  # far more than there are
KEYS = ["ann", "bob", "eve"]


def turn(state_dir: Path) -> ControlChain:
    chain = ControlChain(state_dir)
    RevokedKeys(state_dir, chain.write, chain.signed_seq, Revokers(), lambda: 1).turn()
    return chain


@pytest.mark.parametrize("how", ["before", "after", "within"])
def test_killed_at_every_step(tmp_path: Path, how: How) -> None:
    state_dir = tmp_path / "state"

    def work(_say: Say) -> None:
        turn(state_dir)

    calls = []
    for step in range(1, ALL_STEPS):
        for key_id in KEYS:
            Revocations(state_dir).add(key_id, 1)
        ControlChain(state_dir)
        ended = run(work, step, how)
        for _ in range(2):
            assert sorted(record.subject for record in turn(state_dir).records()) == KEYS
        shutil.rmtree(state_dir)
        if not ended.killed:
            break
        calls.append(ended.call)
    assert calls.count("pwrite") == len(KEYS)
    assert {"open", "fsync", "fdatasync"} <= set(calls)
