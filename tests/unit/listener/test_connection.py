"""A caller's connection on a real socket: order, framing, early refusals, limits of time and size, leaving, uploads."""

import asyncio
import gc
import socket
import struct
import zlib
from ipaddress import ip_network
from typing import TYPE_CHECKING, cast

import pytest

from gateway.listener.body import Body
from gateway.listener.respond import Responder
from gateway.listener.waiting import MAX_ASIDE_BYTES
from gateway.relay.attempt import AttemptRun
from gateway.relay.reply import AnswerHead
from gateway.relay.upstream import FULL_READ_BYTES
from gateway.units import KIB
from tests.fakes.provider import (
    DONE,
    END,
    ROLE,
    STOP,
    STREAMED,
    TEXT,
    WHOLE,
    FakeProvider,
    answer,
    body_of,
    chunk,
    stream,
    turns,
)
from tests.fakes.served import CHAT, OK, Caller, Node, chat, get, served, until
from tests.fakes.transfer import run
from tests.fakes.wired import KEY

if TYPE_CHECKING:
    from gateway.identity.identify import Identity

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = chat(
    b"1\r\n{\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT) - 1, CHAT[1:]), "transfer-encoding: chunked", length=False
)
LONG = 100 * KIB
US = (ip_network("127.0.0.0/8"),)
OTHERS = (ip_network("203.0.113.0/24"),)


async def usable(caller: Caller) -> None:
    """The connection serves another request."""
    await caller.sends(chat())
    assert (await caller.answer()).body == WHOLE


async def closed(caller: Caller) -> None:
    """The connection has been closed, properly."""
    assert await caller.ended() == b""


def raw_upload(length: int, body: bytes = b"") -> bytes:
    """The beginning of an upload; a length of -1 sends it chunked."""
    framing = b"content-length: %d" % length if length >= 0 else b"transfer-encoding: chunked"
    head = chat(b"", path="/passthrough/fake/files", length=False)[:-2]
    return head + framing + b"\r\n\r\n" + body


# --- one request after another --------------------------------------------------------------------------------------


def test_a_connection_serves_request_after_request() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            for _ in range(3):
                await usable(caller)
            assert node.provider.dials == 1

    run(main())


@pytest.mark.parametrize("request_", [chat(), CHUNKED, get()], ids=["length", "chunked", "get"])
def test_a_request_cut_at_any_byte_is_the_same_request(request_: bytes) -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            for cut in range(1, len(request_)):
                await caller.sends(request_[:cut], request_[cut:])
                assert (await caller.answer()).status == 200
            bodies = {line.asked.count(b'{"model":"gpt-real","messages":[]}') for line in node.provider.lines}
            assert bodies == (set() if request_ == get() else {len(request_) - 1})

    run(main())


def test_a_request_byte_by_byte_is_the_same_request() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            caller.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for request in (chat(), CHUNKED):
                for byte in request:
                    caller.writer.write(bytes([byte]))
                    await asyncio.sleep(0)
                assert (await caller.answer()).body == WHOLE

    run(main())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            bodies = [b'{"model":"gpt","messages":[],"user":"%d"}' % number for number in range(5)]
            await caller.sends(b"".join(chat(body) for body in bodies) + get())
            for body in bodies:
                await until(lambda: provider.lines and provider.line.request)
                assert body_of(provider.line.request) == body.replace(b'"gpt"', b'"gpt-real"')
                provider.line.says(answer(200, body))
                assert (await caller.answer()).body == body
            assert b'"list"' in (await caller.answer()).body
            assert provider.dials == 1

    run(main())


def test_pipelined_requests_cut_anywhere_are_answered_in_order() -> None:
    requests = chat() + get() + CHUNKED + HEALTH + chat(b"{")
    statuses = [200, 200, 200, 200, 400]

    async def main() -> None:
        async with served() as node:
            for cut in range(1, len(requests), 3):
                caller = await node.caller()
                await caller.sends(requests[:cut], requests[cut:])
                assert [(await caller.answer()).status for _ in statuses] == statuses, cut
                caller.closes()

    run(main())


def test_what_was_set_aside_comes_before_what_is_read_next() -> None:
    """The answer ends while the same turn of the loop has more to read: bytes must not overtake each other."""

    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(chat())
            await until(lambda: provider.lines)
            second = chat(b'{"model":"gpt","messages":[],"user":"second"}')
            await caller.sends(second[:40])
            await until(lambda: any(connection._aside.size for connection in node.listener.connections))
            connection = next(iter(node.listener.connections))
            provider.line.says(OK)
            connection.data_received(second[40:])  # before the loop's next turn
            assert (await caller.answer()).status == 200
            await until(lambda: b"second" in provider.line.request)
            provider.line.says(OK)
            assert (await caller.answer()).status == 200

    run(main())


