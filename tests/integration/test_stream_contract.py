"""What a provider answers is what the caller reads: streams however they are split, whole answers, and files.

The event streams are fixed bytes (a script of sim's), fetched through the gateway and directly: in whole, one byte a
send, and randomly split; with usage asked for by the caller, and with the one event withheld that came only because
the gateway had asked.
"""

import json
from collections.abc import Iterator

import pytest

from tests.fakes.gateway_node import PROVIDER_KEY, GatewayNode, running
from tests.fakes.wire_client import Answer, Call, request

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running() as running_node:
        yield running_node


@pytest.fixture(autouse=True)
def _fresh(node: GatewayNode) -> None:
    node.sim.reset()


def direct(node: GatewayNode, path: str, body: object) -> Answer:
    """The same request, sent to the provider itself."""
    headers = {"authorization": f"Bearer {PROVIDER_KEY}", "content-type": "application/json"}
    with Call(int(node.sim.url.rpartition(":")[2]), request("POST", path, body, headers)) as call:
        return call.answer()


def chunk(text: str, **more: object) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}, ensure_ascii=False)


LAST = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})
MARK = "data: [DONE]\n\n"
# In each, \x01 stands around the event that exists only because usage was asked for.
STREAMS = {
    "plain": f"data: {chunk('a')}\n\ndata: {chunk('b')}\n\ndata: {LAST}\n\n\x01data: {USAGE}\n\n\x01{MARK}",
    "crlf": f"data: {chunk('a')}\r\n\r\ndata: {LAST}\r\n\r\n\x01data: {USAGE}\r\n\r\n\x01data: [DONE]\r\n\r\n",
    "cr": f"data: {chunk('a')}\r\rdata: {LAST}\r\r\x01data: {USAGE}\r\r\x01data: [DONE]\r\r",
    "no space": f"data:{chunk('a')}\n\ndata:{LAST}\n\n\x01data:{USAGE}\n\n\x01data:[DONE]\n\n",
    "comments": f": hi\n\n: there\ndata: {chunk('a')}\n: in between\n\ndata: {LAST}\n\n\x01data: {USAGE}\n\n\x01{MARK}",
    "named": f"event: x\nid: 7\nretry: 1\ndata: {chunk('a')}\n\ndata: {LAST}\n\n\x01id: 8\ndata: {USAGE}\n\n\x01{MARK}",
    "several lines": f'data: {{"choices":\ndata: [{{"delta":{{"content":"x"}}}}]}}\n\ndata: {LAST}\n\n{MARK}',
    "unicode": f"data: {chunk('žluť 漢字 🎈')}\n\ndata: {LAST}\n\n\x01data: {USAGE}\n\n\x01{MARK}",
    "usage on content": f"data: {chunk('a', usage={'prompt_tokens': 1})}\n\ndata: {LAST}\n\n{MARK}",
    "usage early": f"\x01data: {USAGE}\n\n\x01data: {chunk('a')}\n\ndata: {LAST}\n\n{MARK}",
    "blank lines": f"\n\n\ndata: {chunk('a')}\n\n\n\ndata: {LAST}\n\n\x01\ndata: {USAGE}\n\n\x01\n{MARK}\n",
    "no mark": f"data: {chunk('a')}\n\ndata: {LAST}\n\n",
    "half a line behind": f"data: {chunk('a')}\n\ndata: {LAST}\n\n{MARK}: bye",
    "not json": f"data: hello\n\ndata: {chunk('a')}\n\ndata: {{nope\n\ndata: {LAST}\n\n{MARK}",
    "large": f"data: {chunk('L' * 200_000)}\n\ndata: {LAST}\n\n\x01data: {USAGE}\n\n\x01{MARK}",
}
SPLITS = ["", "+split=1", "+split=7", "+split=random"]


