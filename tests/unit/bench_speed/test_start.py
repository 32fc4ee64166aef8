"""What a start is made of, what is wrong with a first answer, and that both states take their turns."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.speed import start, workload
from bench.speed.disturbance import Disturbance
from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.sections import Bench, Settings
from bench.speed.start import FRESH, USED, Start
from bench.speed.targets import Gateway, Place, Running
from tests.unit.bench_speed.samples import again


def process(pid: int, name: str, cpu_us: int, born_us: int) -> Process:
    return Process(pid, cpu_us, 0, 0, name, born_us)


def test_the_section_is_short() -> None:
    assert start.expected_s(Settings()) <= 20


def test_a_start_is_parted_by_kind_of_process() -> None:
    found = [
        process(1, "gw-super", 400_000, 1_000_000),
        process(2, "gw-worker-0", 20_000, 1_530_000),
        process(3, "gw-worker-1", 30_000, 1_520_000),
        process(4, "gw-control", 150_000, 1_510_000),
    ]
    forked_s, cpu_us = start.parts(Reading({one.pid: one for one in found}), 1)
    assert forked_s == pytest.approx(0.52)
    assert cpu_us == {"gw-super": 400_000, "gw-worker": 50_000, "gw-control": 150_000}


def test_without_a_worker_nothing_was_forked() -> None:
    assert start.parts(Reading({1: process(1, "gw-super", 5, 1)}), 1)[0] == 0


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers as its server was told."""

    status, length = 200, workload.ANSWER_BYTES

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        self.send_header("content-length", str(self.length))
        self.end_headers()
        self.wfile.write(b"x" * self.length)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def answering(status: int, length: int) -> Iterator[Running]:
    handler = type("Told", (Answers,), {"status": status, "length": length})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Running("limited", server.server_port, server.server_port, headers=("authorization: Bearer key",))
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "length", "wrong"),
    [
        (200, workload.ANSWER_BYTES, {}),
        (503, workload.ANSWER_BYTES, {"status 503": 1}),
        (200, 3, {"short_body": 1}),
    ],
)
def test_a_first_answer_is_checked(status: int, length: int, wrong: dict[str, int]) -> None:
    with answering(status, length) as running:
        assert start.first_answer(running) == wrong


def test_nobody_there_is_no_answer() -> None:
    with answering(200, 1) as running:
        pass
    assert start.first_answer(running) == {"ConnectionRefusedError": 1}


def test_fresh_and_used_take_turns_and_only_used_is_started_where_a_gateway_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[tuple[str, str]] = []

    def used(_: Gateway, place: Place, __: Bench) -> None:
        did.append(("use", place.folder.name))

    def started(_: Gateway, place: Place, __: Bench, state: str, repeat: int) -> Start:
        did.append((state, place.folder.name))
        return Start("limited", state, repeat, 0.5, 0.6, 0.4, {}, disturbance=Disturbance())

    monkeypatch.setattr(start, "_use", used)
    monkeypatch.setattr(start, "_start", started)
    bench = Bench(Settings(repeats=2), (), tmp_path, Progress(1), again())
    found = start.measure(Gateway(), lambda name: Place(0, 1, tmp_path / name, 100), bench)
    kept = [(USED, "start-used"), (USED, "start-used")]
    fresh = [(FRESH, "start-fresh-0"), (FRESH, "start-fresh-1")]
    assert did == [("use", "start-used"), fresh[0], kept[0], fresh[1], kept[1]]
    assert [(one.state, one.repeat) for one in found] == [(FRESH, 0), (USED, 0), (FRESH, 1), (USED, 1)]
