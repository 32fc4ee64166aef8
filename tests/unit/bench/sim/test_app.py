"""Which behaviour, which dialect, which answer; and the endpoints tests steer by."""

from itertools import product

from tests.unit.bench.sim.harness import CHAT, MESSAGE, Sim, request, with_sim

CHAT_PATH = "/v1/chat/completions"


def test_the_header_goes_before_the_model_the_model_before_the_script_the_script_before_the_defaults() -> None:
    rules = {"defaults": {"tokens": 4, "retry-after": "9"}, "rules": [{"match": {"model": "r*"}, "behave": "tokens=3"}]}

    async def scenario(sim: Sim) -> None:
        async def tokens(model: str, header: str = "") -> int:
            got = await sim.post(CHAT_PATH, {**CHAT, "model": model}, headers={"x-sim": header})
            assert b"retry-after: 9" in got.head  # of the script's defaults; nobody overrides it
            counted: int = got.json["usage"]["completion_tokens"]
            return counted

        assert await tokens("r+tokens=2", "tokens=1") == 1
        assert await tokens("r+tokens=2") == 2
        assert await tokens("r") == 3
        assert await tokens("other") == 4

    with_sim(scenario, rules=rules, behave="tokens=5; retry-after=8")


def test_errors_have_the_shape_of_their_dialect() -> None:
    async def scenario(sim: Sim) -> None:
        limited = await sim.post(CHAT_PATH, {**CHAT, "model": "m+status=429+retry-after=3+message=slow down"})
        assert limited.status == 429
        assert b"retry-after: 3" in limited.head
        assert b"x-ratelimit-remaining-requests: 0" in limited.head
        assert limited.json["error"] == {
            "message": "slow down",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }
        busy = await sim.post("/v1/messages", {**MESSAGE, "model": "m+status=529"})
        assert busy.status == 529
        assert busy.json["error"] == {"type": "overloaded_error", "message": "Overloaded"}
        assert f"request-id: {busy.json['request_id']}".encode() in busy.head

    with_sim(scenario)


def test_requests_a_provider_refuses() -> None:
    cases: list[tuple[str, object, int]] = [
        (CHAT_PATH, b"{", 400),
        (CHAT_PATH, {"messages": [{}]}, 400),
        (CHAT_PATH, {"model": "m"}, 400),
        (CHAT_PATH, {"model": "m", "messages": []}, 400),
        (CHAT_PATH, {**CHAT, "n": 0}, 400),
        (CHAT_PATH, {**CHAT, "max_tokens": "9"}, 400),
        (CHAT_PATH, {**CHAT, "model": "m+nonsense"}, 400),
        ("/v1/messages", CHAT, 400),
        ("/v1/images/generations", {"model": "m", "prompt": "p", "n": 99}, 400),
        ("/v1/audio/transcriptions", {"model": "m"}, 400),
        ("/v1/nothing", CHAT, 404),
    ]

    async def scenario(sim: Sim) -> None:
        for path, body, status in cases:
            got = await sim.post(path, body)
            assert (path, body, got.status) == (path, body, status)
            assert got.json["error"]["message"]
        assert (await sim.send(request(CHAT_PATH, b"", method="DELETE"))).status == 405

    with_sim(scenario)


def test_strange_values_are_survived() -> None:
    names = ("messages", "tools", "tool_choice", "response_format", "stop", "stream_options", "system", "model")
    strange: list[object] = [None, 0, "x", [], {}, [None], [{"content": [{"text": 3}]}], True]

    async def scenario(sim: Sim) -> None:
        for name, value, path in product(names, strange, (CHAT_PATH, "/v1/messages", "/v1/responses")):
            body = {**MESSAGE, "input": CHAT["messages"], name: value}
            assert (await sim.post(path, body)).status in (200, 400)

    with_sim(scenario)


def test_a_key_can_be_required() -> None:
    async def scenario(sim: Sim) -> None:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer wrong"}, 401),
            ({"authorization": "Bearer right"}, 200),
            ({"x-api-key": "right"}, 200),
        ):
            assert (await sim.post(CHAT_PATH, CHAT, headers=headers)).status == status
        refused = await sim.post("/v1/messages", MESSAGE)
        assert refused.json["error"]["type"] == "authentication_error"

    with_sim(scenario, api_key="right")


def test_fixed_answers_are_served_as_their_bytes_stand() -> None:
    rules = {
        "rules": [
            {"match": {"model": "a"}, "reply": {"status": 418, "headers": {"X-Tea": "pot"}, "body": {"a": 1}}},
            {"match": {"model": "b"}, "reply": {"sse": "data: 1\r\n\r\n: odd\n\ndata: 2"}},
            {"match": {"model": "c"}, "reply": {"raw": "HTTP/1.1 200 OK\r\nbroken\xff"}},
            {"match": {"model": "d"}, "text": "Just this."},
        ]
    }

    async def scenario(sim: Sim) -> None:
        tea = await sim.post(CHAT_PATH, {"model": "a"})
        assert (tea.status, tea.body) == (418, b'{"a":1}')
        assert tea.head.split(b"\r\n")[1:] == [
            b"content-type: application/json",
            b"x-tea: pot",
            b"content-length: 7",
            b"connection: keep-alive",
        ]
        assert (await sim.post(CHAT_PATH, {"model": "b"})).body == b"data: 1\r\n\r\n: odd\n\ndata: 2"
        raw = await sim.post(CHAT_PATH, {"model": "c"})
        assert (raw.raw, raw.ended) == (b"HTTP/1.1 200 OK\r\nbroken\xff", "fin")
        said = await sim.post(CHAT_PATH, {"model": "d", "messages": CHAT["messages"]})
        assert said.json["choices"][0]["message"]["content"] == "Just this."

    with_sim(scenario, rules=rules)


def test_the_script_is_replaced_and_restored_at_run_time() -> None:
    async def scenario(sim: Sim) -> None:
        taken = await sim.post("/__sim/script", {"rules": [{"match": {"nth": 2}, "behave": {"status": 503}}]})
        assert taken.json == {"ok": True, "rules": 1}
        assert [(await sim.chat("")).status for _ in range(3)] == [200, 503, 200]
        assert (await sim.post("/__sim/script", {"rules": [{"x": 1}]})).status == 400
        await sim.post("/__sim/reset", b"")
        assert [(await sim.chat("")).status for _ in range(2)] == [200, 200]

    with_sim(scenario)


def test_the_log_tells_what_was_seen() -> None:
    async def scenario(sim: Sim) -> None:
        await sim.chat("cut=2")
        form = b'--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n1234\r\n--B--'
        await sim.post("/v1/audio/transcriptions", form, headers={"Content-Type": "multipart/form-data; boundary=B"})
        first, second = (await sim.get("/__sim/requests")).json["requests"]
        assert (first["n"], first["model"], first["events_sent"]) == (1, "m+tokens=3+cut=2", 2)
        assert (first["ended"], first["aborted_by_peer"]) == ("complete", False)
        assert (second["upload_bytes"], second["status"]) == (4, 400)
        await sim.post("/__sim/reset", b"")
        assert (await sim.get("/__sim/requests")).json == {"requests": []}

    with_sim(scenario)


def test_models_are_listed_in_either_dialect() -> None:
    async def scenario(sim: Sim) -> None:
        plain = await sim.get("/v1/models")
        assert plain.json["object"] == "list"
        other = await sim.get("/v1/models", {"anthropic-version": "2023-06-01"})
        assert other.json["has_more"] is False
        one = await sim.get("/v1/models/any")
        assert one.json["id"] == "any"

    with_sim(scenario)
