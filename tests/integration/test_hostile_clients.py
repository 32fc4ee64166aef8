"""Callers that mean harm, or know no better: many at once, too slow, too large, or gone in the middle.

What one request may hold stands in corpus/http; here it is about numbers, memory and time. Whatever they do, other
callers are served, and afterwards the worker is the same one, as small as before, and holds nothing of theirs.
"""

import contextlib
import gzip
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.fakes.gateway_node import GatewayNode, chat_body, running, until
from tests.fakes.patience import PATIENCE_S
from tests.fakes.wire_client import Answer, Call

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
MB = 1024 * 1024
CONNECTIONS = 120
CONFIG: dict[str, Any] = {
    "listen": {"header_timeout_s": 1.5, "body_timeout_s": 1.5, "max_connections": CONNECTIONS},
    "max_body_bytes": "8MiB",
    "spool_bytes": "2MiB",
    "spool_total_bytes": "6MiB",
    "log": {"requests": "none"},
    "providers": {"sim": {"idle_s": 1}, "raw": {"idle_s": 1}},
}
FORM = {"content-type": "multipart/form-data; boundary=B"}
MODEL_PART = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nsim-m\r\n'
FILE_PART = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running(CONFIG) as running_node:
        assert running_node.chat().status == 200
        yield running_node


@pytest.fixture(autouse=True)
def _unharmed(node: GatewayNode) -> Iterator[None]:
    """The same worker serves afterwards, without a descriptor or many bytes more."""
    (worker,) = node.workers()
    descriptors, resident = open_files(worker), resident_mb(worker)
    yield
    assert node.workers() == [worker]
    assert node.chat().status == 200
    until(lambda: open_files(worker) <= descriptors + 2, f"descriptors to go back from {open_files(worker)}")
    until(lambda: node.metrics("gateway_connections") <= 1, "connections to be gone")
    assert resident_mb(worker) - resident < 150


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / MB