def test_more_than_64_kib_behind_an_open_exchange_closes_the_connection() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(chat())
            await until(lambda: provider.lines)
            await caller.sends(b"x" * MAX_ASIDE_BYTES)
            await asyncio.sleep(0.02)
            assert provider.line.is_open()
            await caller.sends(b"x")
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await caller.reader.readexactly(1)
            await until(lambda: not provider.line.is_open())
            assert node.wired.recorded[0].ending == "abandoned"

    run(main())


def test_connection_close_is_honoured_and_nothing_behind_it_is_served() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat(CHAT, "connection: close") + chat())
            answered = await caller.answer()
            assert (answered.status, answered.headers["connection"]) == (200, "close")
            await closed(caller)
            assert len(node.wired.recorded) == 1

    run(main())


def test_http_10_is_answered_without_chunks_and_closed_unless_asked() -> None:
    async def main() -> None:
        provider = FakeProvider()
        provider.always = (stream(ROLE, TEXT, STOP, DONE), END)
        async with served(provider) as node:
            caller = await node.caller()
            old = chat(STREAMED).replace(b"HTTP/1.1", b"HTTP/1.0")
            await caller.sends(old)
            answered = await caller.answer()
            assert "transfer-encoding" not in answered.headers
            assert answered.body == ROLE + TEXT + STOP + DONE
            kept = await node.caller()
            await kept.sends(get("/v1/models", "connection: keep-alive", version="1.0"))
            assert (await kept.answer()).headers["connection"] == "keep-alive"
            await kept.sends(get("/v1/models", version="1.0"))
            assert (await kept.answer()).headers["connection"] == "close"
            await closed(kept)

    run(main())


