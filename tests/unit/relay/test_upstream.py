"""One connection, exchange after exchange: every ending is told once, truthfully, and only whole ends are reused."""

import asyncio
import gc
import logging
import resource
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import UpstreamProtocolError, UpstreamReset
from gateway.relay.answer import AnswerParser
from gateway.relay.pool import Pool
from gateway.relay.upstream import FULL_READ_BYTES, Connection, ResponseHead
from tests.fakes.patience import PATIENCE_S
from tests.fakes.raw_provider import (
    GET,
    OK,
    Recorder,
    answering,
    exchange,
    forever,
    pooled,
    read_request,
    reset,
    run,
    until,
)

LINE = b"HTTP/1.1 200 OK\r\n"
CHUNKED = LINE + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
UNTIL_EOF = LINE + b"content-type: text/plain\r\n\r\nhello world"
LENGTH = LINE + b"content-length: 11\r\n\r\nhello world"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH


async def one(pool: Pool) -> Connection:
    return pool.take() or await pool.connect(5)


# --- whole answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [CHUNKED, UNTIL_EOF, LENGTH, INTERIM], ids=["chunked", "eof", "length", "interim"])
def test_an_answer_sent_in_two_parts_arrives_whole_whatever_the_cut(answer: bytes) -> None:
    cuts = iter(range(1, len(answer)))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            cut = next(cuts)
            writer.write(answer[:cut])
            await asyncio.sleep(0.001)
            writer.write(answer[cut:])
            if answer is UNTIL_EOF:
                return

    async def main() -> None:
        async with pooled(handle) as pool:
            for _ in range(1, len(answer)):
                heard = await exchange(await one(pool))
                assert heard.body == b"hello world"
                assert (heard.events[0], heard.events[-1]) == ("head", "end")
                assert heard.events.count("head") == heard.events.count("end") == 1
                await asyncio.sleep(0)
            assert pool.idle == (0 if answer is UNTIL_EOF else 1)

    run(main())


def test_one_read_is_one_body_call() -> None:
    async def main() -> None:
        async with pooled(answering(CHUNKED)) as pool:
            heard = await exchange(await one(pool))
            assert heard.events == ["head", "body", "end"]

    run(main())


def test_answers_without_body_end_at_once_and_leave_the_connection_usable() -> None:
    answers = [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", OK]

    async def main() -> None:
        async with pooled(answering(*answers)) as pool:
            first = await one(pool)
            assert (await exchange(first)).events == ["head", "end"]
            assert (await exchange(await one(pool))).events == ["head", "end"]
            last = await one(pool)
            assert last is first
            assert last.reused
            assert (await exchange(last)).body == b"ok"

    run(main())


def test_an_answer_to_head_ends_with_its_head() -> None:
    async def main() -> None:
        async with pooled(answering(LINE + b"content-length: 9\r\n\r\n", OK)) as pool:
            heard = await exchange(await one(pool), b"HEAD / HTTP/1.1\r\n\r\n", head_request=True)
            assert heard.events == ["head", "end"]
            assert heard.head is not None
            assert heard.head.content_length == 9
            assert pool.idle == 0

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        LINE + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"\r\nHTTP/1.1 200 OK\r\n",
        OK + OK,
        OK + b"junk",
    ],
    ids=["close", "1.0", "half an answer", "second answer", "junk"],
)
def test_a_connection_that_cannot_go_on_is_not_pooled(answer: bytes) -> None:
    async def main() -> None:
        async with pooled(answering(answer, OK)) as pool:
            heard = await exchange(await one(pool))
            assert (heard.body, heard.events[-1]) == (b"ok", "end")
            assert pool.idle == 0
            await until(lambda: pool.open == 0)

    run(main())


