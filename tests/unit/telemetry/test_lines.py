"""Lines leave whole and in order, and a reader that stalls or goes away costs lines, never time."""

import asyncio
import fcntl
import os
import pty
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry import lines as module
from gateway.telemetry.lines import MAX_HELD_BYTES, PIPE_BUF, LineSink
from tests.fakes.patience import PATIENCE_S


def notice(lines: int) -> bytes:
    return f"dropped {lines}\n".encode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def everything(reader: int) -> bytes:
    read = b""
    try:
        while piece := os.read(reader, 1 << 20):
            read += piece
    except BlockingIOError:
        pass
    return read


def test_a_line_emitted_is_there_at_once(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer, notice)
    sink.emit(b"one\n")
    assert os.read(reader, 100) == b"one\n"
    sink.close()


def test_without_a_loop_an_appended_line_does_not_wait(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer, notice)
    sink.append(b"one\n")
    assert os.read(reader, 100) == b"one\n"
    sink.close()


async def readable(descriptor: int) -> None:
    """Let the loop turn until something is there."""
    async with asyncio.timeout(PATIENCE_S):
        while not select.select([descriptor], [], [], 0)[0]:  # noqa: ASYNC110  a plain pipe
            await asyncio.sleep(0.001)


def test_on_a_loop_lines_leave_together_and_the_descriptor_keeps_its_flags(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    monkeypatch.setattr(module, "FLUSH_S", 0.001)
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)

    async def main() -> None:
        sink = LineSink(writer, notice)
        sink.attach(asyncio.get_running_loop())
        sink.append(b"one\n")
        sink.append(b"two\n")
        with pytest.raises(BlockingIOError):
            os.read(reader, 100)
        await readable(reader)
        assert os.read(reader, 100) == b"one\ntwo\n"
        sink.append(b"three\n")
        sink.close()
        assert os.read(reader, 100) == b"three\n"

    asyncio.run(main())
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags


def test_a_loop_that_is_over_does_not_swallow_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer, notice)
    loop = asyncio.new_event_loop()
    sink.attach(loop)
    loop.close()
    sink.append(b"late\n")
    assert os.read(reader, 100) == b"late\n"
    sink.close()


def test_a_reader_that_stalls_drops_lines_counts_them_and_is_told(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer, notice)
    line = b"x" * 999 + b"\n"
    total = (MAX_HELD_BYTES + (1 << 17)) // len(line)
    for _ in range(total):
        sink.emit(line)
    assert sink.dropped > 0
    read = b""
    while piece := everything(reader):
        read += piece
        sink.flush()
    kept, told = read.split(b"\n")[:-2], read.split(b"\n")[-2]
    assert set(kept) == {line[:-1]}
    assert len(kept) == total - sink.dropped
    assert told == f"dropped {sink.dropped}".encode()
    sink.close()


def test_each_write_is_whole_lines_a_pipe_takes_at_once(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, writer = pipe
    sink = LineSink(writer, notice)
    writes: list[bytes] = []

    def take(chunk: bytes) -> int:
        writes.append(chunk)
        return len(chunk)

    monkeypatch.setattr(sink._channel, "write", take)
    loop = asyncio.new_event_loop()
    sink.attach(loop)
    for size in (3_000, 1_000, 96, PIPE_BUF, 10):
        sink.append(b"x" * (size - 1) + b"\n")
    sink.flush()
    loop.close()
    assert [len(chunk) for chunk in writes] == [4_000 + 96, PIPE_BUF, 10]
    assert all(chunk.endswith(b"\n") for chunk in writes)
    sink.close()


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    sink = LineSink(writer, notice)
    os.close(reader)
    sink.emit(b"one\n")
    sink.emit(b"two\n")
    assert sink.dropped == 2
    sink.close()
    os.close(writer)


def test_a_descriptor_that_cannot_be_reopened_is_asked_before_each_write(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe

    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    sink = LineSink(writer, notice)
    for _ in range(200):
        sink.emit(b"x" * 999 + b"\n")
    assert len(everything(reader)) <= 1 << 16
    sink.flush()
    assert everything(reader)
    sink.close()


def test_a_socket_is_written_without_waiting() -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    sink = LineSink(ours.fileno(), notice)
    for _ in range(3_000):
        sink.emit(b"x" * 999 + b"\n")
    assert sink.dropped > 0
    assert theirs.recv(10) == b"x" * 10
    sink.close()
    assert ours.fileno() >= 0
    ours.close()
    theirs.close()


def test_a_file_and_a_terminal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        sink = LineSink(file.fileno(), notice)
        sink.emit(b"one\n")
        sink.close()
    assert (tmp_path / "log").read_bytes() == b"one\n"
    leader, follower = pty.openpty()
    sink = LineSink(follower, notice)
    sink.emit(b"two\n")
    assert os.read(leader, 100) == b"two\r\n"
    sink.close()
    os.close(leader)
    os.close(follower)


def test_what_was_written_in_part_goes_on_where_it_stopped(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer = pipe
    sink = LineSink(writer, notice)
    written: list[bytes] = []

    def three_at_a_time(chunk: bytes) -> int:
        written.append(chunk[:3])
        return 3

    monkeypatch.setattr(sink._channel, "write", three_at_a_time)
    sink.emit(b"12345678\n")
    assert b"".join(written) == b"12345678\n"
    sink.close()


def test_threads_do_not_mix_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = LineSink(writer, notice)

    def speak(name: bytes) -> None:
        for _ in range(100):
            sink.emit(name * 20 + b"\n")

    threads = [threading.Thread(target=speak, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = everything(reader).splitlines()
    assert len(lines) == 300
    assert set(lines) == {b"a" * 20, b"b" * 20, b"c" * 20}
    sink.close()