# --- refusals, and what the connection is good for afterwards -------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (chat(b"{"), 400, "invalid_request"),
        (chat(b'{"model":"nope","messages":[]}'), 404, "model_not_found"),
        (get("/v1/nothing"), 404, "not_found"),
        (get("/v1/chat/completions"), 405, "method_not_allowed"),
        (get(key=b""), 401, "missing_api_key"),
        (get(key=b"gw-unknown"), 401, "invalid_api_key"),
        (get(key=b"gw-expired"), 401, "expired_api_key"),
        (get(key=b"gw-disabled"), 403, "disabled_api_key"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_refusal_without_a_body_to_come_leaves_the_connection_usable(request_: bytes, status: int, code: str) -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(request_)
            answered = await caller.answer()
            assert (answered.status, answered.code) == (status, code)
            assert "connection" not in answered.headers
            await usable(caller)

    run(main())


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (chat(key=b""), 401, "missing_api_key"),
        (chat(key=b"gw-unknown"), 401, "invalid_api_key"),
        (chat(path="/v1/nothing"), 404, "not_found"),
        (chat(CHAT, path="/v1/models"), 405, "method_not_allowed"),
        (chat().replace(b"application/json", b"text/plain"), 415, "unsupported_media_type"),
        (chat(b"x" * 200), 413, "body_too_large"),
        (get("/v1/models", "content-length: 3") + b"abc", 400, "invalid_request"),
        (get("/v1/models", "transfer-encoding: gzip") + b"abc", 400, "malformed_http"),
        (get("/v1/" + "x" * 9000, "transfer-encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", 414, "uri_too_long"),
        (get("/v1/models", "expect: miracles"), 400, "malformed_http"),
        (get("/v1/models", "x: " + "y" * 40_000), 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed_http"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "malformed_http"),
        (b"nonsense\r\n\r\n", 400, "malformed_http"),
        (b"GET /\x01 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "malformed_http"),
        (chat(b"zz\r\n", "transfer-encoding: chunked", length=False), 400, "malformed_http"),
        (chat(CHAT, "content-length: 5"), 400, "malformed_http"),
    ],
)
def test_a_refusal_that_loses_the_framing_closes_and_nothing_behind_it_is_served(
    request_: bytes, status: int, code: str
) -> None:
    async def main() -> None:
        async with served(max_body_bytes=100) as node:
            caller = await node.caller()
            await caller.sends(request_ + chat(b'{"model":"gpt"}'))
            answered = await caller.answer()
            assert (answered.status, answered.code, answered.headers["connection"]) == (status, code, "close")
            await closed(caller)
            assert node.provider.dials == 0
            assert len(node.wired.recorded) == 1
            assert node.wired.recorded[0].error == code

    run(main())


@pytest.mark.parametrize("coded", [False, True], ids=["length", "chunked"])
def test_an_early_refusal_arrives_whole_while_the_body_is_still_on_its_way(*, coded: bool) -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            piece = b"x" * (64 * KIB)
            head = chat(b"", *(["transfer-encoding: chunked"] if coded else []), key=b"", length=False)
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if coded else piece
            await caller.sends(head if coded else head[:-2] + b"content-length: %d\r\n\r\n" % (8 * len(piece)))
            for _ in range(8):
                await caller.sends(framed)
            answered = await caller.answer()
            assert (answered.status, answered.whole) == (401, True)
            await closed(caller)

    run(main())


def test_a_refusal_whose_body_comes_later_arrives_whole() -> None:
    """What is wrong with the head hides how its body is framed; the body comes all the same."""

    async def main() -> None:
        async with served() as node:
            for _ in range(20):
                caller = await node.caller()
                await caller.sends(get("/v1/" + "x" * 9000, "transfer-encoding: chunked"), chunk(b"x" * LONG) + END)
                assert (await caller.answer()).code == "uri_too_long"
                await closed(caller)

    run(main())


def test_a_refusal_in_its_turn_closes_before_what_is_behind_it() -> None:
    async def main() -> None:
        async with served(unserved=1) as node:
            caller = await node.caller()
            await caller.sends(chat(CHAT, "content-encoding: br") + chat())
            answered = await caller.answer()
            assert (answered.code, answered.headers["connection"]) == ("unsupported_media_type", "close")
            await closed(caller)
            assert node.provider.dials == 0

    run(main())


def test_a_body_that_will_be_too_large_is_refused_before_it_comes() -> None:
    async def main() -> None:
        async with served(max_body_bytes=1000) as node:
            caller = await node.caller()
            await caller.sends(chat(b"", length=False)[:-2] + b"content-length: 1001\r\n\r\n")
            assert (await caller.answer()).code == "body_too_large"
            await closed(caller)

    run(main())


@pytest.mark.parametrize("coded", [False, True], ids=["length", "chunked"])
def test_the_size_limit_is_exact(*, coded: bool) -> None:
    body = CHAT[:-1] + b" " * 200 + b"}"

    def request() -> bytes:
        if coded:
            return chat(chunk(body) + END, "transfer-encoding: chunked", length=False)
        return chat(body)

    async def main() -> None:
        async with served(max_body_bytes=len(body)) as node:
            assert (await node.call(request())).status == 200
        async with served(max_body_bytes=len(body) - 1) as node:
            assert (await node.call(request())).code == "body_too_large"

    run(main())


def test_a_refused_caller_who_never_stops_sending_is_cut_off() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat(b"", key=b"", length=False)[:-2] + b"content-length: 99999999\r\n\r\n")
            assert (await caller.answer()).status == 401
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await caller.sends(*[b"x" * (64 * KIB)] * 1000)
            await until(lambda: not node.listener.connections)

    run(main())


def test_a_refused_caller_who_stays_is_closed_after_a_moment() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat(b"", key=b"", length=False)[:-2] + b"content-length: 99\r\n\r\n")
            assert (await caller.answer()).status == 401
            assert await caller.reader.read() == b""
            assert node.listener.connections
            node.passes(2.2)
            await until(lambda: not node.listener.connections)

    run(main())


def test_a_chunk_extension_without_end_is_refused_when_it_is_too_large() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            head = chat(b"1;", "transfer-encoding: chunked", length=False)
            await caller.sends(head, *[b"y" * 10_000] * 5)
            assert (await caller.answer()).code == "headers_too_large"
            await closed(caller)

    run(main())


def test_a_broken_request_behind_a_good_one_does_not_cost_the_good_one() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat() + b"nonsense\r\n\r\n")
            answered = await caller.answer()
            assert (answered.body, answered.headers["connection"]) == (WHOLE, "close")
            await closed(caller)
            large = await node.caller()
            await large.sends(chat() + get("/v1/models", "x: " + "y" * 40_000))
            assert (await large.answer()).body == WHOLE
            assert (await large.answer()).code == "headers_too_large"
            await closed(large)

    run(main())


def test_a_head_without_end_is_refused_when_it_is_too_large() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(b"GET /v1/models HTTP/1.1\r\nx: ", *[b"y" * 10_000] * 5)
            assert (await caller.answer()).code == "headers_too_large"
            await closed(caller)

    run(main())


def test_a_crash_of_ours_is_a_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with served() as node:
            node.wired.guard.refused = cast("set[bytes]", None)  # looking into it raises
            caller = await node.caller()
            await caller.sends(chat())
            assert (await caller.answer()).code == "internal_error"
            assert "TypeError" in caplog.text

    run(main())


