"""Who may call what, and what every answer says: identity, models, routes, headers, logs, stored objects, health.

Whether the surfaces work is shown by the SDKs (test_sdk_*.py); here are the rules around them, one request at a time.
"""

import json
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.gateway_node import (
    DISABLED_KEY,
    EXPIRED_KEY,
    KEY,
    LIMITED_KEY,
    PROVIDER_KEY,
    GatewayNode,
    chat_body,
    running,
)

pytestmark = pytest.mark.slow

NOBODY = "gw-" + "n" * 43
CHAT = "/v1/chat/completions"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CONFIG: dict[str, Any] = {
    "providers": {
        "theirs": {"kind": "openai", "base_url": "@SIM@/v1", "credential": "caller"},
        "acme": {"kind": "openai", "base_url": "@SIM@/v1", "api_key": PROVIDER_KEY, "dedicated_to": "acme"},
        "others": {"kind": "openai", "base_url": "@SIM@/v1", "api_key": PROVIDER_KEY, "dedicated_to": ["umbrella"]},
    },
    "models": {
        "own-key": {"targets": [{"provider": "theirs", "model": "m"}]},
        "dedicated": {"targets": [{"provider": "others", "model": "m"}, {"provider": "acme", "model": "m"}]},
        "only-claude": {"targets": [{"provider": "claude", "model": "m"}]},
    },
    "routes": [
        {"name": "speech", "match": {"path": "/v1/audio/*"}},
        {"name": "ui-renamed", "match": {"model": "renamed", "labels": {"app": "ui"}}},
        {"name": "renamed", "match": {"model": "ren*"}},
        {"name": "raw", "match": {"path": "/passthrough/*"}},
    ],
}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running(CONFIG) as running_node:
        yield running_node


@pytest.fixture(autouse=True)
def _fresh(node: GatewayNode) -> None:
    node.sim.reset()


# --- identity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", f"Bearer {KEY}"),
        ("authorization", f"bearer  {KEY} "),
        ("x-api-key", KEY),
        ("Api-Key", KEY),
        ("x-goog-api-key", KEY),
    ],
)
def test_every_way_to_show_a_key(node: GatewayNode, header: tuple[str, str], path: str) -> None:
    body = {**chat_body("sim-m"), "max_tokens": 9}
    answer = node.post(path, body, {header[0]: header[1], "x-goog-other": "kept"}, key="")
    assert answer.status == 200
    sent = node.sim.last()["headers"]
    own = ("x-api-key", PROVIDER_KEY) if path == "/v1/messages" else ("authorization", f"Bearer {PROVIDER_KEY}")
    shown = {"authorization", "x-api-key", "api-key", "x-goog-api-key"}
    assert [tuple(pair) for pair in sent if pair[0] in shown] == [own]
    assert KEY not in json.dumps(sent)
    assert ["x-goog-other", "kept"] in sent


REFUSED = [
    ("", 401, "missing_api_key"),
    (NOBODY, 401, "invalid_api_key"),
    (EXPIRED_KEY, 401, "expired_api_key"),
    (DISABLED_KEY, 403, "disabled_api_key"),
]


@pytest.mark.parametrize(("key", "status", "code"), REFUSED)
def test_a_key_that_is_refused_is_told_why_in_the_callers_dialect(
    node: GatewayNode, key: str, status: int, code: str
) -> None:
    answer = node.post(CHAT, chat_body("sim-m"), key=key)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert answer.json["error"]["type"] == "invalid_request_error"
    message = node.post("/v1/messages", chat_body("sim-m"), key=key)
    kinds = {401: "authentication_error", 403: "permission_error"}
    assert (message.status, message.json["error"]["type"]) == (status, kinds[status])
    assert message.json["request_id"] == message.header("x-request-id")
    for other in ("/v1/models", "/passthrough/raw/echo"):
        assert node.get(other, key=key).status == status
    assert node.sim.requests() == []
    assert not key or key not in answer.body.decode() + message.body.decode() + node.log()


