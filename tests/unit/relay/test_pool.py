"""Connections go out last used first, grow old, are few, and are counted to the last one."""

import asyncio

import pytest

from gateway.errors import Overloaded, UpstreamConnectError, UpstreamConnectTimeout
from gateway.relay.pool import Pool
from gateway.relay.upstream import Connection
from gateway.units import NS_PER_S
from tests.fakes.raw_provider import GET, OK, RawProvider, Recorder, exchange, forever, pooled, read_request, run, until


class Clock:
    """Nanoseconds that pass when told."""

    def __init__(self) -> None:
        self.ns = 1_000 * NS_PER_S

    def __call__(self) -> int:
        return self.ns

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * NS_PER_S)


async def used(pool: Pool, count: int) -> list[Connection]:
    """So many connections, idle after one exchange each, in the order of their last use."""
    connections = [await pool.connect(5) for _ in range(count)]
    for connection in connections:
        await exchange(connection)
    return connections


def test_the_last_used_goes_out_first() -> None:
    async def main() -> None:
        async with pooled(forever(OK)) as pool:
            assert pool.take() is None
            connections = await used(pool, 3)
            assert (pool.idle, pool.open) == (3, 3)
            assert [pool.take() for _ in range(4)] == [*reversed(connections), None]
            assert (pool.idle, pool.open) == (0, 3)
            assert all(connection.reused for connection in connections)

    run(main())


def test_idle_connections_are_closed_when_their_time_has_come() -> None:
    async def main() -> None:
        clock = Clock()
        async with RawProvider(forever(OK)) as provider:
            pool = Pool(provider.origin(idle_s=60, max_age_s=600), now_ns=clock)
            first, second = await pool.connect(5), await pool.connect(5)
            await exchange(first)
            clock.pass_s(40)
            await exchange(second)
            clock.pass_s(21)
            pool.sweep()
            assert pool.idle == 1
            await until(lambda: pool.open == 1)
            assert pool.take() is second
            await exchange(second)
            clock.pass_s(59)
            pool.sweep()
            assert pool.idle == 1
            clock.pass_s(1)
            assert pool.take() is None
            assert pool.idle == 0
            await until(lambda: pool.open == 0)
            pool.close()

    run(main())


def test_a_timer_sweeps_without_being_asked() -> None:
    async def main() -> None:
        async with pooled(forever(OK), idle_s=0.02) as pool:
            await used(pool, 2)
            assert pool.idle == 2
            await until(lambda: pool.open == 0)
            await used(pool, 1)
            await until(lambda: pool.open == 0)

    run(main())


def test_a_connection_is_not_used_beyond_its_age_however_busy() -> None:
    async def main() -> None:
        clock = Clock()
        async with RawProvider(forever(OK)) as provider:
            pool = Pool(provider.origin(idle_s=60, max_age_s=100), now_ns=clock, jitter=lambda: 0.0)
            connection = await pool.connect(5)
            for _ in range(9):
                clock.pass_s(11)
                await exchange(connection)
                assert pool.take() is connection
            clock.pass_s(1)
            await exchange(connection)
            assert pool.idle == 0
            await until(lambda: pool.open == 0)

            idle = await pool.connect(5)
            clock.pass_s(50)
            await exchange(idle)
            clock.pass_s(50)
            assert pool.take() is None
            pool.close()

    run(main())


def test_connections_of_one_moment_do_not_age_in_one_moment() -> None:
    async def main() -> None:
        clock = Clock()
        draws = iter([0.0, 0.5, 0.999])
        async with RawProvider(forever(OK)) as provider:
            pool = Pool(provider.origin(idle_s=1000, max_age_s=100), now_ns=clock, jitter=lambda: next(draws))
            await used(pool, 3)
            left: list[int] = []
            for _ in range(3):
                clock.pass_s(91 if not left else 5)
                pool.sweep()
                left.append(pool.idle)
            assert left == [2, 1, 0]
            pool.close()

    run(main())


def test_more_idle_connections_than_max_idle_are_not_kept() -> None:
    async def main() -> None:
        async with pooled(forever(OK), max_idle=2) as pool:
            connections = await used(pool, 3)
            assert pool.idle == 2
            assert connections[2].closing()
            await until(lambda: pool.open == 2)
        async with pooled(forever(OK), max_idle=0) as pool:
            await used(pool, 1)
            assert pool.idle == 0

    run(main())