@pytest.mark.parametrize("body", [CHAT, STREAMED])
def test_a_crash_while_the_answer_is_taken_in_ends_at_once(
    body: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with served() as node:
            monkeypatch.setattr(AttemptRun, "on_end", None)  # calling it raises
            monkeypatch.setattr(AttemptRun, "on_body", None)
            assert (await node.call(chat(body))).code == "upstream_error"
            assert "TypeError" in caplog.text

    run(main())


def test_a_crash_while_the_caller_is_answered_ends_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with served() as node:
            whole = Responder.whole

            def crash_once(responder: Responder, head: AnswerHead, body: bytes) -> None:
                monkeypatch.setattr(Responder, "whole", whole)
                raise ZeroDivisionError(responder, head, body)

            monkeypatch.setattr(Responder, "whole", crash_once)
            assert (await node.call(chat())).code == "internal_error"
            assert "ZeroDivisionError" in caplog.text

    run(main())


def test_a_crash_while_a_head_is_judged_is_a_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with served() as node:
            node.wired.gateway.identity = cast("Identity", None)
            caller = await node.caller()
            await caller.sends(chat())
            assert (await caller.answer()).code == "internal_error"
            await closed(caller)
            assert "AttributeError" in caplog.text

    run(main())


# --- health ---------------------------------------------------------------------------------------------------------


def test_health_checks_keep_the_connection() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            for _ in range(3):
                await caller.sends(HEALTH)
                answered = await caller.answer()
                assert (answered.status, answered.body) == (200, b'{"status":"ok"}')
                assert "connection" not in answered.headers
            await caller.sends(HEALTH.replace(b"GET", b"HEAD"))
            answered = await caller.answer("HEAD")
            assert (answered.status, answered.headers["content-length"]) == (200, "15")
            await usable(caller)

    run(main())


def test_readiness_says_why_not() -> None:
    async def main() -> None:
        async with served(unready=lambda: "draining") as node:
            answered = await node.call(HEALTH.replace(b"healthz", b"readyz"))
            assert (answered.status, answered.body) == (503, b'{"status":"unavailable","reason":"draining"}')
            assert (await node.call(HEALTH)).status == 200

    run(main())


def test_a_health_check_with_a_body_closes() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc" + chat())
            assert (await caller.answer()).headers["connection"] == "close"
            await closed(caller)
            assert node.provider.dials == 0

    run(main())


# --- Expect, Upgrade ------------------------------------------------------------------------------------------------


def test_100_continue_is_said_when_the_body_is_wanted() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            request = chat(CHAT, "expect: 100-continue")
            await caller.sends(request[: -len(CHAT)])
            assert (await caller.answer()).status == 100
            await caller.sends(CHAT)
            assert (await caller.answer()).body == WHOLE
            await usable(caller)

    run(main())


def test_100_continue_is_not_said_to_whom_is_refused() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat(CHAT, "expect: 100-continue", key=b"")[: -len(CHAT)])
            assert (await caller.answer()).status == 401
            await closed(caller)

    run(main())


def test_100_continue_is_not_said_to_http_10() -> None:
    async def main() -> None:
        async with served() as node:
            request = chat(CHAT, "expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
            assert (await node.call(request)).status == 200

    run(main())


@pytest.mark.parametrize("with_body", [False, True])
def test_an_offer_to_upgrade_is_answered_as_the_request_it_is(*, with_body: bool) -> None:
    lines = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQCAAAAAAIAAAAA")

    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat(CHAT, *lines) if with_body else get("/v1/models", *lines))
            answered = await caller.answer()
            assert (answered.status, answered.whole) == (200, True)
            if not with_body:
                assert answered.headers["connection"] == "close"
                await closed(caller)
            for line in node.provider.lines:
                assert b"pgrade" not in line.asked
                assert b"http2" not in line.asked

    run(main())


# --- time limits ----------------------------------------------------------------------------------------------------


def test_a_slow_head_is_refused() -> None:
    async def main() -> None:
        async with served(header_timeout_s=5) as node:
            caller = await node.caller()
            await caller.sends(chat()[:30])
            await until(lambda: node.listener.connections)
            await asyncio.sleep(0.01)
            node.passes(4)
            assert node.listener.connections
            node.passes(6)
            assert (await caller.answer()).code == "request_timeout"
            await closed(caller)

    run(main())


def test_a_body_without_progress_is_refused_in_its_own_time() -> None:
    async def main() -> None:
        async with served(header_timeout_s=5, body_timeout_s=2, keepalive_s=600) as node:
            caller = await node.caller()
            await usable(caller)
            node.passes(10)  # an idle connection is looked at again only when its idleness would be over
            await caller.sends(chat()[:-5])
            await until(node.listener.busy)
            node.passes(12.5)
            assert (await caller.answer()).code == "request_timeout"
            await closed(caller)

    run(main())