def test_two_keys_that_differ_are_refused(node: GatewayNode) -> None:
    assert node.post(CHAT, chat_body("sim-m"), {"x-api-key": NOBODY}).status == 401
    assert node.post(CHAT, chat_body("sim-m"), {"x-api-key": KEY}).status == 200


def test_a_key_is_judged_before_its_body_has_come(node: GatewayNode) -> None:
    with node.open(node.request(CHAT, b"", {"Content-Length": "1000"}, key=NOBODY)) as call:
        assert call.answer().status == 401


def test_a_key_uses_its_own_models_only(node: GatewayNode) -> None:
    answer = node.post(CHAT, chat_body("renamed"), key=LIMITED_KEY)
    assert (answer.status, answer.json["model"]) == (200, "upstream-name")
    refused = node.post(CHAT, chat_body("second"), key=LIMITED_KEY)
    assert (refused.status, refused.json["error"]["code"]) == (403, "model_not_allowed")
    assert refused.json["error"]["param"] == "model"
    unknown = node.post(CHAT, chat_body("no-such-model"))
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    listed = [model["id"] for model in node.get("/v1/models", key=LIMITED_KEY).json["data"]]
    assert listed == ["renamed"]
    assert node.get("/passthrough/raw/echo", key=LIMITED_KEY).status == 403


def test_a_callers_own_provider_key_is_forwarded_where_the_provider_says_so(node: GatewayNode) -> None:
    answer = node.post(CHAT, chat_body("own-key"), {"x-gateway-key": KEY, "authorization": f"Bearer {PROVIDER_KEY}"})
    assert answer.status == 200
    assert dict(node.sim.last()["headers"])["authorization"] == f"Bearer {PROVIDER_KEY}"
    wrong = node.post(CHAT, chat_body("own-key"), {"x-gateway-key": KEY, "authorization": "Bearer sk-mine-but-wrong"})
    assert wrong.status == 401  # it is the caller's own trouble here
    assert "x-gateway-key" not in dict(node.sim.last()["headers"])


# --- models, routes -------------------------------------------------------------------------------------------------


def test_models_are_those_of_the_config_in_the_callers_dialect(node: GatewayNode) -> None:
    names = ["second", "renamed", "own-key", "dedicated", "only-claude"]
    listed = node.get("/v1/models").json
    assert [model["id"] for model in listed["data"]] == names
    assert {model["object"] for model in listed["data"]} == {"model"}
    theirs = node.get("/v1/models", {"anthropic-version": "2023-06-01"}).json
    assert [model["id"] for model in theirs["data"]] == names
    assert (theirs["first_id"], theirs["last_id"], theirs["has_more"]) == (names[0], names[-1], False)
    assert node.get("/v1/models/sim-with/slashes").json["id"] == "sim-with/slashes"
    assert node.get("/v1/models/no-such").status == 404
    assert node.sim.requests() == []


def test_a_model_speaks_the_dialects_of_its_targets(node: GatewayNode) -> None:
    assert node.message("only-claude").status == 200
    refused = node.chat("only-claude")
    assert refused.status == 400
    assert "anthropic" in refused.json["error"]["message"]


def test_the_first_route_that_matches_wins(node: GatewayNode) -> None:
    assert node.chat("renamed").header("x-gateway-route") == "ui-renamed"
    assert node.post(CHAT, chat_body("renamed"), key=LIMITED_KEY).header("x-gateway-route") == "renamed"
    assert node.chat("sim-m").header("x-gateway-route") == "default"
    spoken = node.post("/v1/audio/speech", {"model": "renamed", "input": "a", "voice": "v"})
    assert spoken.header("x-gateway-route") == "speech"
    assert node.get("/passthrough/raw/echo").header("x-gateway-route") == "raw"
    shown = node.command("check", "--route", "/v1/chat/completions", "renamed", "app=ui")
    assert shown.returncode == 0
    assert "ui-renamed" in shown.stdout


