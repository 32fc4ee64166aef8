"""A node as the proof handles it: its config is one that a gateway takes, and its admin port is understood."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bench.limits.evidence import Standing
from bench.limits.fleet import Node
from bench.limits.scenarios import BY_NAME
from bench.speed.launch import CannotRun
from bench.speed.targets import Place
from gateway.config.load import load

SECRET = "gw-" + "s" * 43
TOLD = {"limits": [{"rule": "key.rpm", "capacity": 600, "level": -2.5, "unit": "requests"}]}


def node(folder: Path) -> Node:
    settings = BY_NAME["requests-table"].settings("", SECRET)
    return Node("node-0", Place(0, 9000, folder / "node-0", 1000), SECRET, settings)


def test_its_config_is_written_with_the_scenario_s_over_the_bench_s(tmp_path: Path) -> None:
    made = node(tmp_path)
    config = load(tmp_path / "node-0" / "gateway.yaml")
    assert (config.listen.port, config.listen.workers) == (made.port, 4)
    assert [key.id for key in config.keys] == ["bench"]
    assert config.keys[0].rpm == 600
    assert str(tmp_path) in str(config.state_dir)


@contextmanager
def admin(status: int, body: object) -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    """An admin port that answers everything alike, and what it was asked with which token."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:  # nobody reads it
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


def test_buckets_are_told_by_the_name_of_their_rule(tmp_path: Path) -> None:
    made = node(tmp_path)
    with admin(200, TOLD) as (port, asked):
        made._admin = {"port": port, "token": "secret"}
        assert made.standings(lambda: 7.0) == {"key.rpm": Standing(600, -2.5, at_s=7.0)}
    assert asked == [("/v1/limits/explain?key=bench&model=bench-model", "Bearer secret")]


def test_while_nothing_is_known_nothing_is_told(tmp_path: Path) -> None:
    made = node(tmp_path)
    with admin(503, {}) as (port, _):
        made._admin = {"port": port, "token": "secret"}
        assert made.standings() is None
    assert made.standings() is None  # nobody listens any more


def test_a_port_that_cannot_be_asked_ends_the_proof(tmp_path: Path) -> None:
    made = node(tmp_path)
    with admin(404, {"error": "no such thing"}) as (port, _):
        made._admin = {"port": port, "token": "secret"}
        with pytest.raises(CannotRun, match=r"answers 404: .*no such thing"):
            made.standings()


def test_a_node_that_was_not_started_has_nothing_to_kill(tmp_path: Path) -> None:
    made = node(tmp_path)
    made.kill()
    made.close()
    assert made.workers() == []