def test_an_idle_connection_is_closed_in_silence() -> None:
    async def main() -> None:
        async with served(header_timeout_s=1, keepalive_s=3) as node:
            caller = await node.caller()
            await usable(caller)
            node.passes(2)
            assert node.listener.connections
            node.passes(4)
            await closed(caller)
            assert len(node.wired.recorded) == 1

    run(main())


def test_a_caller_who_never_says_a_word_is_closed_in_silence() -> None:
    async def main() -> None:
        async with served(header_timeout_s=1, keepalive_s=3) as node:
            caller = await node.caller()
            await until(lambda: node.listener.connections)
            node.passes(4)
            await closed(caller)
            assert node.wired.recorded == []

    run(main())


def test_an_exchange_that_takes_long_is_no_idleness() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider, keepalive_s=3, header_timeout_s=1, body_timeout_s=1) as node:
            caller = await node.caller()
            await caller.sends(chat())
            await until(lambda: provider.lines)
            node.passes(50)
            provider.line.says(OK)
            assert (await caller.answer()).status == 200

    run(main())


# --- leaving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [Caller.closes, Caller.resets], ids=["fin", "rst"])
@pytest.mark.parametrize("sent", [0, 30, -5], ids=["nothing", "half a head", "half a body"])
def test_a_caller_who_leaves_before_its_request_is_whole(leave: object, sent: int) -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat()[:sent] if sent else b"")
            await until(lambda: node.listener.connections)
            await asyncio.sleep(0.005)
            assert callable(leave)
            leave(caller)
            await until(lambda: not node.listener.connections)
            assert node.provider.dials == 0

    run(main())


@pytest.mark.parametrize("leave", [Caller.closes, Caller.resets], ids=["fin", "rst"])
@pytest.mark.parametrize("said", [b"", stream(ROLE), stream(ROLE, TEXT)], ids=["waiting", "no content", "streaming"])
def test_a_caller_who_leaves_takes_the_provider_along(leave: object, said: bytes) -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(chat(STREAMED))
            await until(lambda: provider.lines and provider.line.request)
            if said:
                provider.line.says(said)
            assert callable(leave)
            leave(caller)
            await until(lambda: not provider.line.is_open())
            await until(lambda: node.wired.records)
            assert node.wired.recorded[0].ending == "abandoned"
            assert node.wired.recorded[0].attempts[0].cause == "caller_gone"

    run(main())


def test_a_caller_who_leaves_while_we_connect() -> None:
    async def main() -> None:
        provider = FakeProvider()
        provider.hangs = asyncio.Event()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(chat())
            await until(lambda: provider.dials)
            caller.closes()
            await until(lambda: node.wired.records)
            assert node.wired.recorded[0].ending == "abandoned"

    run(main())


def test_a_caller_who_leaves_in_the_moment_its_request_is_whole() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await caller.sends(chat()[:-1])
            await until(lambda: any(connection.exchanging for connection in node.listener.connections))
            connection = next(iter(node.listener.connections))
            transport = connection._transport
            assert transport is not None
            transport.set_protocol(asyncio.Protocol())  # its end is told once: by us, before the task's first step
            connection.data_received(chat()[-1:])
            connection.connection_lost(None)
            transport.abort()
            await turns()
            assert [record.key_id for record in node.wired.recorded] == ["demo"]

    run(main())


# --- a slow caller --------------------------------------------------------------------------------------------------


def test_a_caller_who_does_not_read_stops_the_provider_until_it_does() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(chat(STREAMED))
            await until(lambda: provider.lines and provider.line.request)
            caller.writer.transport.pause_reading()  # type: ignore[attr-defined] # uvloop's own transport
            provider.line.says(stream(ROLE, TEXT))
            sent = 0
            while provider.line.transport.is_reading():
                provider.line.says(chunk(TEXT * 1000))
                sent += 1
                await asyncio.sleep(0)
                assert sent < 1000
            caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
            reading = asyncio.ensure_future(caller.answer())
            await until(provider.line.transport.is_reading)
            provider.line.says(chunk(DONE), END)
            assert (await reading).body == ROLE + TEXT + TEXT * (1000 * sent) + DONE

    run(main())


@pytest.mark.parametrize("line", ["connection: keep-alive", "connection: close"])
def test_a_caller_who_never_reads_its_answer_does_not_stay_for_ever(line: str) -> None:
    big = answer(200, b'{"data":"' + b"x" * 1_000_000 + b'"}')

    async def main() -> None:
        async with served(always=[big], keepalive_s=3) as node:
            caller = await node.caller()
            await until(lambda: node.listener.connections)
            transport = next(iter(node.listener.connections))._transport
            assert transport is not None
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            caller.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await caller.sends(chat(CHAT, line))
            await until(lambda: node.wired.recorded)
            assert transport.get_write_buffer_size() > 0
            for seconds in (20, 40, 60):
                node.passes(seconds)
            await until(lambda: not node.listener.connections)

    run(main())


