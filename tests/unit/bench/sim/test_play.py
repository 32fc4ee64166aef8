"""Faults of the connection and of time, over real sockets: what arrives, how it ends, and when."""

import asyncio
import gzip
import time

import pytest

from tests.unit.bench.sim.harness import CHAT, MESSAGE, Heard, Sim, ending, request, with_sim

DONE = b"data: [DONE]"


def heard(behaviour: str, *, stream: bool = True) -> Heard:
    kept: list[Heard] = []

    async def scenario(sim: Sim) -> None:
        kept.append(await sim.chat(behaviour, stream=stream))

    with_sim(scenario)
    return kept[0]


@pytest.mark.parametrize(
    ("point", "events", "ended"),
    [("before", None, "reset"), ("headers", 0, "reset"), ("content", 2, "reset"), ("3", 3, "reset")],
)
def test_reset(point: str, events: int | None, ended: str) -> None:
    got = heard(f"reset={point}")
    assert got.ended == ended
    assert (got.raw == b"") if events is None else (len(got.events) == events)


@pytest.mark.parametrize(("point", "events"), [("before", None), ("headers", 0), ("content", 2), ("3", 3)])
def test_truncate_ends_with_fin_inside_the_framing(point: str, events: int | None) -> None:
    got = heard(f"truncate={point}")
    assert got.ended == "fin"
    assert not got.raw.endswith(b"0\r\n\r\n")
    assert (got.raw == b"") if events is None else (len(got.events) == events)


@pytest.mark.parametrize(("point", "events"), [("before", None), ("headers", 0), ("content", 2), ("3", 3)])
def test_stall_leaves_the_connection_open_and_silent(point: str, events: int | None) -> None:
    got = heard(f"stall={point}")
    assert got.ended == "open"
    assert not got.raw.endswith(b"0\r\n\r\n")
    assert (got.raw == b"") if events is None else (len(got.events) == events)


def test_cut_ends_the_framing_well_and_the_stream_early() -> None:
    got = heard("cut=3")
    assert got.raw.endswith(b"0\r\n\r\n")
    assert len(got.events) == 3
    assert DONE not in got.raw