@contextlib.contextmanager
def crowd(node: GatewayNode, size: int, raw: bytes = b"") -> Iterator[list[Call]]:
    """So many connections, each with these bytes sent."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(node.open(raw)) for _ in range(size)]


def latencies_ms(node: GatewayNode, requests: int = 40) -> list[float]:
    """How long ordinary requests take now; each must be answered."""
    found = []
    for _ in range(requests):
        started = time.perf_counter()
        assert node.chat().status == 200
        found.append((time.perf_counter() - started) * 1000)
    return found


def refused_or_closed(call: Call) -> int:
    """The status of the refusal, 0 for a close without one."""
    try:
        return call.answer().status
    except (ConnectionError, HTTPException):
        return 0


# --- many -----------------------------------------------------------------------------------------------------------


def test_more_connections_than_there_is_room_for(node: GatewayNode) -> None:
    with crowd(node, CONNECTIONS) as callers:
        until(lambda: node.get("/healthz", key="").status == 503, "the node to be full")
        refused = node.chat()
        assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
        assert refused.header("retry-after") == "1"
        callers[0].close()
        until(lambda: node.chat().status == 200, "one who left to make room")


def test_slow_heads_cost_nobody_else_anything(node: GatewayNode) -> None:
    stop, calm_ms = threading.Event(), statistics.median(latencies_ms(node))
    with crowd(node, 100, b"POST /v1/chat/completions HTTP/1.1\r\n") as callers:

        def drip() -> None:
            while not stop.wait(0.2):
                for caller in callers:
                    with contextlib.suppress(OSError):
                        caller.socket.send(b"X")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert statistics.median(latencies_ms(node)) < 100 + 2 * calm_ms
            statuses = [refused_or_closed(caller) for caller in callers]
        finally:
            stop.set()
            thread.join()
    assert set(statuses) == {408}


def test_bodies_that_stop_are_not_waited_for(node: GatewayNode) -> None:
    head = node.request(CHAT, b"", {"Content-Length": "1000000"})
    calm_ms = statistics.median(latencies_ms(node))
    with crowd(node, 50, head + b'{"model":') as callers:
        assert statistics.median(latencies_ms(node)) < 100 + 2 * calm_ms
        assert {refused_or_closed(caller) for caller in callers} == {408}


def test_requests_sent_far_ahead_close_the_connection(node: GatewayNode) -> None:
    node.sim.reset()
    ahead = node.request(CHAT, chat_body("sim-m+ttft-ms=300")) * 2000
    with node.open(ahead) as call:
        refused_or_closed(call)
        assert isinstance(call.closed(), bool)
    time.sleep(0.5)
    assert max((entry["n"] for entry in node.sim.requests()), default=0) < 400  # those of one read, and no more


# --- large ----------------------------------------------------------------------------------------------------------


ENDLESS = {
    "a header": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-A: ", b"a" * 65536),
    "headers": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\n", b"X-A: b\r\n" * 8192),
    "a header's name": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\n", b"a" * 65536),
    "a target": (b"GET /", b"a" * 65536),
    "a chunk's size": (b"chunked", b"0" * 65536),
    "a chunk's extension": (b"chunked1;", b"a" * 65536),
    "trailers": (b"chunked0\r\n", b"X-A: b\r\n" * 8192),
    "a trailer": (b"chunked0\r\nX-A: ", b"a" * 65536),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_cut_off(node: GatewayNode, what: str) -> None:
    start, more = ENDLESS[what]
    if start.startswith(b"chunked"):
        start = node.request(CHAT, b"", {"transfer-encoding": "chunked"}) + start.removeprefix(b"chunked")
    (worker,) = node.workers()
    before = resident_mb(worker)
    sent = 0
    with node.open(start) as call, contextlib.suppress(ConnectionError):
        while sent < 200 * MB:
            call.socket.sendall(more)
            sent += len(more)
    assert sent < 32 * MB
    assert resident_mb(worker) - before < 20


LARGE = b'{"model":"%b","messages":[{"role":"user","content":"%b"}]%b'


@pytest.mark.parametrize(("model", "end", "status"), [(b"sim-m", b"}", 200), (b"sim-m", b"", 400), (b"m", b"}", 404)])
def test_a_large_body_is_let_go_with_its_exchange(node: GatewayNode, model: bytes, end: bytes, status: int) -> None:
    """Circles of objects would keep it until the collector comes, which few requests seldom bring."""
    (worker,) = node.workers()
    before = resident_mb(worker)
    for _ in range(40):
        assert node.post(CHAT, LARGE % (model, b"x" * (7 * MB), end)).status == status
    assert resident_mb(worker) - before < 80


def test_bombs_are_stopped_early_and_beside_the_loop(node: GatewayNode) -> None:
    (worker,) = node.workers()
    before = resident_mb(worker)
    bombs = [
        ("gzip", gzip.compress(b"x" * (200 * MB), 9)),
        ("zstd", zstandard.compress(b"x" * (500 * MB), 3)),
        ("gzip", gzip.compress(gzip.compress(b"x" * (300 * MB), 9), 9)),
    ]
    statuses: list[int] = []

    def throw(coding: str, bomb: bytes) -> None:
        statuses.append(node.post(CHAT, bomb, {"content-encoding": coding}).status)

    slowest_ms = []
    for _ in range(4):
        threads = [threading.Thread(target=throw, args=bomb) for bomb in bombs * 4]
        for thread in threads:
            thread.start()
        slowest_ms.append(max(latencies_ms(node)))
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [400] * 16 + [413] * 32
    assert min(slowest_ms) < 1000, slowest_ms  # one bomb on the loop would hold everybody up for longer, each time
    assert resident_mb(worker) - before < 150  # what six threads decode at once, as the allocator keeps it


def test_the_spool_is_shared_and_given_back() -> None:
    """Three uploads take all of it; the fourth is told to come later; when they have left there is room again."""
    listen = {**CONFIG["listen"], "body_timeout_s": 2 * PATIENCE_S}  # nobody is given up meanwhile
    with running({**CONFIG, "listen": listen}) as node:
        fill_and_leave(node)


def fill_and_leave(node: GatewayNode) -> None:
    head = node.request(TRANSCRIPTIONS, b"", {**FORM, "Content-Length": str(4 * MB)})
    beginning = head + FILE_PART + b"x" * (MB + 900_000)
    whole = FILE_PART + b"x" * (MB + MB // 2) + b"\r\n" + MODEL_PART + b"--B--\r\n"
    for _ in range(2):
        with crowd(node, 3, beginning):
            refused = until(lambda: refusal(node.post(TRANSCRIPTIONS, whole, FORM)), "the spool to be full")
            assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
            assert refused.header("retry-after") == "1"
        until(lambda: node.post(TRANSCRIPTIONS, whole, FORM).status == 200, "room")


def refusal(answer: Answer) -> Answer | None:
    return None if answer.status == 200 else answer


# --- gone -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closes", "resets", "half-closes"])
def test_leaving_at_any_byte(node: GatewayNode, how: str) -> None:
    """Behind every few bytes of a request: it reaches the provider only if it was whole."""
    node.sim.reset()
    raw = node.request(CHAT, chat_body("sim-m+tokens=2"))
    for sent in range(0, len(raw), 3):
        call = node.open(raw[:sent])
        if how == "half-closes":
            call.socket.shutdown(socket.SHUT_WR)
            assert call.closed()
            call.close()
        elif how == "resets":
            call.reset()
        else:
            call.close()
    assert node.chat().status == 200
    assert len(node.sim.requests()) == 1


def test_leaving_in_the_middle_of_an_answer(node: GatewayNode) -> None:
    node.sim.reset()
    raw = node.request(CHAT, chat_body("sim-m+tokens=2000+token-ms=5", stream=True))
    for how in ("close", "reset") * 15:
        call = node.open(raw)
        call.head()
        getattr(call, how)()
    until(lambda: node.metrics("gateway_open_streams") == 0, "streams to be gone")
    until(lambda: all(entry["ended"] for entry in node.sim.requests()), "the provider's streams to end")
    entries = node.sim.requests()
    assert len(entries) == 30
    assert {entry["ended"] for entry in entries} == {"aborted"}


def test_leaving_an_upload_gives_everything_back(node: GatewayNode) -> None:
    head = node.request(TRANSCRIPTIONS, b"", {**FORM, "transfer-encoding": "chunked"})
    piece = MODEL_PART + FILE_PART + b"x" * (3 * MB)  # beyond the spool: on its way to the provider
    for _ in range(10):
        call = node.open(head)
        call.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        call.reset()
    whole = MODEL_PART + FILE_PART + b"x" * (MB + MB // 2) + b"\r\n--B--\r\n"
    until(lambda: node.post(TRANSCRIPTIONS, whole, FORM).status == 200, "room")
    assert [node.post(TRANSCRIPTIONS, whole, FORM).status for _ in range(4)] == [200] * 4
