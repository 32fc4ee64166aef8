"""The relay on real sockets: failover before content, honesty after it, every time limit, and who stops whom.

The provider is told how to fail by the model's name (docs/sim.md). `first/…` has `second` behind it, which always
answers; `quick/…` the same under short limits; `alone/…` has the short limits and nobody behind it.
"""

import json
import select
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.fakes.gateway_node import PROVIDER_KEY, GatewayNode, running, until
from tests.fakes.patience import PATIENCE_S
from tests.fakes.wire_client import Answer, Call

pytestmark = pytest.mark.slow

MB = 1024 * 1024
BOTH = [{"provider": "sim", "model": "*"}, {"provider": "claude", "model": "*"}]
QUICK = {"connect_s": 1, "first_byte_s": 0.3, "first_content_s": 0.6, "idle_s": 0.5, "total_s": 1.5}
CONFIG: dict[str, Any] = {
    "providers": {"dead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": PROVIDER_KEY}},
    "models": {
        "quick/*": {"targets": BOTH, "fallbacks": ["second"], "timeouts": QUICK},
        "alone/*": {"targets": BOTH, "timeouts": QUICK},
        "held/*": {"targets": BOTH, "fallbacks": ["second"], "timeouts": {"first_content_s": 2}},
        "held-alone/*": {"targets": BOTH, "timeouts": {"first_content_s": 2}},
        "unreachable": {"targets": [{"provider": "dead", "model": "m"}], "fallbacks": ["second"]},
        "nowhere": {"targets": [{"provider": "dead", "model": "m"}]},
        "worse": {"targets": [{"provider": "sim", "model": "w+status=503+message=last-words"}]},
        "bad-to-worse/*": {"targets": [{"provider": "sim", "model": "*"}], "fallbacks": ["worse"]},
        "four": {
            "targets": [
                {"provider": "sim", "model": f"{at}+status=500", "weight": 1 if at == 1 else 0} for at in range(1, 5)
            ]
        },
    },
    "routes": [{"name": "patient", "match": {"model": "held*"}, "hold_s": 0.2, "keepalive_comment_s": 0.2}],
}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running(CONFIG) as running_node:
        yield running_node


@pytest.fixture(autouse=True)
def _fresh(node: GatewayNode) -> None:
    node.sim.reset()


def causes(answer: Answer) -> list[str]:
    """What `x-gateway-attempts` says came of each attempt."""
    count, _, told = answer.header("x-gateway-attempts").partition("; ")
    found = [part.rpartition("=")[2].split(" ")[0] for part in told.split(", ")]
    assert len(found) == int(count)
    return found


# --- before content -------------------------------------------------------------------------------------------------

BEFORE_CONTENT = [
    ("first", "status=408", "upstream_status(408)"),
    ("first", "status=429", "upstream_status(429)"),
    ("first", "status=500", "upstream_status(500)"),
    ("first", "status=503+retry-after=1", "upstream_status(503)"),
    ("first", "status=401", "provider_configuration(401)"),
    ("first", "status=402", "provider_configuration(402)"),
    ("first", "status=403", "provider_configuration(403)"),
    ("first", "status=404", "provider_configuration(404)"),
    ("first", "reset=before", "upstream_reset"),
    ("first", "reset=headers", "upstream_reset(200)"),
    ("first", "truncate=before", "upstream_reset"),
    ("first", "truncate=headers", "upstream_reset(200)"),
    ("first", "garbage=head", "upstream_protocol_error"),
    ("first", "garbage=chunk+chunked", "upstream_protocol_error(200)"),
    ("first", "error=0", "upstream_error_in_stream(200)"),
    ("quick", "stall=before", "upstream_timeout"),
    ("quick", "ttft-ms=5000", "upstream_timeout"),
    ("quick", "slow-headers=5000", "upstream_timeout"),
    ("quick", "stall=headers", "upstream_timeout(200)"),
    ("quick", "silence=5000", "upstream_timeout(200)"),
]
ONLY_STREAMS = [
    ("first", "reset=1", "upstream_reset(200)"),
    ("first", "truncate=1", "upstream_reset(200)"),
    ("first", "cut=1", "upstream_empty(200)"),
    ("first", "empty", "upstream_empty(200)"),
    ("first", "garbage=body", "upstream_empty(200)"),
    ("quick", "think=5000", "upstream_timeout(200)"),
    ("quick", "stall=1+ping=2", "upstream_timeout(200)"),
]
ONLY_WHOLE = [
    ("first", "reset=4", "upstream_reset(200)"),
    ("first", "truncate=4", "upstream_reset(200)"),
    ("first", "content-length-lie=9", "upstream_reset(200)"),
    ("quick", "stall=4", "upstream_timeout(200)"),
]
CASES = [
    *[(True, *case) for case in BEFORE_CONTENT + ONLY_STREAMS],
    *[(False, *case) for case in BEFORE_CONTENT + ONLY_WHOLE],
]