def test_paths_and_methods(node: GatewayNode) -> None:
    for path in ("/", "/v1", "/v1/chat/completions/", "/v2/chat/completions", "/v1/chat%2fcompletions", "//v1/models"):
        answer = node.get(path)
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found"), path
    for method, path in (("GET", CHAT), ("POST", "/v1/models"), ("DELETE", "/v1/messages")):
        assert node.post(path, b"", method=method).status == 405, (method, path)
    assert node.post("/passthrough/raw/echo/../v1/models", b"", method="GET").status == 404
    assert node.sim.requests() == []


def test_query_strings_travel(node: GatewayNode) -> None:
    node.post(CHAT + "?api-version=2024-10-21&a=%20b", chat_body("sim-m"))
    assert node.sim.last()["query"] == "api-version=2024-10-21&a=%20b"


# --- headers of an answer -------------------------------------------------------------------------------------------


def test_every_answer_says_how_it_came_about(node: GatewayNode) -> None:
    answer = node.chat("first/m+status=500", stream=True)
    assert re.fullmatch(r"req_[0-9a-f]{22}", answer.header("x-request-id"))
    assert re.fullmatch(r"2; sim/m\+status=500=upstream_status\(500\) \d+ms, sim/backup=ok \d+ms",
                        answer.header("x-gateway-attempts"))  # fmt: skip
    assert answer.header("x-gateway-changed") == "model, stream_options.include_usage"
    timing = re.fullmatch(r"gw;dur=(\d+\.\d+), upstream;dur=(\d+\.\d+)", answer.header("server-timing"))
    assert timing is not None
    assert float(timing[1]) < 1000
    refused = node.post(CHAT, b"{")
    assert refused.has("x-request-id")
    assert refused.has("server-timing")
    assert not refused.has("x-gateway-attempts")


def test_server_timing_tells_our_time_from_the_providers(node: GatewayNode) -> None:
    answer = node.chat("sim-m+ttft-ms=300")
    timing = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.header("server-timing")))
    assert float(timing["upstream"]) >= 299  # a timer may fire up to a millisecond early
    assert float(timing["gw"]) < 300


def test_request_ids_differ_and_are_found_in_the_log(node: GatewayNode) -> None:
    answers = [node.chat("sim-m"), node.post(CHAT, b"{"), node.post(CHAT, b"{}", key=NOBODY), node.get("/nowhere")]
    ids = [answer.header("x-request-id") for answer in answers]
    assert len(set(ids)) == 4
    lines = [node.logged(request_id) for request_id in ids]
    assert [line["status"] for line in lines] == [200, 400, 401, 404]
    assert lines[0]["key_id"] == "demo"
    assert lines[0]["target"] == "sim/m"
    assert lines[0]["output_tokens"] > 0
    assert "hello there" not in node.log()  # never a body


def test_a_trace_is_continued(node: GatewayNode) -> None:
    given = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    answer = node.chat("sim-m", headers=given)
    sent = node.sim.last()["headers"]
    (parent,) = [value for name, value in sent if name == "traceparent"]
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", parent)
    assert "b7ad6b7169203331" not in parent
    assert dict(sent)["tracestate"] == "vendor=1"
    assert node.logged(answer.header("x-request-id"))["trace_id"] == TRACE


@pytest.mark.parametrize(
    "given", ["", "00-zz-zz-01", f"ff-{TRACE}-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01"]
)
def test_a_trace_that_is_none_is_begun(node: GatewayNode, given: str) -> None:
    node.chat("sim-m", headers={"traceparent": given, "tracestate": "vendor=1"} if given else {})
    sent = dict(node.sim.last()["headers"])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]", sent["traceparent"])
    assert "tracestate" not in sent
    assert "0" * 32 not in sent["traceparent"]


# --- stored objects -------------------------------------------------------------------------------------------------

