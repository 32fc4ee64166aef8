"""The two C programs against each other on loopback, and the load generator against servers that answer wrongly.

A check that a good server passes proves little: each kind of wrong answer is served once, and must be found.
"""

import json
import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.speed import native, workload
from bench.speed.histogram import Histogram
from bench.speed.launch import CannotRun
from bench.speed.native import LoadResult
from bench.speed.workload import Workload

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Generator[int, None, None]:
    native.build()
    with native.upstream(0, tmp_path_factory.mktemp("upstream") / "log") as port:
        yield port


def run(port: int, work: Workload, folder: Path, *arguments: str) -> tuple[LoadResult, list[str]]:
    moments: list[str] = []
    result = native.load(
        port, [*work.checks, *arguments], body=work.write(folder), core=0, length_s=1, on_moment=moments.append
    )
    return result, moments


def test_a_number_of_requests(upstream: int, tmp_path: Path) -> None:
    result, moments = run(upstream, workload.plain(), tmp_path, "--requests", "500", "--connections", "8")
    assert (result.ok, result.errors, result.notes) == (500, {}, ())
    assert result.latency.total == 500
    assert moments == ["measuring", "measured"]


def test_both_programs_and_this_package_count_buckets_alike(upstream: int, tmp_path: Path) -> None:
    work = workload.plain()
    run(upstream, work, tmp_path, "--requests", "300")
    printed = json.loads((tmp_path / f"{work.name}.out").read_text())["latency"]
    ours = Histogram.parse(printed)
    for q in ("50", "90", "99", "99.9"):
        assert ours.quantile_us(float(q) / 100) == pytest.approx(printed[f"p{q}_us"], abs=0.06)
    assert ours.quantile_us(1.0) == pytest.approx(printed["max_us"], abs=0.06)


def test_an_open_loop_keeps_its_rate_and_counts_from_the_due_time(upstream: int, tmp_path: Path) -> None:
    # One connection and 20 ms an answer: at 100 a second half of the arrivals are too many, and the queue must show.
    arguments = ("--rate", "100", "--arrivals", "fixed", "--connections", "1", "--seconds", "0.5")
    result, _ = run(upstream, workload.plain(delay_ms=20), tmp_path, *arguments)
    assert result.latency.total == pytest.approx(50, abs=2)
    assert result.latency.max_ns > 300e6
    assert result.lateness.total == pytest.approx(50, abs=2)


def test_an_open_loop_does_not_leave_out_what_it_got_no_answer_to(upstream: int, tmp_path: Path) -> None:
    arguments = ("--rate", "100", "--arrivals", "fixed", "--connections", "1", "--seconds", "0.3", "--drain", "0.1")
    result, _ = run(upstream, workload.plain(delay_ms=60), tmp_path, *arguments)
    assert result.errors["unfinished"] > 10
    assert result.latency.total == result.ok + result.errors["unfinished"]


def test_paced_streams(upstream: int, tmp_path: Path) -> None:
    directive = "chunks=5 chunk_bytes=200 interval_ms=20 ttft_ms=50"
    checks = ("--stream", "--expect-events", str(5 + workload.TAIL_EVENTS), "--interval-ms", "20")
    work = Workload("paced", directive, stream=True, checks=checks)
    result, _ = run(upstream, work, tmp_path, "--requests", "20", "--connections", "20")
    assert (result.ok, result.terminated, result.errors) == (20, 20, {})
    assert result.events == 20 * 8
    assert result.ttft.quantile_us(0.5) >= 50_000
    assert result.latency.quantile_us(0.5) >= 150_000
    assert result.lag.total == 20 * 5  # between five chunks and the tail


def test_streams_without_a_pace(upstream: int, tmp_path: Path) -> None:
    result, _ = run(upstream, workload.streamed(0), tmp_path, "--requests", "200", "--connections", "16")
    assert (result.ok, result.terminated, result.errors) == (200, 200, {})


def test_streams_held_open(upstream: int, tmp_path: Path) -> None:
    result, moments = run(upstream, workload.idle_stream(100), tmp_path, "--hold", "300", "--seconds", "0.3")
    assert result.held == 300
    assert result.errors == {}
    assert result.events >= 2 * 300
    assert moments == ["measuring", "held", "measured"]