@pytest.mark.parametrize(("stream", "model", "behaviour", "cause"), CASES)
def test_before_content_the_next_target_answers(
    node: GatewayNode, stream: bool, model: str, behaviour: str, cause: str
) -> None:
    answer = node.chat(f"{model}/m+{behaviour}", stream=stream)
    assert (answer.status, answer.ended) == (200, "whole"), answer
    assert causes(answer) == [cause, "ok"]
    assert answer.header("x-gateway-target") == "sim/backup"
    said = answer.events[0] if stream else answer.json
    assert said["model"] == "backup"
    if stream:
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert b'"error"' not in answer.body


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", ["status=529", "status=401", "reset=headers", "error=0", "garbage=head"])
def test_before_content_in_the_other_dialect(node: GatewayNode, behaviour: str, stream: bool) -> None:
    answer = node.message(f"first/m+{behaviour}", stream=stream)
    assert (answer.status, answer.ended) == (200, "whole"), answer
    assert len(causes(answer)) == 2
    assert answer.header("x-gateway-target") == "claude/backup"


def test_a_ping_and_the_opening_are_no_content(node: GatewayNode) -> None:
    answer = node.message("first/m+reset=1+ping=2", stream=True)
    assert causes(answer) == ["upstream_reset(200)", "ok"]
    answer = node.post("/v1/responses", {"model": "first/m+reset=2", "input": "a", "stream": True, "store": False})
    assert causes(answer) == ["upstream_reset(200)", "ok"]
    assert answer.events[-1]["type"] == "response.completed"


def test_nobody_listens(node: GatewayNode) -> None:
    assert causes(node.chat("unreachable")) == ["upstream_connect_error", "ok"]
    alone = node.chat("nowhere")
    assert (alone.status, causes(alone)) == (502, ["upstream_connect_error"])
    assert alone.json["error"]["code"] == "upstream_connect_error"
    assert "127.0.0.1" not in alone.body.decode()


def test_an_empty_answer_that_is_complete_is_an_answer(node: GatewayNode) -> None:
    answer = node.chat("first/m+empty=done", stream=True)
    assert (answer.status, answer.body, answer.ended) == (200, b"data: [DONE]\n\n", "whole")
    assert causes(answer) == ["ok"]


def test_all_failed_and_the_last_provider_has_the_word(node: GatewayNode) -> None:
    for stream in (False, True):
        answer = node.chat("bad-to-worse/m+status=429", stream=stream)
        assert answer.status == 503
        assert answer.json["error"]["message"] == "last-words"
        assert causes(answer) == ["upstream_status(429)", "upstream_status(503)"]


def test_no_more_attempts_than_the_route_allows(node: GatewayNode) -> None:
    answer = node.chat("four")
    assert answer.status == 500
    assert len(causes(answer)) == 3
    assert len(node.sim.requests()) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_the_callers_fault_is_returned_as_it_was_said(node: GatewayNode, status: int) -> None:
    answer = node.chat(f"first/m+status={status}+message=mind your words+code=odd")
    assert answer.status == status
    assert answer.json["error"]["message"] == "mind your words"
    assert answer.json["error"]["code"] == "odd"
    assert answer.header("x-gateway-attempts").startswith("1; ")
    assert len(node.sim.requests()) == 1


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_is_our_fault_is_not_shown_as_the_callers(node: GatewayNode, status: int) -> None:
    said = {"error": {"message": f"Incorrect API key provided: {PROVIDER_KEY}", "type": "x", "code": "x"}}
    node.sim.script({"match": {"model": "strict"}, "reply": {"status": status, "body": said}})
    answer = node.chat("sim-strict")
    assert answer.status == 502
    assert answer.json["error"]["code"] == "provider_configuration"
    assert causes(answer) == [f"provider_configuration({status})"]
    assert PROVIDER_KEY not in answer.body.decode() + node.log()