# --- broken answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [reset, asyncio.StreamWriter.close], ids=["reset", "close"])
@pytest.mark.parametrize("answer", [CHUNKED, LENGTH, INTERIM], ids=["chunked", "length", "interim"])
def test_an_answer_cut_anywhere_is_lost(answer: bytes, how: Callable[[asyncio.StreamWriter], None]) -> None:
    cuts = iter(range(len(answer)))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer[: next(cuts)])
        how(writer)

    async def main() -> None:
        async with pooled(handle) as pool:
            for _ in range(len(answer)):
                heard = await exchange(await pool.connect(5))
                assert isinstance(heard.error, UpstreamReset)
                assert heard.events[-1] == "lost"
                assert "end" not in heard.events
                assert not heard.stale
                assert b"hello world".startswith(heard.body)
            assert pool.idle == 0
            await until(lambda: pool.open == 0)

    run(main())


def test_a_body_of_unknown_length_cut_by_a_reset_is_lost() -> None:
    async def main() -> None:
        async with pooled(answering(UNTIL_EOF, then=reset)) as pool:
            heard = await exchange(await one(pool))
            assert isinstance(heard.error, UpstreamReset)
            assert "end" not in heard.events

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        LINE + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nabc",
        LINE + b"a: " + b"a" * 70_000,
    ],
    ids=["garbage", "two framings", "upgrade", "endless head"],
)
def test_what_is_not_an_answer_is_a_protocol_error(answer: bytes) -> None:
    async def main() -> None:
        async with pooled(answering(answer, OK)) as pool:
            heard = await exchange(await one(pool))
            assert isinstance(heard.error, UpstreamProtocolError)
            assert heard.events == ["lost"]
            assert not heard.stale
            await until(lambda: pool.open == 0)

    run(main())


def test_what_arrived_before_a_broken_chunk_is_delivered() -> None:
    broken = LINE + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"

    async def main() -> None:
        async with pooled(answering(broken)) as pool:
            heard = await exchange(await one(pool))
            assert heard.events == ["head", "body", "lost"]
            assert heard.body == b"hello"
            assert heard.error is not None
            assert "hello" not in str(heard.error) + heard.error.detail

    run(main())


