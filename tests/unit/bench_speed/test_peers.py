"""Peers are installed once, asked before they are measured, and named with the reason where they cannot run."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.speed import __main__ as speed
from bench.speed import launch, peers, targets
from bench.speed.launch import CannotRun
from bench.speed.report import Result
from bench.speed.sections import Settings
from bench.speed.targets import Place, Running
from bench.speed.workload import plain, streamed
from tests.unit.bench_speed.samples import repeats


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    return tmp_path / "cache"


def test_a_peer_is_installed_once(cache: Path) -> None:
    steps = [["sh", "-c", "echo once >> done"]]
    folder = peers.installed("x", "1.0", steps, cache=cache)
    assert peers.installed("x", "1.0", steps, cache=cache) == folder == cache / "x-1.0"
    assert (folder / "done").read_text() == "once\n"


def test_files_are_there_before_the_first_step(cache: Path) -> None:
    folder = peers.installed("x", "1.0", [["cp", "package.json", "seen"]], {"package.json": "{}"}, cache)
    assert (folder / "seen").read_text() == "{}"


def test_a_failed_installation_is_told_and_tried_again(cache: Path) -> None:
    with pytest.raises(CannotRun, match="x cannot be installed: no such package"):
        peers.installed("x", "1.0", [["sh", "-c", "echo no such package >&2; exit 1"]], cache=cache)
    with pytest.raises(CannotRun, match=r"x cannot be installed: .*absent"):
        peers.installed("x", "1.0", [["./absent"]], cache=cache)
    assert peers.installed("x", "1.0", [["true"]], cache=cache).is_dir()


@contextmanager
def answering(*answers: tuple[int, bytes]) -> Iterator[Running]:
    """A server that gives these answers, one after the other."""
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, body = left.pop(0)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Running("x", server.server_port, server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        ((200, b"data: {}\n\ndata: [DONE]\n\n"), ""),
        ((200, b"data: {}\n\n"), "the answer does not end with data: [DONE]"),
        ((500, b'{"status":"failure"}'), 'status 500: {"status":"failure"}'),
    ],
)
def test_a_peer_is_asked_for_a_stream(stream: tuple[int, bytes], told: str) -> None:
    with answering((200, b"{}"), stream) as running:
        assert peers.probe(running) == told


@pytest.mark.parametrize(
    ("answer", "told"),
    [((401, b"no key"), "status 401: no key"), ((200, b""), "the answer does not end with }")],
)
def test_a_peer_that_answers_wrongly_cannot_run(answer: tuple[int, bytes], told: str) -> None:
    with answering(answer) as running, pytest.raises(CannotRun, match=f"x does not answer: {told}$"):
        peers.probe(running)


def test_a_peer_that_nobody_reaches_cannot_run() -> None:
    port = launch.free_port()
    with pytest.raises(CannotRun, match=r"x does not answer: .*refused"):
        peers.probe(Running("x", port, port))


def test_answers_that_are_written_anew_keep_the_other_checks() -> None:
    assert plain().checks_for(verbatim=False) == ()
    assert streamed(10).checks_for(verbatim=False) == ("--stream", "--interval-ms", "10")
    assert streamed(10).checks_for(verbatim=True) == streamed(10).checks


class Failing(peers.LiteLLM):
    def command(self, place: Place, port: int) -> list[str]:
        raise CannotRun(f"no {self.name} at {place.folder}:{port}\nand more")


def run(tmp_path: Path, subject: str = "gateway") -> speed.Run:
    return speed.Run(Settings(targets=("direct", "litellm"), subject=subject), tmp_path, {})


def test_the_others_go_on_without_it(tmp_path: Path) -> None:
    going = run(tmp_path)
    with ExitStack() as stack:
        assert going._started(stack, Failing(), 9000) is None
        started = going._started(stack, targets.Direct(), 9000)
    assert started is not None
    assert going.remarks[0].startswith("litellm could not run: no litellm at")
    assert "more" not in going.remarks[0]


def test_the_subject_cannot_be_done_without(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(CannotRun):
        run(tmp_path, subject="litellm")._started(stack, Failing(), 9000)


def test_who_cannot_keep_up_has_no_latency_to_tell(tmp_path: Path) -> None:
    going = run(tmp_path)
    going.samples = [*repeats("json", "litellm", [50, 51]), *repeats("json", "nginx", [9000])]
    assert [going._keeps_up(name, 2000) for name in ("direct", "nginx", "litellm", "gateway")] == [
        True,
        True,
        False,
        True,
    ]
    assert going.remarks == ["litellm answers 50 requests a second at most: not in the latency section."]


def test_they_are_compared_only_when_asked_for() -> None:
    assert not set(peers.NAMES) & set(targets.USUAL)
    chosen = speed.settings_of(speed.parser().parse_args(["--targets", "portkey,direct,litellm"]))
    assert chosen.targets == ("direct", "limited", "litellm", "portkey")
    assert [target.name for target in peers.make(chosen.targets)] == ["litellm", "portkey"]
    assert Result({}, chosen, [], []).goals()[0].value is None