def test_a_caller_who_does_not_read_gets_no_further_answers_meanwhile() -> None:
    async def main() -> None:
        big = answer(200, b'{"data":"' + b"x" * 900_000 + b'"}')
        async with served(always=[big]) as node:
            caller = await node.caller()
            caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await caller.sends(*[chat()] * 40)
            await asyncio.sleep(0.1)
            assert len(node.wired.recorded) < 20, "answers are made faster than they are read, and pile up"
            caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(40):
                assert (await caller.answer()).whole

    run(main())


# --- uploads --------------------------------------------------------------------------------------------------------


def test_an_upload_begins_before_it_is_complete_and_arrives_as_sent() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            body = bytes(range(256)) * 4 * 200
            await caller.sends(raw_upload(len(body), body[:1000]))
            await until(lambda: provider.lines and body_of(provider.line.request) == body[:1000])
            await caller.sends(body[1000:])
            await until(lambda: body_of(provider.line.request) == body)
            provider.line.says(OK)
            assert (await caller.answer()).body == WHOLE
            await caller.sends(raw_upload(-1, chunk(body[:LONG])), chunk(body[LONG:]), END)
            await until(lambda: body_of(provider.line.request) == body if provider.line.request.endswith(END) else 0)
            provider.line.says(OK)
            assert (await caller.answer()).body == WHOLE
            assert provider.dials == 1

    run(main())


def test_an_upload_stops_while_the_provider_takes_no_more() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(10_000_000, b"x" * 1000))
            await until(lambda: provider.lines and provider.line.request)
            connection = provider.line.connection
            assert isinstance(connection, asyncio.Protocol)
            connection.pause_writing()
            await asyncio.sleep(0.02)
            before = len(provider.line.request)
            caller.writer.write(b"x" * 9_000_000)
            await asyncio.sleep(0.05)
            assert len(provider.line.request) == before
            connection.resume_writing()
            await until(lambda: len(body_of(provider.line.request)) == 9_001_000)
            caller.closes()

    run(main())


def test_an_upload_whose_beginning_is_too_much_for_the_provider_stops_at_once() -> None:
    async def main() -> None:
        provider = FakeProvider()

        async with served(provider) as node:
            provider.on_dial = lambda line: setattr(line.transport, "high_water", 500)
            caller = await node.caller()
            await caller.sends(raw_upload(10_000_000, b"x" * 1000))
            await until(lambda: provider.lines and provider.line.request)
            caller.writer.write(b"x" * 9_000_000)
            await asyncio.sleep(0.05)
            assert len(provider.line.request) < 200_000, "the rest of one read, and no more"
            provider.line.connection.resume_writing()
            await until(lambda: len(provider.line.request) > 9_000_000)
            caller.resets()

    run(main())


@pytest.mark.parametrize("leave", [Caller.closes, Caller.resets], ids=["fin", "rst"])
def test_a_caller_who_leaves_a_stopped_upload_is_noticed(leave: object) -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(10_000_000, b"x" * 1000))
            await until(lambda: provider.lines and provider.line.request)
            provider.line.connection.pause_writing()
            assert callable(leave)
            leave(caller)
            await until(lambda: not provider.line.is_open())

    run(main())


def test_an_answer_in_the_middle_of_an_upload_arrives_whole() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(400_000, b"x" * 1000))
            await until(lambda: provider.lines and provider.line.request)
            provider.line.says(answer(413, b"{}"))
            await caller.sends(b"x" * 399_000)
            answered = await caller.answer()
            assert (answered.status, answered.body) == (413, b"{}")
            await closed(caller)

    run(main())


def test_a_provider_that_breaks_off_in_the_middle_of_an_upload() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(400_000, b"x" * 1000))
            await until(lambda: provider.lines and provider.line.request)
            provider.line.resets()
            answered = await caller.answer()
            assert (answered.status, answered.code) == (502, "upstream_reset")
            await closed(caller)

    run(main())


def test_an_upload_that_turns_out_malformed_is_refused_and_its_attempt_given_up() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(-1, chunk(b"x" * 1000)))
            await until(lambda: provider.lines and provider.line.request)
            await caller.sends(b"zz\r\n")
            assert (await caller.answer()).code == "malformed_http"
            await until(lambda: not provider.line.is_open())
            await closed(caller)

    run(main())


def test_an_upload_that_is_malformed_in_the_read_that_begins_it() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(-1, chunk(b"x" * 1000) + b"zz\r\n"))
            assert (await caller.answer()).code == "malformed_http"
            await closed(caller)
            await turns()
            assert len(node.wired.recorded) == 1

    run(main())


