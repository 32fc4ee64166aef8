"""HTTP as a provider must take it, and the log that tells tests what arrived and when a peer left."""

import asyncio
import hashlib
import json
import time

import pytest

from tests.unit.bench.sim.harness import CHAT, Sim, ending, request, with_sim


def test_a_connection_serves_one_request_after_another_and_pipelined_ones_in_order() -> None:
    async def scenario(sim: Sim) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(request("/echo/1", b"") + request("/echo/2", b""))
        assert b"/echo/1" in await reader.readuntil(b"}")
        assert b"/echo/2" in await reader.readuntil(b"}")
        writer.write(request("/echo/3", b""))
        assert b"/echo/3" in await reader.readuntil(b"}")
        writer.close()

    with_sim(scenario)


def test_too_many_requests_behind_a_silent_one_end_the_connection() -> None:
    async def scenario(sim: Sim) -> None:
        got = await sim.send(request("/echo", b"", {"x-sim": "stall=before"}) + request("/echo", b"") * 70)
        assert got.ended in ("fin", "reset")
        assert got.raw == b""

    with_sim(scenario)


def test_echo_shows_the_request_as_it_came() -> None:
    async def scenario(sim: Sim) -> None:
        got = await sim.post("/echo/some/path?q=%20x", b"\x00\xff", headers={"X-B": "2", "X-a": "1"})
        seen = got.json
        assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/echo/some/path", "q=%20x")
        assert seen["headers"] == [["host", "sim"], ["content-length", "2"], ["x-b", "2"], ["x-a", "1"]]
        assert (seen["body_len"], seen["body_b64"]) == (2, "AP8=")
        assert seen["body_sha256"] == hashlib.sha256(b"\x00\xff").hexdigest()
        large = await sim.post("/echo", b"x" * 65537)
        assert (large.json["body_len"], large.json["body_b64"]) == (65537, None)

    with_sim(scenario)


def test_a_chunked_body_is_read() -> None:
    async def scenario(sim: Sim) -> None:
        raw = b"POST /echo HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        assert (await sim.send(raw)).json["body_sha256"] == hashlib.sha256(b"abcde").hexdigest()

    with_sim(scenario)


def test_a_caller_that_waits_to_be_asked_is_asked() -> None:
    async def scenario(sim: Sim) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(b"POST /echo HTTP/1.1\r\nHost: s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    with_sim(scenario)


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"GET /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_not_http_gets_400_and_the_door(raw: bytes) -> None:
    async def scenario(sim: Sim) -> None:
        got = await sim.send(raw)
        assert (got.status, got.ended) == (400, "fin")

    with_sim(scenario)


def test_an_old_client_gets_no_chunks_and_head_gets_no_body() -> None:
    async def scenario(sim: Sim) -> None:
        body = json.dumps({**CHAT, "stream": True}).encode()
        old = await sim.send(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert old.raw.startswith(b"HTTP/1.0 200")
        assert b"chunked" not in old.head
        got = await sim.send(request("/v1/models", b"", method="HEAD"))
        assert (got.status, got.body) == (200, b"")

    with_sim(scenario)


@pytest.mark.parametrize("leave", ["close", "reset", "half-close"])
def test_a_peer_that_leaves_is_noticed_at_once(leave: str) -> None:
    async def scenario(sim: Sim) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(request("/v1/chat/completions", {**CHAT, "model": "m+stall=content", "stream": True}))
        await reader.readuntil(b"\n\n")
        left = time.monotonic()
        if leave == "half-close":
            writer.write_eof()
        elif leave == "reset":
            writer.transport.abort()
        else:
            writer.close()
        entry = await ending(sim)
        assert entry.aborted_by_peer
        assert entry.aborted_ms is not None
        assert entry.started_monotonic_ms + entry.aborted_ms - left * 1000 < 100
        writer.close()

    with_sim(scenario)


def test_a_bug_answers_500_and_the_sim_lives_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(sim: Sim) -> None:
        app = sim.server.app
        sim.server.app = None  # type: ignore[assignment]
        assert (await sim.chat("")).status == 500
        sim.server.app = app
        assert (await sim.chat("")).status == 200

    with_sim(scenario)
    assert "sim failed on POST /v1/chat/completions" in caplog.text


def test_stopping_drops_the_connections_that_stand() -> None:
    async def scenario(sim: Sim) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(request("/echo", b"", {"x-sim": "stall=headers"}))
        await reader.readuntil(b"\r\n\r\n")
        await sim.server.stop()
        assert not sim.server.connections
        writer.close()

    with_sim(scenario)