def test_a_stream_that_ends_is_not_held(upstream: int, tmp_path: Path) -> None:
    result, _ = run(upstream, workload.streamed(0), tmp_path, "--hold", "3", "--seconds", "0.1")
    assert (result.held, result.errors) == (0, {"ended": 3})


def test_large_bodies_both_ways(upstream: int, tmp_path: Path) -> None:
    size = 3_000_000
    work = Workload("large", f"body_bytes={size}", checks=("--expect-bytes", str(size)), request_bytes=size)
    result, _ = run(upstream, work, tmp_path, "--requests", "8", "--connections", "4")
    assert (result.ok, result.errors) == (8, {})


def test_nobody_listening_is_said(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="refused"):
        run(1, workload.plain(), tmp_path, "--requests", "1", "--connections", "1")


# ---- wrong answers


@contextmanager
def answering(answer: bytes) -> Generator[int, None, None]:
    """A server that gives one answer to whatever comes, then closes; NONCE in it becomes the request's own."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request = self.request.recv(65536)
            nonce = request.partition(b"[[nonce ")[2][:16]
            self.request.sendall(answer.replace(b"NONCE", nonce))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def plain_answer(body: bytes, *, length: int | None = None, status: bytes = b"200 OK") -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, size, body)


def event_answer(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    sized = (chunk.replace(b"NONCE", b"N" * 16) for chunk in chunks)
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in sized)
    return head + framed.replace(b"N" * 16, b"NONCE") + end


EVENT, DONE = b'data: {"id":"NONCE"}\n\n', b"data: [DONE]\n\n"
PLAIN = ("--expect-bytes", "18")
STREAM = ("--stream", "--expect-events", "2")

ANSWERS = [
    pytest.param(plain_answer(b"NONCE: 18"), PLAIN, None, id="plain"),
    pytest.param(plain_answer(b"NONCE", status=b"500 Oops"), PLAIN, "status", id="status"),
    pytest.param(plain_answer(b"NONCE"), PLAIN, "short_body", id="another length than expected"),
    pytest.param(plain_answer(b"NONCE:", length=400), PLAIN, "short_body", id="cut off"),
    pytest.param(plain_answer(b"0123456789abcdefgh"), PLAIN, "crossed", id="someone else's answer"),
    pytest.param(plain_answer(b"NONCE: 18 and more", length=18), PLAIN, "framing", id="more than its length"),
    pytest.param(b"", PLAIN, "reset", id="closed without a word"),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", PLAIN, "framing", id="no length"),
    pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", PLAIN, "framing", id="not HTTP"),
    pytest.param(event_answer(EVENT, DONE), STREAM, None, id="stream"),
    pytest.param(event_answer(EVENT[:9], EVENT[9:] + DONE[:5], DONE[5:]), STREAM, None, id="stream, other chunks"),
    pytest.param(event_answer(b": hello\n\n", EVENT, DONE), STREAM, None, id="stream with a comment"),
    pytest.param(event_answer(EVENT), STREAM, "terminator", id="no [DONE]"),
    pytest.param(event_answer(EVENT, DONE, end=b""), STREAM, "terminator", id="no zero chunk"),
    pytest.param(event_answer(EVENT, EVENT, DONE), STREAM, "events", id="an event too many"),
    pytest.param(event_answer(EVENT, DONE, end=b"zz\r\n"), STREAM, "framing", id="a chunk size that is none"),
]


@pytest.mark.parametrize(("answer", "checks", "kind"), ANSWERS)
def test_answers_are_checked(answer: bytes, checks: tuple[str, ...], kind: str | None, tmp_path: Path) -> None:
    # The length counts a nonce of 16 where the text says NONCE.
    grown = answer.replace(b"Length: 9\r", b"Length: 20\r").replace(b"Length: 5\r", b"Length: 16\r")
    with answering(grown) as port:
        expected = ("--expect-bytes", "20") if kind is None and checks is PLAIN else checks
        result, _ = run(port, Workload("one", checks=expected), tmp_path, "--requests", "1", "--connections", "1")
    assert result.errors == ({kind: 1} if kind else {})
    assert result.ok == (0 if kind else 1)