@pytest.mark.parametrize(("fault", "ended"), [("truncate=4", "fin"), ("reset=4", "reset"), ("stall=4", "open")])
def test_a_whole_body_breaks_half_way(fault: str, ended: str) -> None:
    got = heard(fault, stream=False)
    claimed = int(got.head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert got.ended == ended
    assert claimed * 0.4 < len(got.body) < claimed * 0.7


def test_an_error_inside_a_200() -> None:
    got = heard("error=1; code=rate_limit_exceeded".replace("; ", "+"))
    assert got.status == 200
    assert got.events[1]["error"]["code"] == "rate_limit_exceeded"
    assert len(got.events) == 2
    assert got.raw.endswith(b"0\r\n\r\n")
    whole = heard("error", stream=False)
    assert whole.status == 200
    assert whole.json["error"]["type"] == "server_error"


def test_garbage() -> None:
    assert not heard("garbage=head").raw.startswith(b"HTTP/")
    assert b"\r\n\r\nzz-not-a-size\r\n" in heard("garbage=chunk").raw
    body = heard("garbage=body")
    assert body.status == 200
    assert b"data:" not in body.raw


def test_empty() -> None:
    assert heard("empty").body == b""
    assert heard("empty=done").body == DONE + b"\n\n"
    assert b"content-length: 0" in heard("empty", stream=False).head


def test_pings_and_line_ends() -> None:
    assert heard("ping=2").body.startswith(b": ping\n\n: ping\n\ndata: ")
    crlf = heard("cr").body
    assert crlf.endswith(DONE + b"\r\n\r\n")
    assert crlf.count(b"\n") == crlf.count(b"\r\n")


def test_framing() -> None:
    lied = heard("content-length-lie=5")
    assert lied.ended == "fin"
    assert f"content-length: {len(lied.body) + 5}".encode() in lied.head
    old = heard("http10")
    assert old.raw.startswith(b"HTTP/1.0 200")
    assert old.ended == "fin"
    assert old.body.endswith(DONE + b"\n\n")
    closed = heard("close")
    assert (closed.ended, b"connection: close" in closed.head) == ("fin", True)
    assert b"transfer-encoding: chunked" in heard("chunked", stream=False).head
    assert heard("interim").raw.startswith(b"HTTP/1.1 103 Early Hints\r\n")


@pytest.mark.parametrize("stream", [True, False])
def test_gzip_whatever_was_accepted(*, stream: bool) -> None:
    got = heard("gzip", stream=stream)
    assert b"content-encoding: gzip" in got.head
    assert b'"role":"assistant"' in gzip.decompress(got.body)


@pytest.mark.parametrize("split", ["1", "7", "random"])
def test_a_split_changes_the_sends_and_not_the_bytes(split: str) -> None:
    async def scenario(sim: Sim) -> None:
        got = await sim.chat(f"split={split}+close")
        assert len(got.events) == 5
        assert got.body.endswith(DONE + b"\n\n")

    with_sim(scenario)


def test_a_split_answer_really_leaves_in_pieces() -> None:
    async def scenario(sim: Sim) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(request("/v1/chat/completions", {**CHAT, "model": "m+tokens=3+split=16"}))
        sizes = [len(await reader.read(4096)) for _ in range(5)]
        assert max(sizes) < 400  # in one send the answer would come as one read of over a kilobyte
        writer.close()

    with_sim(scenario)


async def arrival_ms(sim: Sim, behaviour: str) -> tuple[float, float, float]:
    """When the head, the first and the last byte of the body came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    began = time.monotonic()
    writer.write(request("/v1/chat/completions", {**CHAT, "model": f"m+tokens=3+close+{behaviour}", "stream": True}))
    await reader.readuntil(b"\r\n\r\n")
    headed = time.monotonic()
    await reader.readuntil(b"\n\n")
    first = time.monotonic()
    await reader.read()
    writer.close()
    return (headed - began) * 1000, (first - began) * 1000, (time.monotonic() - began) * 1000


@pytest.mark.parametrize(
    ("behaviour", "head", "first", "last"),
    [
        ("ttft-ms=40", 38, 38, 38),
        ("silence=40", 0, 38, 38),
        ("think=40", 0, 0, 38),
        ("slow-headers=40", 30, 30, 30),
        ("token-ms=10", 0, 0, 38),
        ("tps=100", 0, 0, 38),
    ],
)
def test_time_is_taken_where_it_was_asked_for(behaviour: str, head: float, first: float, last: float) -> None:
    async def scenario(sim: Sim) -> None:
        times = await arrival_ms(sim, behaviour)
        assert all(took >= least for took, least in zip(times, (head, first, last), strict=True))
        prompt = [took for took, least in zip(times, (head, first, last), strict=True) if least == 0]
        assert all(took < times[2] for took in prompt)

    with_sim(scenario)


def test_pings_of_the_other_dialect_follow_its_first_event() -> None:
    async def scenario(sim: Sim) -> None:
        body = {**MESSAGE, "model": "m+ping=2", "stream": True}
        got = await sim.post("/v1/messages", body)
        assert [event["type"] for event in got.events][:3] == ["message_start", "ping", "ping"]
        failed = await sim.post("/v1/messages", {**body, "model": "m+error=1"})
        assert failed.events[1]["error"]["type"] == "overloaded_error"

    with_sim(scenario)


def test_a_peer_that_does_not_read_pauses_the_answer() -> None:
    async def scenario(sim: Sim) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port, limit=1024)
        size = 64 << 20
        writer.write(request("/v1/chat/completions", {**CHAT, "model": f"m+big={size}", "stream": True}))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.04)
        entry = sim.server.app.log.entries[-1]
        assert entry.bytes_sent < size / 2
        assert entry.ended == ""
        writer.transport.abort()
        assert (await ending(sim)).ended == "aborted"

    with_sim(scenario)