def test_an_answer_that_comes_in_the_moment_of_a_refusal_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(-1, chunk(b"x" * 1000)))
            await until(lambda: provider.lines and provider.line.request)
            connection = next(iter(node.listener.connections))
            connection.resume_reading()
            connection.data_received(b"zz\r\n")
            provider.line.says(answer(200, b"never", b"application/x"))  # before the loop's next turn
            answered = await caller.answer()
            assert (answered.status, answered.code) == (400, "malformed_http")
            await closed(caller)
            assert caplog.records == []

    run(main())


def test_a_fast_upload_has_one_read_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 20 * 1024 * KIB
    turn, most, read = 0, 0, 0
    feed = Body.feed

    def counted(body: Body, data: bytes) -> None:
        nonlocal turn, most, read
        turn += len(data)
        most = max(most, turn)
        read += len(data)
        feed(body, data)

    def turned() -> None:
        nonlocal turn
        turn = 0
        if read < size:
            asyncio.get_running_loop().call_soon(turned)

    async def main() -> None:
        monkeypatch.setattr(Body, "feed", counted)
        async with served(max_body_bytes=size) as node:
            caller = await node.caller()
            caller.writer.write(chat(CHAT.ljust(size)))
            turned()
            assert (await caller.answer()).status == 200
            assert read == size
            assert FULL_READ_BYTES <= most <= 256 * KIB
            await usable(caller)

    run(main())


def test_a_stalled_upload_is_refused_in_time() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider, body_timeout_s=2) as node:
            caller = await node.caller()
            await caller.sends(raw_upload(400_000, b"x" * 1000))
            await until(lambda: provider.lines and provider.line.request)
            node.passes(20)
            assert (await caller.answer()).code == "request_timeout"
            await until(lambda: not provider.line.is_open())

    run(main())


def test_a_form_is_spooled_and_its_model_replaced() -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--b--\r\n'
    )

    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            request = chat(form, path="/v1/audio/transcriptions").replace(
                b"application/json", b"multipart/form-data; boundary=b"
            )
            await caller.sends(request)
            assert (await caller.answer()).status == 200
            assert b"gpt-real" in node.provider.line.asked
            await caller.sends(request.replace(b"--b--", b"xxxxx"))
            assert (await caller.answer()).code == "invalid_request"
            await usable(caller)

    run(main())


def test_an_encoded_body_is_decoded_on_its_way() -> None:
    async def main() -> None:
        async with served() as node:
            packed = zlib.compressobj(wbits=31)
            body = packed.compress(CHAT) + packed.flush()
            assert (await node.call(chat(body, "content-encoding: gzip"))).status == 200
            request = node.provider.line.asked
            assert b"content-encoding" not in request
            assert body_of(request) == CHAT.replace(b'"gpt"', b'"gpt-real"')

    run(main())


# --- the connection cap, drain --------------------------------------------------------------------------------------


def test_one_connection_too_many_is_told_so() -> None:
    async def main() -> None:
        async with served(max_connections=2) as node:
            first, second = await node.caller(), await node.caller()
            await usable(first)
            await usable(second)
            third = await node.caller()
            answered = await third.answer()
            assert (answered.status, answered.code, answered.headers["retry-after"]) == (503, "overloaded", "1")
            await closed(third)
            first.closes()
            await until(lambda: len(node.listener.connections) == 1)
            await usable(await node.caller())
            assert len(node.wired.recorded) == 3

    run(main())


def test_while_draining_answers_say_so_and_the_connection_closes() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            await usable(caller)
            node.listener.draining = True
            await caller.sends(chat())
            answered = await caller.answer()
            assert (answered.status, answered.headers["connection"]) == (200, "close")
            await closed(caller)

    run(main())


def test_a_drain_closes_idle_connections_and_no_others() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with served(provider) as node:
            idle, busy = await node.caller(), await node.caller()
            provider.always = (OK,)
            await usable(idle)
            provider.always = ()
            await busy.sends(chat())
            await until(lambda: provider.line.request)
            for connection in tuple(node.listener.connections):
                connection.close_if_idle()
            await closed(idle)
            assert node.listener.busy() == 1
            provider.line.says(OK)
            assert (await busy.answer()).status == 200

    run(main())


# --- the PROXY protocol ---------------------------------------------------------------------------------------------

V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([203, 0, 113, 9, 127, 0, 0, 1]) + struct.pack(">HH", 1, 2)
V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n"


