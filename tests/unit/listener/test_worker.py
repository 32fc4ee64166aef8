"""The data plane through its life: start, swap, drain, stop."""

import asyncio
from pathlib import Path
from typing import Self

import pytest

from gateway.config.schema import Listen, Tls
from gateway.listener import worker as module
from gateway.listener.worker import DataPlane
from gateway.nodestate import NODE, NodeState
from gateway.pipeline import Gateway
from gateway.segment import Segment
from tests.fakes.authority import Authority
from tests.fakes.provider import FakeProvider
from tests.fakes.served import OK, Caller, chat, get, until
from tests.fakes.transfer import run
from tests.fakes.wired import Wired

READY = get("/readyz", key=b"")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICK_S", 0.002)
    monkeypatch.setattr(module, "_POLL_S", 0.002)
    monkeypatch.setattr(module, "_DRAIN_POLL_S", 0.002)


class Life:
    """A data plane on a socket, and the snapshots it may load."""

    def __init__(self, *snapshots: Wired) -> None:
        self.snapshots = list(snapshots)
        self.state = NodeState(Segment.create([NODE], 4))
        self.plane = DataPlane(self.load, self.state, 0)
        self.port = 0
        self.callers: list[Caller] = []
        self.server: asyncio.Server | None = None

    def load(self, generation: int) -> Gateway:
        if generation >= len(self.snapshots):
            raise ValueError("that snapshot is not there")
        gateway = self.snapshots[generation].gateway
        gateway.wheel = self.snapshots[0].gateway.wheel  # an Assembly hands it on
        return gateway

    async def __aenter__(self) -> Self:
        await self.plane.start()
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self.plane.connection, "127.0.0.1", 0, ssl=self.plane.ssl_context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def caller(self) -> Caller:
        self.callers.append(Caller(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.callers[-1]

    async def __aexit__(self, *_: object) -> None:
        if self.server is not None:
            self.server.close()
        await self.plane.stop()
        for caller in self.callers:
            caller.closes()
        await asyncio.sleep(0.002)


def answering() -> FakeProvider:
    provider = FakeProvider()
    provider.always = (OK,)
    return provider


def test_a_plane_serves_counts_and_polls_from_its_start() -> None:
    async def main() -> None:
        wired = Wired(answering())
        async with Life(wired) as life:
            caller = await life.caller()
            await caller.sends(chat())
            assert (await caller.answer()).status == 200
            await until(lambda: (0, 1) in wired.ticks)
            assert wired.polls > 0
            assert life.plane.ssl_context is None
        assert wired.closed
        counted = len(wired.ticks)
        await asyncio.sleep(0.01)
        assert len(wired.ticks) == counted, "a stopped plane does not tick"

    run(main())


def test_a_snapshot_that_cannot_be_loaded_ends_the_start() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="not there"):
            await Life().plane.start()

    run(main())


def test_a_swap_takes_new_requests_along_and_leaves_open_ones() -> None:
    async def main() -> None:
        slow, quick = FakeProvider(), answering()
        old, new = Wired(slow), Wired(quick)
        async with Life(old, new) as life:
            busy, idle = await life.caller(), await life.caller()
            await busy.sends(chat())
            await until(lambda: slow.lines)
            await life.plane.swap(1)
            assert old.retired_for == [new.gateway]
            await idle.sends(chat())
            assert (await idle.answer()).status == 200
            assert quick.dials == 1
            slow.line.says(OK)
            assert (await busy.answer()).status == 200
            await busy.sends(chat())
            await busy.answer()
            assert (slow.dials, quick.line.asked.count(b"POST ")) == (1, 2)
        assert (old.closed, new.closed) == (False, True)

    run(main())


def test_a_swap_that_fails_keeps_what_is() -> None:
    async def main() -> None:
        wired = Wired(answering())
        async with Life(wired) as life:
            with pytest.raises(ValueError, match="not there"):
                await life.plane.swap(1)
            caller = await life.caller()
            await caller.sends(chat())
            assert (await caller.answer()).status == 200
            assert wired.retired_for == []

    run(main())


def test_a_swap_with_certificates_that_cannot_be_read_keeps_what_is(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("gateway.test")

    async def main() -> None:
        good = Wired(listen=Listen(tls=Tls(cert=cert, key=key)))
        bad = Wired(listen=Listen(tls=Tls(cert=str(tmp_path / "absent"), key=key)))
        async with Life(good, bad, good) as life:
            assert life.plane.ssl_context is not None
            with pytest.raises(FileNotFoundError):
                await life.plane.swap(1)
            assert good.retired_for == []
            await life.plane.swap(2)

    run(main())


@pytest.mark.parametrize("by", ["plane", "node"])
def test_readiness_ends_when_either_the_worker_or_the_node_drains(by: str) -> None:
    async def main() -> None:
        async with Life(Wired(answering())) as life:
            caller = await life.caller()
            await caller.sends(READY)
            assert (await caller.answer()).status == 200
            if by == "plane":
                life.plane.begin_drain()
            else:
                life.state.draining = 1
            await caller.sends(READY)
            answered = await caller.answer()
            assert (answered.status, b"draining" in answered.body) == (503, True)

    run(main())


def test_a_node_is_ready_once_limits_count_what_was_used_before() -> None:
    async def main() -> None:
        async with Life(Wired(answering())) as life:
            caller = await life.caller()
            life.state.recounting = 1
            await caller.sends(READY)
            answered = await caller.answer()
            assert (answered.status, b"limits" in answered.body) == (503, True)
            life.state.recounting = 0
            await caller.sends(READY)
            assert (await caller.answer()).status == 200

    run(main())


def test_a_drain_ends_with_the_last_exchange() -> None:
    async def main() -> None:
        provider = FakeProvider()
        async with Life(Wired(provider)) as life:
            busy, idle = await life.caller(), await life.caller()
            await idle.sends(get())
            await idle.answer()
            await busy.sends(chat())
            await until(lambda: provider.lines)
            life.plane.begin_drain()
            drained = asyncio.ensure_future(life.plane.drained())
            assert await idle.ended() == b""
            assert not drained.done()
            provider.line.says(OK)
            answered = await busy.answer()
            assert (answered.status, answered.headers["connection"]) == (200, "close")
            await drained

    run(main())


def test_a_drain_waits_for_a_caller_who_has_just_connected() -> None:
    async def main() -> None:
        async with Life(Wired(answering())) as life:
            fresh = await life.caller()
            await until(lambda: life.plane._listener.connections)
            life.plane.begin_drain()
            drained = asyncio.ensure_future(life.plane.drained())
            await asyncio.sleep(0.01)
            assert not drained.done()
            await fresh.sends(chat())
            assert (await fresh.answer()).status == 200
            await drained

    run(main())


def test_a_stop_cuts_what_is_left_and_records_it() -> None:
    async def main() -> None:
        provider = FakeProvider()
        wired = Wired(provider)
        async with Life(wired) as life:
            caller = await life.caller()
            await caller.sends(chat())
            await until(lambda: provider.lines)
        assert [record.ending for record in wired.recorded] == ["abandoned"]
        assert await caller.ended() == b""
        await until(lambda: not provider.line.is_open())

    run(main())