def test_what_may_create_something_is_not_sent_twice(node: GatewayNode) -> None:
    body = {"model": "first/m+status=503", "input": "a"}
    once = node.post("/v1/responses", body)
    assert (once.status, len(node.sim.requests())) == (503, 1)
    assert node.post("/v1/responses", {**body, "store": False}).status == 200
    assert len(node.sim.requests()) == 3


def test_a_kept_connection_that_died_is_replaced_without_a_word(node: GatewayNode) -> None:
    """The provider closes its idle connections; the next request finds out, and nobody else does."""
    node.chat("sim-m")
    node.sim.script({"match": {"path": "/v1/*"}, "behave": "close"})
    assert node.chat("sim-m").status == 200
    answers = [node.chat("sim-m") for _ in range(5)]
    assert [causes(answer) for answer in answers] == [["ok"]] * 5


# --- after content --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["truncate=4", "reset=4", "cut=4", "reset=content", "stall=4"])
def test_a_chat_that_breaks_off_ends_honestly(node: GatewayNode, behaviour: str) -> None:
    before = node.metrics("gateway_streams_truncated_total")
    answer = node.chat(f"quick/m+tokens=50+{behaviour}", stream=True)
    assert (answer.status, answer.ended) == (200, "cut")
    *chunks, last = answer.events
    assert all(chunk["model"] == "m+tokens=50+" + behaviour for chunk in chunks)
    assert last["error"]["code"] == "upstream_truncated"
    assert b"[DONE]" not in answer.body
    assert answer.header("x-gateway-attempts").startswith("1; ")
    assert node.metrics("gateway_streams_truncated_total") == before + 1
    assert node.logged(answer.header("x-request-id"))["ending"] == "truncated"


def test_a_message_that_breaks_off_ends_honestly(node: GatewayNode) -> None:
    answer = node.message("first/m+truncate=5", stream=True)
    assert answer.ended == "cut"
    event, data = answer.body.decode().strip().split("\n\n")[-1].splitlines()
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["type"] == "api_error"
    assert b"message_stop" not in answer.body


def test_a_response_that_breaks_off_ends_honestly(node: GatewayNode) -> None:
    answer = node.post("/v1/responses", {"model": "sim-m+truncate=6", "input": "a", "stream": True})
    assert answer.ended == "cut"
    assert answer.events[-1]["type"] == "error"
    assert answer.events[-1]["code"] == "upstream_truncated"


def test_a_file_that_breaks_off_is_cut_and_nothing_is_added(node: GatewayNode) -> None:
    body = {"model": "sim-m+truncate=3", "input": "say this " * 9, "voice": "alloy"}
    answer = node.post("/v1/audio/speech", body)
    assert (answer.status, answer.ended) == (200, "cut")
    assert answer.body.startswith(b"RIFF")
    assert b"error" not in answer.body


def test_an_error_behind_content_goes_out_as_it_was_said(node: GatewayNode) -> None:
    answer = node.chat("first/m+error=4+message=sorry", stream=True)
    assert answer.ended == "cut"
    (error,) = [event["error"] for event in answer.events if "error" in event]
    assert error["message"] == "sorry"


def test_all_choices_finished_is_complete_without_the_mark(node: GatewayNode) -> None:
    whole = node.chat("sim-m+tokens=2", stream=True, n=2)
    pieces = whole.body.split(b"\n\n")
    marks = len(pieces) - 2  # all but [DONE] and the emptiness behind it; usage comes last and is withheld
    answer = node.chat(f"sim-m+tokens=2+cut={marks}", stream=True, n=2)
    assert (answer.status, answer.ended) == (200, "whole")
    short = node.chat(f"sim-m+tokens=2+cut={marks - 1}", stream=True, n=2)
    assert short.ended == "cut"  # one choice has not finished


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "setting", "at_least_s"),
    [
        ("ttft-ms=9000", "first_byte_s", 0.3),
        ("think=9000", "first_content_s", 0.6),
        ("stall=before", "first_byte_s", 0.3),
    ],
)
def test_a_limit_before_content_is_a_504_that_names_it(
    node: GatewayNode, behaviour: str, setting: str, at_least_s: float
) -> None:
    started = time.monotonic()
    answer = node.chat(f"alone/m+{behaviour}", stream=True)
    assert at_least_s <= time.monotonic() - started < at_least_s + 6  # the provider would have taken longer
    assert (answer.status, answer.json["error"]["code"]) == (504, "upstream_timeout")
    assert setting in answer.json["error"]["message"]
    assert node.sim.ended()["aborted_by_peer"]