def client_ip(node: Node) -> str:
    return node.wired.recorded[-1].sealed.split("|")[3]


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_proxy_header_names_the_caller_however_it_is_cut(header: bytes) -> None:
    async def main() -> None:
        async with served(proxy_protocol=True, trusted_proxies=US) as node:
            sent = header + get()
            for cut in range(1, len(header) + 3):
                caller = await node.caller()
                await caller.sends(sent[:cut], sent[cut:])
                assert (await caller.answer()).status == 200
                assert client_ip(node) == "203.0.113.9"
                await caller.sends(get())
                assert (await caller.answer()).status == 200
                caller.closes()

    run(main())


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"], ids=["v1", "v2"])
def test_a_proxy_that_speaks_for_itself_is_the_caller(header: bytes) -> None:
    async def main() -> None:
        async with served(proxy_protocol=True, trusted_proxies=US) as node:
            assert (await node.call(header + get())).status == 200
            assert client_ip(node) == "127.0.0.1"

    run(main())


@pytest.mark.parametrize("sent", [V1 + get(), V2 + get(), get()], ids=["v1", "v2", "none"])
def test_a_proxy_header_from_anyone_else_is_refused(sent: bytes) -> None:
    async def main() -> None:
        async with served(proxy_protocol=True, trusted_proxies=OTHERS) as node:
            caller = await node.caller()
            await caller.sends(sent)
            assert (await caller.answer()).code == "malformed_http"
            await closed(caller)

    run(main())


@pytest.mark.parametrize("sent", [get(), b"PROXY TCP4 x y\r\n", b"PROXY " + b"x" * 200, V2[:13] + b"\xff" + V2[14:16]])
def test_what_is_no_proxy_header_is_refused(sent: bytes) -> None:
    async def main() -> None:
        async with served(proxy_protocol=True, trusted_proxies=US) as node:
            caller = await node.caller()
            await caller.sends(sent)
            if sent.startswith(b"\r\n\r\n\x00\r\nQUIT\n"):
                caller.closes()  # an unknown family is no mistake: the rest of the header would have to come
            else:
                assert (await caller.answer()).code == "malformed_http"
                await closed(caller)

    run(main())


def test_a_proxy_header_that_does_not_come_is_not_waited_for_long() -> None:
    async def main() -> None:
        async with served(proxy_protocol=True, trusted_proxies=US, header_timeout_s=2) as node:
            caller = await node.caller()
            await caller.sends(b"PRO", b"XY")
            await asyncio.sleep(0.01)
            node.passes(3)
            await closed(caller)

    run(main())


def test_x_forwarded_for_is_believed_from_a_trusted_proxy_only() -> None:
    async def main() -> None:
        request = get("/v1/models", "x-forwarded-for: 203.0.113.9")
        async with served(trusted_proxies=US) as node:
            await node.call(request)
            assert client_ip(node) == "203.0.113.9"
        async with served() as node:
            await node.call(request)
            assert client_ip(node) == "127.0.0.1"

    run(main())


# --- what is remembered from one head to the next -------------------------------------------------------------------


def test_one_caller_after_another_on_one_connection_is_told_apart() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            other = b"gw-" + b"l" * 43
            for key in (KEY, other, b"gw-unknown", KEY, b"", other):
                await caller.sends(get(key=key))
                await caller.answer()
            assert [record.key_id for record in node.wired.recorded] == ["demo", "limited", "", "demo", "", "limited"]

    run(main())


def test_traces_and_lengths_of_equal_heads_are_told_apart() -> None:
    async def main() -> None:
        async with served() as node:
            caller = await node.caller()
            for number in (1, 2, 3):
                trace = f"{number:032x}"
                body = CHAT + b" " * number
                await caller.sends(chat(body, f"traceparent: 00-{trace}-00f067aa0ba902b7-01"))
                assert (await caller.answer()).status == 200
                assert node.wired.recorded[-1].trace_id == trace
            await caller.sends(chat())
            await caller.answer()
            assert node.wired.recorded[-1].trace_id not in ("", f"{3:032x}")

    run(main())


@pytest.mark.parametrize(
    ("request_", "always"),
    [
        (chat(), (OK,)),
        (chat(STREAMED), (stream(ROLE, TEXT, STOP, DONE) + END,)),
        (chat(), (answer(503, b"{}"),)),
        (chat(b"{"), (OK,)),
        (chat(key=b"gw-nobody"), (OK,)),
        (get(), (OK,)),
    ],
    ids=["whole", "stream", "failed", "refused", "nobody", "models"],
)
def test_an_exchange_leaves_nothing_to_the_collector(request_: bytes, always: tuple[bytes, ...]) -> None:
    """What counts references frees at once; cycles cost a collector's run every hundred requests."""

    async def main() -> list[object]:
        async with served(always=always) as node:
            await node.call(request_)
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
            for _ in range(3):
                await node.call(request_)
            gc.collect()
            return gc.garbage.copy()

    gc.disable()
    try:
        left = [type(found).__name__ for found in run(main()) if type(found).__module__.startswith("gateway.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
