"""The `openai` npm package drives the gateway: tests/sdk_node, run by node's own test runner.

The packages come from tests/sdk_node/package-lock.json (`make node-sdk`); without them this fails.
"""

import os
import re
import subprocess

import pytest

from tests.fakes.gateway_node import ROOT, running
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

PROJECT = ROOT / "tests" / "sdk_node"


def test_the_npm_package_drives_every_surface() -> None:
    assert (PROJECT / "node_modules" / "openai").is_dir(), "run `make node-sdk`"
    with running() as node:
        environment = {**os.environ, "GATEWAY_URL": node.url, "GATEWAY_KEY": node.key, "SIM_URL": node.sim.url}
        ran = subprocess.run(
            ["node", "--test", "--test-reporter", "tap"],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=5 * PATIENCE_S,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
    passed = re.search(r"^# pass (\d+)$", ran.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) >= 15
    assert re.search(r"^# skipped 0$", ran.stdout, re.MULTILINE)