STORED = [
    ("/v1/responses", {"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
    ("/v1/responses", {"input": "a", "conversation": "conv_1"}, "conversation"),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input"),
    ("/v1/responses", {"input": "a", "tools": [{"type": "file_search", "vector_store_ids": ["vs"]}]}, "tools"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "messages"),
]


@pytest.mark.parametrize(("path", "body", "named"), STORED)
def test_stored_objects_need_a_provider_of_the_callers_own(
    node: GatewayNode, path: str, body: dict[str, object], named: str
) -> None:
    refused = node.post(path, {"model": "sim-m", **body})
    assert (refused.status, refused.json["error"]["code"]) == (400, "stored_object_not_allowed")
    assert refused.json["error"]["param"].startswith(named)
    assert node.sim.requests() == []
    allowed = node.post(path, {"model": "dedicated", **body})
    assert allowed.status == 200, allowed
    assert allowed.header("x-gateway-target") == "acme/m"


# --- connections and health -----------------------------------------------------------------------------------------


def test_one_connection_serves_request_after_request(node: GatewayNode) -> None:
    raw = node.request(CHAT, chat_body("sim-m+tokens=2", stream=True))
    with node.open(raw) as call:
        assert call.answer().ended == "whole"
        for body in (chat_body("sim-m"), {"model": 3}, chat_body("no-such-model"), chat_body("sim-m+status=500")):
            call.send(node.request(CHAT, body))
            assert not call.answer().has("connection")
        call.send(node.request(CHAT, chat_body("sim-m"), {"Connection": "close"}))
        assert call.answer().header("connection") == "close"
        assert call.closed()


def test_requests_sent_ahead_are_answered_in_order(node: GatewayNode) -> None:
    models = [f"sim-{at}+ttft-ms={100 - 30 * at}" for at in range(3)]
    with node.open(b"".join(node.request(CHAT, chat_body(model)) for model in models)) as call:
        answered = []
        reader = call.socket.makefile("rb")
        for _ in models:
            head = b"".join(iter(reader.readline, b"\r\n"))
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            answered.append(json.loads(reader.read(int(length[1])))["model"])
        reader.close()
    assert answered == [model.removeprefix("sim-") for model in models]


def test_http_1_0_is_answered_as_such(node: GatewayNode) -> None:
    raw = node.request(CHAT, chat_body("sim-m+tokens=3", stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with node.open(raw) as call:
        answer = call.answer()
    assert not answer.has("transfer-encoding")
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_health_on_both_ports_needs_no_key(node: GatewayNode) -> None:
    for path in ("/healthz", "/readyz"):
        assert node.get(path, key="").status == 200
    with socket.create_connection(("127.0.0.1", node.admin_port), 5) as admin:
        admin.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert admin.recv(65536).startswith(b"HTTP/1.1 200")


def test_the_admin_port_needs_its_token(node: GatewayNode) -> None:
    for path in ("/metrics", "/v1/keys", "/v1/targets"):
        with socket.create_connection(("127.0.0.1", node.admin_port), 5) as admin:
            admin.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            assert admin.recv(65536).startswith(b"HTTP/1.1 401")
    keys = node.admin("/v1/keys")
    assert KEY not in keys.body.decode()
    assert {key["id"] for key in keys.json["keys"]} >= {"demo", "limited"}
    assert PROVIDER_KEY not in node.admin("/v1/targets").body.decode()


# --- in front -------------------------------------------------------------------------------------------------------


def proxied_v2() -> bytes:
    """A PROXY protocol v2 header: TCP over IPv4, from 203.0.113.7:1234 to 127.0.0.1:80."""
    addresses = socket.inet_aton("203.0.113.7") + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 1234, 80)
    return b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses


def test_the_proxy_protocol_is_required_from_trusted_proxies() -> None:
    config = {"listen": {"proxy_protocol": True}, "trusted_proxies": ["127.0.0.0/8"]}
    with running(config, preface=b"PROXY UNKNOWN\r\n") as behind:
        raw = behind.request(CHAT, chat_body("sim-m"))
        for header in (b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n", b"PROXY UNKNOWN\r\n", proxied_v2()):
            assert behind.call(header + raw).status == 200
        for header in (b"", b"PROXY TCP4 nonsense\r\n"):
            assert behind.call(header + raw).status == 400