@pytest.mark.parametrize(
    ("behaviour", "setting", "at_least_s"), [("stall=5", "idle_s", 0.5), ("tokens=900+token-ms=50", "total_s", 1.5)]
)
def test_a_limit_after_content_ends_the_stream(
    node: GatewayNode, behaviour: str, setting: str, at_least_s: float
) -> None:
    started = time.monotonic()
    answer = node.chat(f"alone/m+{behaviour}", stream=True)
    assert at_least_s <= time.monotonic() - started < at_least_s + 6  # the provider would have taken longer
    assert (answer.status, answer.ended) == (200, "cut")
    assert setting in answer.events[-1]["error"]["message"]
    assert node.sim.ended()["aborted_by_peer"]


@pytest.mark.parametrize("behaviour", ["stall=headers", "stall=1", "think=9000"])
def test_a_held_stream_is_kept_alive_and_failover_stays_open(node: GatewayNode, behaviour: str) -> None:
    started = time.monotonic()
    with node.open(node.request("/v1/chat/completions", {**STREAM, "model": f"held/m+{behaviour}"})) as call:
        answer = call.head()
        headed = time.monotonic()
        answer.body = b"".join(call.pieces())
    assert headed - started >= 0.2
    assert time.monotonic() - headed >= 0.3  # the head did not wait for the content
    assert answer.header("content-type").startswith("text/event-stream")
    assert answer.header("x-gateway-route") == "patient"
    comments, _, rest = answer.body.partition(b"data: ")
    assert comments.count(b": keep-alive\n\n") >= 3
    assert comments.replace(b": keep-alive\n\n", b"") == b""
    assert json.loads(rest.split(b"\n\n")[0])["model"] == "backup"
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_a_held_stream_that_nobody_can_serve_ends_with_an_error_event(node: GatewayNode) -> None:
    answer = node.chat("held-alone/m+stall=headers", stream=True)
    assert (answer.status, answer.ended) == (200, "cut")
    assert answer.body.startswith(b": keep-alive\n\n")
    assert answer.events[-1]["error"]["code"] == "upstream_timeout"


def test_a_slow_answer_without_a_stream_is_waited_for(node: GatewayNode) -> None:
    answer = node.chat("held/m+ttft-ms=500")
    assert (answer.status, answer.json["object"]) == (200, "chat.completion")


# --- who stops whom -------------------------------------------------------------------------------------------------

STREAM = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


def test_a_slow_reader_pauses_the_provider_and_memory_is_bounded(node: GatewayNode) -> None:
    size = 60 * MB
    model = f"sim-slow+big={size}"
    before = rss(node)
    raw = node.request("/v1/chat/completions", {**STREAM, "model": model})
    with node.open(raw, receive_buffer=4096) as call:
        call.head()

        def settled() -> int:
            first = sent(node, model)
            time.sleep(0.15)  # what still grows within this is not paused
            return first if first and sent(node, model) == first else 0

        paused_at = node.until(settled, "the provider to be paused")
        assert paused_at < size // 2
        assert rss(node) - before < 16 * MB
        body = b"".join(call.pieces())
    assert body.endswith(b"data: [DONE]\n\n")
    assert sum(len(json.loads(line[6:])["choices"][0]["delta"].get("content", "")) for line in data_of(body)) == size
    assert node.sim.ended(model)["ended"] == "complete"


def data_of(body: bytes) -> list[bytes]:
    return [line for line in body.splitlines() if line.startswith(b"data: {")]


def sent(node: GatewayNode, model: str) -> int:
    return int(node.sim.last(model)["bytes_sent"])


def rss(node: GatewayNode) -> int:
    (worker,) = node.workers()
    with open(f"/proc/{worker}/statm") as statm:  # noqa: PTH123 - one line of a virtual file
        return int(statm.read().split()[1]) * 4096


