"""The README's examples, run as they stand but for the port: what is shown to a stranger works."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.gateway_node import ROOT, GatewayNode, running
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

EXAMPLES = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
PACKAGES = ROOT / "tests" / "sdk_node" / "node_modules"
ANY_MODEL = {"*": {"targets": [{"provider": "sim", "model": "*"}, {"provider": "claude", "model": "*"}]}}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running({"models": ANY_MODEL}) as running_node:
        yield running_node


LONG_S = 5 * PATIENCE_S  # a vendor's package takes its time to be imported


def example(language: str, containing: str) -> str:
    """The README's code block in a language with this text."""
    (code,) = [code for found, code in EXAMPLES if found == language and containing in code]
    return str(code)


def run(command: list[str], cwd: Path, node: GatewayNode) -> str:
    environment = {**os.environ, "GATEWAY_KEY": node.key}
    ran = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=LONG_S, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def at(code: str, node: GatewayNode) -> str:
    assert "http://127.0.0.1:8080" in code
    return code.replace("http://127.0.0.1:8080", node.url)


@pytest.mark.parametrize(("package", "answers"), [("openai", 2), ("anthropic", 1)])
def test_a_python_example_prints_answers(package: str, answers: int, node: GatewayNode, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(at(example("python", f"from {package} "), node))
    assert run([sys.executable, "example.py"], tmp_path, node).count("Say hello") == answers


def test_the_node_example_prints_an_answer(node: GatewayNode, tmp_path: Path) -> None:
    assert (PACKAGES / "openai").is_dir(), "run `make node-sdk`"
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    (tmp_path / "example.mjs").write_text(at(example("js", '"openai"'), node))
    assert run(["node", "example.mjs"], tmp_path, node).count("Say hello") == 1


def test_the_other_node_example_is_javascript(node: GatewayNode, tmp_path: Path) -> None:
    """Its package is none of those the tests install, so its syntax is all that is proved here."""
    (tmp_path / "example.mjs").write_text(at(example("js", '"@anthropic-ai/sdk"'), node))
    assert run(["node", "--check", "example.mjs"], tmp_path, node) == ""


def test_the_answer_headers_shown_are_those_sent(node: GatewayNode) -> None:
    sent = [name for name, _ in node.chat("sim-echo").headers]
    shown = example("", "x-request-id:")
    assert {line.partition(":")[0] for line in shown.splitlines()} <= set(sent)