@pytest.mark.parametrize("asked", [True, False], ids=["usage asked", "usage withheld"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_arrives_as_sent_however_it_is_split(node: GatewayNode, name: str, asked: bool) -> None:
    before, _, rest = STREAMS[name].partition("\x01")
    withheld, _, behind = rest.partition("\x01")
    sent = (before + withheld + behind).encode()
    expected = sent if asked else (before + behind).encode()
    node.sim.script({"match": {"model": "stream*"}, "reply": {"sse": sent.decode()}})
    options = {"include_usage": True} if asked else None
    splits = SPLITS if name != "large" else ["", "+split=3000", "+split=65536"]
    for split in splits:
        answer = node.chat("sim-stream" + split, stream=True, stream_options=options)
        assert (answer.status, answer.ended) == (200, "whole"), answer
        assert answer.body == expected, split
        assert answer.header("content-type") == "text/event-stream"
    asked_directly = direct(node, "/v1/chat/completions", {"model": "stream" + splits[-1], "stream": True})
    assert asked_directly.body == sent


MESSAGES = (
    'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
    'event: ping\ndata: {"type": "ping"}\n\n'
    'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text"}}\n\n'
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"text":"é🎈"}}\n\n'
    'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    '"usage":{"output_tokens":9}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
RESPONSES = (
    'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{}}\n\n'
    'event: response.output_item.added\ndata: {"type":"response.output_item.added","sequence_number":1,"item":{}}\n\n'
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":2,"delta":"é"}\n\n'
    'event: response.completed\ndata: {"type":"response.completed","sequence_number":3,"response":{"usage":'
    '{"input_tokens":3,"output_tokens":9}}}\n\n'
)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("path", "sent"), [("/v1/messages", MESSAGES), ("/v1/responses", RESPONSES)])
def test_other_dialects_arrive_as_sent(node: GatewayNode, path: str, sent: str, split: str) -> None:
    node.sim.script({"match": {"model": "stream*"}, "reply": {"sse": sent}})
    body = {"model": "sim-stream" + split, "stream": True, "max_tokens": 9, "messages": [], "input": "x"}
    answer = node.post(path, body)
    assert (answer.status, answer.ended, answer.body) == (200, "whole", sent.encode())


def test_answers_that_are_not_streams_arrive_as_sent(node: GatewayNode) -> None:
    odd = '{ "choices":[ ],\t"x":1.00, "y":"\u00e9\\u00e9" }\n\n'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(odd.encode('latin-1'))}\r\n\r\n"
    node.sim.script({"match": {"model": "odd"}, "reply": {"raw": head + odd}})
    answer = node.chat("sim-odd")
    assert answer.body == odd.encode("latin-1")
    assert answer.header("content-length") == str(len(answer.body))
    large = node.chat("sim-m+big=3000000")
    assert len(large.json["choices"][0]["message"]["content"]) == 3_000_000
    chunked = node.chat("sim-m+big=3000000+chunked")
    assert chunked.json["choices"] == large.json["choices"]


def test_binary_answers_arrive_as_sent(node: GatewayNode) -> None:
    body = {"model": "sim-m", "input": "say this", "voice": "alloy", "response_format": "mp3"}
    answer = node.post("/v1/audio/speech", body)
    expected = direct(node, "/v1/audio/speech", body)
    assert answer.body == expected.body
    assert answer.header("content-type") == expected.header("content-type") == "audio/mpeg"


def test_an_encoded_answer_is_decoded_where_it_is_read(node: GatewayNode) -> None:
    plain = node.chat("sim-m+tokens=5")
    packed = node.chat("sim-m+tokens=5+gzip")
    assert packed.json["choices"] == plain.json["choices"]
    assert not packed.has("content-encoding")
    streamed = node.chat("sim-m+tokens=5+gzip+split=3", stream=True)
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in streamed.events)
    assert text == plain.json["choices"][0]["message"]["content"]
    assert streamed.body.endswith(b"data: [DONE]\n\n")


def test_only_listed_headers_of_a_provider_reach_the_caller(node: GatewayNode) -> None:
    headers = {"x-ratelimit-remaining-requests": "5", "set-cookie": "a=b", "openai-organization": "ours", "x-odd": "1"}
    kept = {"openai-processing-ms": "12", "retry-after": "7", "x-request-id": "req_upstream"}
    node.sim.script({"match": {"model": "canned"}, "reply": {"headers": {**headers, **kept}, "body": {"a": 1}}})
    answer = node.chat("sim-canned")
    assert answer.json == {"a": 1}
    assert [name for name in headers if answer.has(name)] == []
    assert (answer.header("openai-processing-ms"), answer.header("retry-after")) == ("12", "7")
    assert answer.header("x-gateway-upstream-request-id") == "req_upstream"
    assert answer.header("x-request-id") not in ("", "req_upstream")
