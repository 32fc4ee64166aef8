"""Control beside a real supervisor and real workers: reload by signal, death and return, the way down."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.config.revocations import Revocations
from tests.fakes.control_context import CONFIG, TOKEN
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

OK = 200


class Node:
    """The program, asked over its admin port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.write(CONFIG.replace("warning", "info"))
        command = [sys.executable, "-m", "tests.fakes.controlled_node", str(directory)]
        self.log = (directory / "log").open("wb")
        self.program = subprocess.Popen(command, stderr=self.log)
        self.port = 0

    def wait_ready(self) -> None:
        """Until every worker accepts, control serves, and says that the node is ready."""
        ready = self.directory / "ready"
        self.until(lambda: ready.exists() and ready.read_text())
        self.port = int(ready.read_text())
        self.until(lambda: self.ask("/readyz")[0] == OK)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.program.poll() is None:
            self.program.send_signal(signal.SIGINT)  # which does not wait for balancers
        try:
            self.program.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.program.kill()  # its children notice, and leave
            self.program.wait()
            raise
        finally:
            self.log.close()

    def write(self, text: str) -> None:
        (self.directory / "gateway.yaml").write_text(text)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.logged()
            time.sleep(0.02)

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """Status and content; status 0 when nobody answers."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, method=method, headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:  # noqa: S310
                text = response.read().decode()
                return response.status, text if path == "/metrics" else json.loads(text)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except OSError:
            return 0, None

    def metric(self, line: str) -> int:
        page = str(self.ask("/metrics")[1])
        return next((int(found.rpartition(" ")[2]) for found in page.splitlines() if found.startswith(line)), -1)

    def pid_of_control(self) -> int:
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children").read_text().split()
        return next((int(pid) for pid in children if title(pid) == "gw-control"), 0)

    def logged(self) -> str:
        return (self.directory / "log").read_text()


def title(pid: str) -> str:
    """What a process calls itself, "" for one that has ended since it was listed."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with closing(Node(tmp_path)) as running:
        running.wait_ready()
        yield running


def test_reload_by_signal_and_by_request(node: Node) -> None:
    assert node.ask("/readyz") == (200, {"ready": True, "generation": 1, "reasons": []})
    node.program.send_signal(signal.SIGHUP)
    node.until(lambda: node.metric("gateway_snapshot_generation") == 2)
    assert node.ask("/v1/reload", "POST") == (200, {"reloaded": True, "generation": 3, "restart_needed": []})
    node.until(lambda: [worker["generation"] for worker in node.ask("/v1/status")[1]["workers"]] == [3, 3])
    node.write(CONFIG + "nonsense: 1\n")
    node.program.send_signal(signal.SIGHUP)
    node.until(lambda: node.ask("/v1/status")[1]["last_reload_problems"])
    assert node.ask("/readyz") == (200, {"ready": True, "generation": 3, "reasons": []})
    node.until(lambda: node.metric('gateway_reloads_total{result="refused"}') == 1)
    assert node.metric('gateway_reloads_total{result="published"}') == 2
    assert "nonsense" in node.logged()


def test_control_dies_and_comes_back_with_everything_it_knew(node: Node) -> None:
    assert node.ask("/v1/reload", "POST")[0] == 200
    node.until(lambda: node.metric('gateway_reloads_total{result="published"}') == 1)
    node.until(lambda: node.metric("gateway_abandoned_total") == 4)
    Revocations(node.directory / "state").add("ann", 1)
    first = node.pid_of_control()
    os.kill(first, signal.SIGKILL)
    node.until(lambda: node.pid_of_control() not in {0, first} and node.ask("/healthz")[0] == 200)
    node.until(lambda: node.ask("/readyz")[0] == 200)
    assert node.metric('gateway_reloads_total{result="published"}') == 1
    assert node.metric("gateway_abandoned_total") == 4
    keys = {key["id"]: key["revoked"] for key in node.ask("/v1/keys")[1]["keys"]}
    assert keys == {"ann": True, "team/bob": False}


def test_counts_go_on_over_a_worker_that_is_killed(node: Node) -> None:
    worker = node.ask("/v1/status")[1]["workers"][0]
    os.kill(worker["pid"], signal.SIGKILL)
    node.until(lambda: node.metric("gateway_abandoned_total") == 3)
    node.until(lambda: node.ask("/v1/status")[1]["ready"] and node.metric('gateway_workers{state="ready"}') == 2)
    assert node.metric("gateway_worker_starts_total") == 3


def test_on_the_way_down_it_says_so_and_leaves(node: Node) -> None:
    node.program.send_signal(signal.SIGTERM)
    node.until(
        lambda: node.ask("/readyz") == (503, {"ready": False, "generation": 1, "reasons": ["the node is draining"]})
    )
    assert node.program.wait(timeout=PATIENCE_S) == 0
    assert "Traceback" not in node.logged()
