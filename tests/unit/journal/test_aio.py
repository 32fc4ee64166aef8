"""Syncs that the kernel makes, on a real loop; and what is made of a kernel that makes none."""

import asyncio
import ctypes
import errno
import os
import platform
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import uvloop

from gateway.journal import aio
from gateway.journal.aio import KernelSyncs, refuses


class Ends:
    """The ends of syncs, in order."""

    def __init__(self) -> None:
        self.told = asyncio.Queue[OSError | None]()
        self.syncs = KernelSyncs(asyncio.get_running_loop(), self.told.put_nowait)

    async def sync(self, fd: int) -> OSError | None:
        self.syncs.begin(fd)
        return await asyncio.wait_for(self.told.get(), 10)


@asynccontextmanager
async def kernel() -> AsyncIterator[Ends]:
    ends = Ends()
    yield ends
    ends.syncs.close()


def opened() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)


def test_one_after_the_other_on_one_file_and_another(fd: int, tmp_path: Path) -> None:
    async def live() -> None:
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        async with kernel() as ends:
            for number in range(20):
                os.pwrite(fd, b"x" * 3_000, number * 3_000)
                assert await ends.sync(other if number % 2 else fd) is None
            assert ends.told.empty()
        os.close(other)

    asyncio.run(live())


def test_what_cannot_be_synced_is_refused_at_once() -> None:
    async def live() -> None:
        reads, writes = os.pipe()
        async with kernel() as ends:
            with pytest.raises(OSError) as caught:
                ends.syncs.begin(writes)
            assert caught.value.errno == errno.EINVAL
        os.close(reads)
        os.close(writes)

    asyncio.run(live())


def test_how_a_sync_ended_is_told_as_it_is(fd: int) -> None:
    async def live() -> None:
        async with kernel() as ends:
            call = ends.syncs._call

            def getevents(number: int, *arguments: int) -> int:
                done = call(number, *arguments)
                ends.syncs._event.result = -errno.EIO
                return done

            ends.syncs._call = getevents
            told = await ends.sync(fd)
            assert isinstance(told, OSError)
            assert (told.errno, told.strerror) == (errno.EIO, os.strerror(errno.EIO))
            assert not refuses(told)

    asyncio.run(live())


def test_an_end_that_cannot_be_asked_for_is_told_as_a_refusal(fd: int) -> None:
    async def live() -> None:
        async with kernel() as ends:
            ends.syncs._calls = ends.syncs._calls._replace(getevents=9_999)
            told = await ends.sync(fd)
            assert isinstance(told, OSError)
            assert refuses(told)

    asyncio.run(live())


def test_a_signal_or_an_older_end_keeps_no_end_from_us(fd: int) -> None:
    async def live() -> None:
        async with kernel() as ends:
            call, odd = ends.syncs._call, [errno.EINTR, 0]

            def getevents(number: int, *arguments: int) -> int:
                if number != ends.syncs._calls.getevents or not odd:
                    return call(number, *arguments)
                code = odd.pop(0)
                ctypes.set_errno(code)
                ends.syncs._event.data, ends.syncs._event.result = ends.syncs._control.data - 1, -errno.EIO
                return -1 if code else 1

            ends.syncs._call = getevents
            assert await ends.sync(fd) is None
            assert not odd
            assert ends.told.empty()

    asyncio.run(live())


def test_without_a_descriptor_left_the_context_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        with pytest.raises(OSError, match="Too many"):
            KernelSyncs(asyncio.get_running_loop(), print)
        await asyncio.get_running_loop().shutdown_default_executor()

    given_back = []
    system_calls = aio._system_calls

    def watched(library: type[ctypes.CDLL]) -> Callable[..., int]:
        call = system_calls(library)

        def watch(number: int, *arguments: int) -> int:
            result = call(number, *arguments)
            if number == aio.CALLS[platform.machine()].destroy:
                given_back.append(result)
            return result

        return watch

    monkeypatch.setattr(aio, "_system_calls", watched)
    monkeypatch.setattr(os, "eventfd", mock.Mock(side_effect=OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
    asyncio.run(live())
    assert given_back == [0]


def test_a_wake_for_nothing_is_nothing(fd: int) -> None:
    async def live() -> None:
        async with kernel() as ends:
            ends.syncs._told()
            os.eventfd_write(ends.syncs._tell_fd, 1)
            ends.syncs._told()
            assert ends.told.empty()
            assert await ends.sync(fd) is None

    asyncio.run(live())


def test_closing_tells_nobody_and_leaves_nothing_open(fd: int) -> None:
    async def live() -> KernelSyncs:
        before = opened()
        async with kernel() as ends:
            os.pwrite(fd, b"x" * 1_000_000, 0)
            ends.syncs.begin(fd)
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)
        assert ends.told.empty()
        assert opened() == before
        return ends.syncs

    with pytest.raises(OSError) as caught:
        asyncio.run(live()).begin(fd)
    assert caught.value.errno == errno.EINVAL, "the context is given back"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_it_may_be_closed_by_who_is_told(run: Callable[[Coroutine[Any, Any, None]], None], fd: int) -> None:
    async def live() -> None:
        over = asyncio.Event()

        def on_done(_: OSError | None) -> None:
            syncs.close()
            over.set()

        syncs = KernelSyncs(asyncio.get_running_loop(), on_done)
        syncs.begin(fd)
        await asyncio.wait_for(over.wait(), 10)

    run(live())


def test_a_platform_that_is_not_known_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        with pytest.raises(OSError) as caught:
            Ends()
        assert refuses(caught.value)

    monkeypatch.setattr(platform, "machine", lambda: "vax")
    asyncio.run(live())


def test_a_kernel_that_gives_no_context_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        with pytest.raises(OSError) as caught:
            Ends()
        assert caught.value.errno == errno.ENOSYS

    monkeypatch.setitem(aio.CALLS, platform.machine(), aio.Calls(*[9_999] * 4))
    asyncio.run(live())


def test_the_structures_are_as_long_as_the_kernel_has_them() -> None:
    assert (ctypes.sizeof(aio._Control), ctypes.sizeof(aio._Event)) == (64, 32)
    assert (aio._Control.fd.offset, aio._Control.flags.offset, aio._Control.tell_fd.offset) == (20, 56, 60)
    assert aio._Event.result.offset == 16