# --- stale connections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [reset, asyncio.StreamWriter.close], ids=["reset", "close"])
def test_a_reused_connection_that_dies_without_a_byte_is_stale(how: Callable[[asyncio.StreamWriter], None]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        how(writer)

    async def main() -> None:
        async with pooled(handle) as pool:
            first = await exchange(await one(pool))
            second = await exchange(await one(pool))
            assert (first.events[-1], second.events, second.stale) == ("end", ["lost"], True)

    run(main())


def test_a_byte_of_the_answer_makes_it_no_longer_stale() -> None:
    async def main() -> None:
        async with pooled(answering(OK, b"H")) as pool:
            await exchange(await one(pool))
            heard = await exchange(await one(pool))
            assert isinstance(heard.error, UpstreamReset)
            assert not heard.stale

    run(main())


def test_starting_on_a_closed_connection_is_told_on_the_next_turn() -> None:
    async def main() -> None:
        async with pooled(forever(OK)) as pool:
            fresh = await pool.connect(5)
            fresh.retire()
            heard = Recorder()
            fresh.start(GET, b"", heard)
            assert heard.events == []
            fresh.write(b"ignored")
            assert fresh.request_bytes == 0
            await heard.over.wait()
            assert (heard.events, heard.stale) == (["lost"], False)
            await exchange(await pool.connect(5))
            reused = await one(pool)
            reused.retire()
            assert (await exchange(reused)).stale

    run(main())


@pytest.mark.parametrize("junk", [b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n", b"\r\n", b"x"])
def test_bytes_nobody_asked_for_close_an_idle_connection(junk: bytes) -> None:
    send = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await send.wait()
        writer.write(junk)
        await reader.read()

    async def main() -> None:
        async with pooled(handle) as pool:
            await exchange(await one(pool))
            assert pool.idle == 1
            send.set()
            await until(lambda: pool.open == 0)
            assert pool.take() is None

    run(main())


# --- requests -------------------------------------------------------------------------------------------------------


def test_a_request_arrives_as_given_small_large_and_streamed() -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(OK)

    async def main() -> None:
        async with pooled(handle) as pool:
            for size in (0, 1, 16_384, 16_385, 3_000_000):
                head = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size
                connection = await one(pool)
                await exchange(connection, head, b"x" * size)
                assert seen.pop() == head + b"x" * size
                assert connection.request_bytes == len(head) + size
            connection = await one(pool)
            heard = Recorder()
            head = b"POST / HTTP/1.1\r\ncontent-length: 6\r\n\r\n"
            connection.start(head, b"ab", heard, body_follows=True)
            connection.write(b"cd")
            connection.write(b"ef")
            connection.finish()
            await heard.over.wait()
            assert seen.pop() == head + b"abcdef"
            assert connection.request_bytes == len(head) + 6
            assert pool.idle == 1

    run(main())


def test_an_answer_before_the_request_is_complete_ends_and_closes() -> None:
    async def main() -> None:
        async with pooled(answering(OK)) as pool:
            connection = await one(pool)
            heard = await exchange(connection, GET, body_follows=True)
            assert heard.events == ["head", "body", "end"]
            assert pool.idle == 0
            connection.write(b"late")

    run(main())


def test_an_answer_before_the_request_is_written_out_ends_and_closes() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.Event().wait()

    async def main() -> None:
        async with pooled(handle) as pool:
            size = 30_000_000
            heard = await exchange(
                await one(pool), b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % size, b"x" * size
            )
            assert heard.events == ["head", "body", "end"]
            assert heard.writable == []  # the request was whole: there was nothing to hold back
            assert pool.idle == 0
            await until(lambda: pool.open == 0)

    run(main())


def test_a_provider_that_does_not_read_stops_the_upload() -> None:
    read_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_on.wait()
        await read_request(reader)
        writer.write(OK)

    async def main() -> None:
        async with pooled(handle) as pool:
            connection = await one(pool)
            heard = Recorder()
            size = 64 * 1024
            connection.start(
                b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (1000 * size), b"", heard, body_follows=True
            )
            sent = 0
            while not heard.writable:
                connection.write(b"x" * size)
                sent += 1
                await asyncio.sleep(0)
            assert sent < 1000
            assert heard.writable == [False]
            read_on.set()
            while sent < 1000:
                await until(lambda: heard.writable[-1])
                connection.write(b"x" * size)
                sent += 1
            connection.finish()
            await heard.over.wait()
            assert heard.body == b"ok"

    run(main())


def test_a_second_request_on_a_busy_connection_is_a_defect() -> None:
    async def main() -> None:
        async with pooled(forever(OK)) as pool:
            connection = await one(pool)
            connection.start(GET, b"", Recorder())
            with pytest.raises(RuntimeError):
                connection.start(GET, b"", Recorder())

    run(main())


# --- backpressure and giving up -------------------------------------------------------------------------------------


def test_a_paused_answer_does_not_pile_up() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(LINE + b"\r\n")
        block = b"x" * 65_536
        for _ in range(3200):  # 200 MiB
            writer.write(block)
            await writer.drain()

    class Slow(Recorder):
        """Stops after each read, and throws the bytes away."""

        def __init__(self, connection: Connection) -> None:
            super().__init__()
            self.connection = connection
            self.bytes = 0

        def on_body(self, data: bytes) -> None:
            self.bytes += len(data)
            self.connection.pause()
            self.connection.pause()

    async def main() -> None:
        async with pooled(handle) as pool:
            connection = await one(pool)
            slow = Slow(connection)
            connection.start(GET, b"", slow)
            await until(lambda: slow.bytes > 0)
            before = slow.bytes
            peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await asyncio.sleep(0.05)
            assert slow.bytes == before
            for _ in range(3200):
                connection.resume()
                connection.resume()
                await asyncio.sleep(0)
                if slow.over.is_set():
                    break
            while not slow.over.is_set():
                connection.resume()
                await asyncio.sleep(0)
            assert slow.bytes == 200 * 1024 * 1024
            assert slow.events == ["head", "end"]
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 20_000

    run(main())


class Turns(Recorder):
    """Counts what it hears in one turn of the loop, and throws the bytes away."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.this_turn = self.most = 0

    def on_body(self, data: bytes) -> None:
        self.bytes += len(data)
        self.this_turn += len(data)

    def turn(self) -> None:
        self.most = max(self.most, self.this_turn)
        self.this_turn = 0
        if not self.over.is_set():
            asyncio.get_running_loop().call_soon(self.turn)


def sender_of(size: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A provider that has sent as much as the kernel keeps before anybody looks."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(LINE + b"content-length: %d\r\n\r\n" % size + bytes(size))
        await reader.read()

    return handle


def test_a_fast_stream_has_one_read_a_turn() -> None:
    size = 20 * 1024 * 1024

    async def main() -> None:
        async with pooled(sender_of(size)) as pool:
            connection, heard = await one(pool), Turns()
            connection.start(GET, b"", heard)
            heard.turn()
            await heard.over.wait()
            assert (heard.bytes, heard.events) == (size, ["head", "end"])
            assert FULL_READ_BYTES <= heard.most <= 256 * 1024

    run(main())


def test_a_sink_that_pauses_between_two_reads_is_not_read_on_for() -> None:
    """Such a connection rests already, and goes on when the sink says so, not when the rest is over."""
    connection: Connection
    paused: list[int] = []

    class Pausing(Turns):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            if len(data) >= FULL_READ_BYTES and not paused:
                asyncio.get_running_loop().call_soon(self.pause)

        def pause(self) -> None:
            connection.pause()
            paused.append(self.bytes)

    async def main() -> None:
        nonlocal connection
        async with pooled(sender_of(20 * 1024 * 1024)) as pool:
            connection, heard = await one(pool), Pausing()
            connection.start(GET, b"", heard)
            await until(lambda: bool(paused))
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert [heard.bytes] == paused
            connection.resume()
            await heard.over.wait()
            assert heard.events == ["head", "end"]

    run(main())


def test_a_pause_does_not_outlive_its_exchange() -> None:
    async def main() -> None:
        async with pooled(forever(OK)) as pool:
            connection = await one(pool)

            class Pauses(Recorder):
                def on_body(self, data: bytes) -> None:
                    super().on_body(data)
                    connection.pause()

            heard = Pauses()
            connection.start(GET, b"", heard)
            await heard.over.wait()
            assert pool.take() is connection
            assert (await exchange(connection)).body == b"ok"

    run(main())


class Quits(Recorder):
    """Aborts inside one of its callbacks."""

    def __init__(self, connection: Connection, when: str) -> None:
        super().__init__()
        self.connection = connection
        self.when = when

    def on_head(self, head: ResponseHead) -> None:
        super().on_head(head)
        if self.when == "head":
            self.connection.abort()

    def on_body(self, data: bytes) -> None:
        super().on_body(data)
        if self.when == "body":
            self.connection.abort()

    def on_end(self) -> None:
        super().on_end()
        self.connection.abort()

    def on_writable(self, writable: bool) -> None:
        super().on_writable(writable)
        self.connection.abort()


@pytest.mark.parametrize("when", ["before", "head", "body", "end", "writable"])
def test_an_aborted_exchange_hears_nothing_more(when: str) -> None:
    async def main() -> None:
        async with pooled(forever(CHUNKED)) as pool:
            connection = await one(pool)
            heard = Quits(connection, when)
            if when == "writable":
                connection.start(GET, b"x" * 10_000_000, heard, body_follows=True)
                assert heard.writable == [False]
            else:
                connection.start(GET, b"", heard)
            if when == "before":
                connection.abort()
                connection.abort()
            await until(lambda: pool.open == 0)
            expected = {"before": [], "head": ["head"], "body": ["head", "body"], "end": ["head", "body", "end"]}
            assert heard.events == expected.get(when, [])
            assert pool.idle == 0

    run(main())


def test_abort_reaches_the_provider_at_once_also_while_paused() -> None:
    gone = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(LINE + b"\r\nx")
        await reader.read()
        gone.set()

    async def main() -> None:
        async with pooled(handle) as pool:
            connection = await one(pool)
            heard = Recorder()
            connection.start(GET, b"", heard)
            await until(lambda: "body" in heard.events)
            connection.pause()
            connection.abort()
            connection.resume()
            await asyncio.wait_for(gone.wait(), PATIENCE_S)
            assert heard.events == ["head", "body"]

    run(main())


# --- sinks that misbehave, sinks in a hurry --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["on_head", "on_body", "on_end", "on_lost", "on_writable"])
def test_a_sink_that_raises_costs_its_own_connection_only(where: str, caplog: pytest.LogCaptureFixture) -> None:
    class Raises(Recorder):
        pass

    def fail(*_: object, **__: object) -> None:
        raise LookupError(where)

    setattr(Raises, where, fail)
    answer = LINE + b"content-length: 9\r\n\r\nshort" if where == "on_lost" else OK

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        if where != "on_lost":
            await reader.read()

    async def main() -> None:
        async with pooled(handle) as pool, pooled(forever(OK)) as other:
            bystander = await one(other)
            broken = Raises()
            connection = await one(pool)
            if where == "on_writable":
                connection.start(GET, b"x" * 10_000_000, broken, body_follows=True)
            else:
                connection.start(GET, b"", broken)
            await until(lambda: pool.open == 0)
            assert pool.idle == 0
            assert where.removeprefix("on_") not in broken.events
            assert (await exchange(bystander)).body == b"ok"

    with caplog.at_level(logging.ERROR, "gateway.relay"):
        run(main())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_the_next_exchange_may_start_inside_on_end_and_gets_another_connection() -> None:
    async def main() -> None:
        async with pooled(forever(OK)) as pool:
            first, spare = await pool.connect(5), await pool.connect(5)
            await exchange(spare)
            second = Recorder()
            assert not first.ended or pool.idle == 1

            class Goes(Recorder):
                def on_end(self) -> None:
                    super().on_end()
                    assert first.ended
                    following = pool.take()
                    assert following is spare
                    assert pool.take() is None
                    following.start(GET, b"", second)

            heard = Goes()
            first.start(GET, b"", heard)
            await second.over.wait()
            assert heard.events == second.events == ["head", "body", "end"]
            assert pool.idle == 2

    run(main())


def test_thousands_of_answers_over_few_connections_never_mix() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number = (await read_request(reader)).split()[1][1:]
            body = number * 3
            answer = LINE + b"x-number: %b\r\ncontent-length: %d\r\n\r\n%b" % (number, len(body), body)
            cut = int(number) % len(answer)
            writer.write(answer[:cut])
            if cut % 3 == 0:
                await asyncio.sleep(0)
            writer.write(answer[cut:])
            if int(number) % 97 == 0:
                return

    async def main() -> None:
        numbers = iter(range(4000))
        answered: list[int] = []

        async def caller(pool: Pool) -> None:
            for number in numbers:
                heard = await exchange(await one(pool), b"GET /%d HTTP/1.1\r\n\r\n" % number)
                if heard.error is not None:
                    assert heard.stale
                    continue
                assert heard.head is not None
                assert heard.head.get(b"x-number") == b"%d" % number
                assert heard.body == b"%d" % number * 3
                answered.append(number)

        async with pooled(handle) as pool:
            await asyncio.gather(*(caller(pool) for _ in range(8)))
            assert pool.open <= 8
        assert len(answered) > 3900
        assert len(set(answered)) == len(answered)

    run(main())


def test_a_closed_connection_leaves_nothing_for_the_collector() -> None:
    async def main() -> None:
        async with pooled(forever(OK)) as pool:
            for _ in range(3):
                await exchange(await pool.connect(5))
            pool.close()
            await until(lambda: pool.open == 0)
            await asyncio.sleep(0.01)
            assert [thing for thing in ours() if id(thing) not in before] == []

    def ours() -> list[object]:
        return [thing for thing in gc.get_objects() if isinstance(thing, Connection | AnswerParser)]

    gc.collect()
    gc.disable()
    before = {id(thing) for thing in ours()}  # other tests' leftovers, which a gc.freeze may have made permanent
    try:
        run(main())
    finally:
        gc.enable()