def test_no_more_connections_than_max_connections_whatever_they_are_doing() -> None:
    async def main() -> None:
        async with pooled(forever(OK), max_connections=3) as pool:
            connecting = asyncio.create_task(pool.connect(5))
            busy = await pool.connect(5)
            await used(pool, 1)
            await connecting
            with pytest.raises(Overloaded, match="max_connections"):
                await pool.connect(5)
            assert pool.open == 3
            busy.abort()
            await until(lambda: pool.open == 2)
            await pool.connect(5)

            attempts = [pool.connect(5) for _ in range(5)]
            outcomes = await asyncio.gather(*attempts, return_exceptions=True)
            assert all(isinstance(outcome, Overloaded) for outcome in outcomes)

    run(main())


def test_a_connection_the_provider_closes_while_idle_is_gone() -> None:
    leave = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await leave.wait()

    async def main() -> None:
        async with pooled(handle) as pool:
            await used(pool, 2)
            leave.set()
            await until(lambda: pool.open == 0)
            assert (pool.idle, pool.take()) == (0, None)

    run(main())


def test_closing_the_pool_lets_busy_exchanges_end() -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            if b"/slow" in request:
                await go_on.wait()
            writer.write(OK)

    async def main() -> None:
        async with pooled(handle) as pool:
            busy = await pool.connect(5)
            heard = Recorder()
            busy.start(b"GET /slow HTTP/1.1\r\n\r\n", b"", heard)
            await used(pool, 2)
            pool.close()
            pool.close()
            assert (pool.idle, pool.take()) == (0, None)
            await until(lambda: pool.open == 1)
            go_on.set()
            await heard.over.wait()
            assert heard.body == b"ok"
            await until(lambda: pool.open == 0)
            late = await exchange(await pool.connect(5))
            assert late.body == b"ok"
            assert pool.idle == 0

    run(main())


def test_a_connection_that_fails_is_not_counted() -> None:
    async def main() -> None:
        async with RawProvider(forever(OK)) as provider:
            origin = provider.origin()
        await asyncio.sleep(0)
        pool = Pool(origin)
        with pytest.raises(UpstreamConnectError):
            await pool.connect(5)
        assert pool.open == 0

    run(main())


def test_a_caller_that_gives_up_connecting_leaves_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        # TLS with a provider that says nothing: connecting takes for ever
        async with RawProvider(silent) as provider:
            pool = Pool(provider.origin(scheme="https"))
            with pytest.raises(UpstreamConnectTimeout, match="TLS"):
                await pool.connect(0.02)
            assert pool.open == 0
            connecting = asyncio.create_task(pool.connect(5))
            await until(lambda: provider.connections == 2)
            assert pool.open == 1
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            assert pool.open == 0

    run(main())


def test_requests_to_a_proxy_of_plain_http_carry_its_credential_and_the_full_target() -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)

    async def main() -> None:
        async with RawProvider(handle) as proxy:
            origin = proxy.origin(host="provider.invalid", port=80, proxy=f"http://me:pw@127.0.0.1:{proxy.port}")
            connection = await Pool(origin).connect(5)
            assert connection.target_prefix == b"http://provider.invalid"
            await exchange(
                connection, b"GET " + connection.target_prefix + b"/v1 HTTP/1.1\r\nhost: provider.invalid\r\n\r\n"
            )
        first, second, *rest = seen[0].split(b"\r\n")
        assert first == b"GET http://provider.invalid/v1 HTTP/1.1"
        assert second == b"proxy-authorization: Basic bWU6cHc="
        assert rest == [b"host: provider.invalid", b"", b""]
        assert connection.request_bytes == len(seen[0])

    run(main())


def test_no_prefix_and_no_header_without_a_proxy() -> None:
    async def main() -> None:
        async with pooled(forever(OK)) as pool:
            connection = await pool.connect(5)
            assert connection.target_prefix == b""
            await exchange(connection)
            assert connection.request_bytes == len(GET)

    run(main())
