"""A request body over which two workers died is refused by every worker from then on, and no other body is."""

import json
from pathlib import Path

import pytest

from gateway.units import MIB, NS_PER_S
from tests.fakes.gateway_node import GatewayNode, running

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
READING_S = 0.1  # of CPU: by then such a body has come in, and is a long way from being read


def slow_to_read(text: str) -> bytes:
    """A body that takes about a second to be read: it is none of the shapes that are read at once."""
    message = {"role": "user", "content": text, "x": {"y": [1, 2, {"z": 3}]}}
    return json.dumps({"model": "sim-m+tokens=5", "messages": [message] * 120_000}).encode()


def cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / NS_PER_S


def kill_its_reader(node: GatewayNode, body: bytes) -> None:
    before = {pid: cpu_s(pid) for pid in node.until_workers(2)}
    with node.open(node.request(CHAT, body)):
        reader = node.until(lambda: next((p for p in before if cpu_s(p) > before[p] + READING_S), None), "its reader")
        node.kill_child(reader)
    node.until_workers(2, without=[reader])


def test_a_body_over_which_two_workers_died_is_refused_by_all_and_no_other_is() -> None:
    deadly, other = slow_to_read("a"), slow_to_read("b")
    with running({"inline_bytes": 16 * MIB}, workers=2) as node:
        node.expected.append("a request body that has now killed two workers is refused for ten minutes")
        kill_its_reader(node, deadly)
        assert node.post(CHAT, deadly).status == 200, "one death may have had another cause"
        for _ in range(4):  # a reader killed before it has begun, on a slow machine, does not count
            kill_its_reader(node, deadly)
            if node.expected[0] in node.log():
                break
        for _ in range(2):
            refused = [node.post(CHAT, deadly) for _ in range(6)]  # each of them by either worker
            assert {(answer.status, answer.json["error"]["code"]) for answer in refused} == {(400, "refused_body")}
            survivor = node.workers()[0]
            node.kill_child(survivor)
            node.until_workers(2, without=[survivor])  # the new one knows it too
        assert node.post(CHAT, other).status == 200
        assert node.post(CHAT, deadly + b" ").status == 200