LEAVING = {
    "in the middle of a stream": ("tokens=900+token-ms=10", True, True),
    "before content": ("think=9000", True, False),
    "before the head": ("ttft-ms=9000", True, False),
    "before a whole answer": ("ttft-ms=9000", False, False),
    "with the provider paused": ("big=60000000", True, True),
}


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("when", LEAVING)
def test_a_caller_who_leaves_stops_the_provider_within_100_ms(node: GatewayNode, when: str, how: str) -> None:
    behaviour, stream, headed = LEAVING[when]
    took_ms = []
    for attempt in range(3):  # the best of three: the bound is the gateway's, the scheduling is the machine's
        model = f"sim-{attempt}+{behaviour}"
        call = node.open(node.request("/v1/chat/completions", {**STREAM, "stream": stream, "model": model}))
        if headed:
            call.head()
            next(call.pieces())
        node.until(partial(node.sim.requests, model), "the provider to be asked")
        left_ms = time.monotonic() * 1000
        call.reset() if how == "reset" else call.close()
        entry = node.sim.ended(model)
        assert entry["aborted_by_peer"], entry
        took_ms.append(entry["started_monotonic_ms"] + entry["aborted_ms"] - left_ms)
    assert min(took_ms) <= 100, took_ms


class Unread:
    """A provider that accepts connections and reads nothing, until it is asked to wait for the end."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.settimeout(PATIENCE_S)
        self.port = self.listening.getsockname()[1]

    def accepted(self) -> socket.socket:
        accepted, _ = self.listening.accept()
        accepted.settimeout(PATIENCE_S)
        return accepted


def test_a_caller_who_leaves_a_paused_upload_stops_the_provider() -> None:
    unread = Unread()
    config = {
        "providers": {"unread": {"kind": "openai", "base_url": f"http://127.0.0.1:{unread.port}", "api_key": "k"}}
    }
    with unread.listening, running(config) as node:
        took_s = []
        for _ in range(3):
            head = node.request("/passthrough/unread/files", b"", {"Content-Length": str(1 << 40)})
            call = node.open(head)
            sender = threading.Thread(target=_send_until_stopped, args=(call,))
            sender.start()
            with unread.accepted() as provider:
                node.until(partial(_is_stuck, call), "the upload to be paused")
                left = time.monotonic()
                call.socket.shutdown(socket.SHUT_RDWR)
                sender.join()
                call.close()
                with suppress(ConnectionResetError):
                    while provider.recv(1 << 20):
                        pass
                took_s.append(time.monotonic() - left)
        assert min(took_s) < 0.25, took_s  # the watch looks every 50 ms, and megabytes have to be drained first
        assert rss(node) < 200 * MB


def _send_until_stopped(call: Call) -> None:
    with suppress(OSError):
        while True:
            call.socket.sendall(bytes(65536))


def _is_stuck(call: Call) -> bool:
    """Whether the caller's socket has been full for a while: nobody takes its bytes."""
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        if _writable(call.socket):
            return False
        time.sleep(0.01)
    return True


def _writable(sock: socket.socket) -> bool:
    return bool(select.select([], [sock], [], 0)[1])


def test_one_fast_stream_does_not_starve_the_others(node: GatewayNode) -> None:
    """How much of the stream passes while another is answered, which no machine is too slow for."""
    size, read = 80_000_000, 0
    with node.open(node.request("/v1/chat/completions", {**STREAM, "model": f"sim-fast+big={size}"})) as fast:

        def read_on() -> None:
            nonlocal read
            for piece in fast.pieces():
                read += len(piece)

        fast.head()
        reader = threading.Thread(target=read_on)
        reader.start()
        passed = []
        while reader.is_alive():
            before = read
            assert node.chat("sim-m+tokens=2").status == 200
            passed.append(read - before)
        reader.join()
    assert statistics.median(passed) < size / 4  # whoever is starved waits for the end of the stream


def test_open_streams_are_counted_while_they_are_open(node: GatewayNode) -> None:
    with node.open(node.request("/v1/chat/completions", {**STREAM, "model": "sim-m+tokens=900+token-ms=20"})) as call:
        call.head()
        node.until(lambda: node.metrics("gateway_open_streams") == 1, "an open stream in the metrics")
    node.until(lambda: node.metrics("gateway_open_streams") == 0, "no open stream in the metrics")
    until(lambda: node.metrics("gateway_abandoned_total", model="sim-*") > 0, "an abandoned exchange")
