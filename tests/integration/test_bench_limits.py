"""The bench of limits with real processes: a redis-server that is killed and comes back empty, and gateways."""

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from bench import program
from bench.limits import __main__ as limits
from bench.limits import cost, proof, redis
from bench.limits.cost import ALONE, LIMITS, ONE_KEY, STORE, TABLE, Figure
from bench.limits.redis import RedisServer, answers, redis_server
from bench.limits.scenarios import BY_NAME
from bench.speed import launch
from bench.speed.launch import CannotRun

pytestmark = pytest.mark.slow


def ask(port: int, *words: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(100)


def test_a_killed_server_comes_back_where_it_was_and_empty() -> None:
    with redis_server(0) as server:
        port = server.port
        assert server.url == f"redis://127.0.0.1:{port}/0"
        assert ask(port, "SET", "a", "1") == b"+OK\r\n"
        assert server.calls() == 0
        server.kill()
        assert not answers(port)
        server.start()
        assert ask(port, "GET", "a") == b"$-1\r\n"
    assert not answers(port)


def test_a_machine_without_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "program", lambda _: None)
    with pytest.raises(CannotRun, match="apt-get install redis-server"):
        RedisServer(0, tmp_path).start()
    assert redis.answers(1) is False


async def store_figures() -> list[Figure]:
    with redis_server(0) as server:
        return await cost.by_store(server, 640, 1, lambda _: None)


def test_a_store_is_asked_and_its_own_cost_read() -> None:
    found = asyncio.run(store_figures())
    assert [figure.limits for figure in found] == [n for n in LIMITS if n]
    assert all(len(figure.worker_us) == len(figure.server_us) == 1 for figure in found)
    assert cost.of(found, STORE, 8).worker.low > 0


def test_the_whole_of_what_limits_cost_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has only one core meanwhile, and the server another, where there are two."""
    able = os.sched_getaffinity(0)
    monkeypatch.setattr(limits, "CORES", (min(able), max(able)))
    assert limits.main(["cost", "--requests", "64", "--repeats", "1", "--out", str(tmp_path)]) != program.CANNOT_RUN
    figures = json.loads((tmp_path / "cost.json").read_text())["figures"]
    assert {figure["engine"] for figure in figures} == {TABLE, ONE_KEY, ALONE, STORE}
    assert os.sched_getaffinity(0) == able


@pytest.mark.parametrize("name", ["requests-table", "worker-store"])
def test_a_short_proof_holds_on_a_running_gateway(name: str, tmp_path: Path) -> None:
    told: list[str] = []
    (story,) = proof.prove([BY_NAME[name]], 8.0, tmp_path, told.append)
    broken = [finding for finding in story.findings if not finding.holds]
    # How sharp the bounds are depends on how busy the machine is; that they hold does not.
    assert [finding for finding in broken if finding.what != "the two bounds apart"] == []
    assert len(story.seen.admitted) > 100
    assert story.seen.refused > 100
    assert bool(story.seen.broken) is bool(story.killed_s)
