"""The stdout sink beyond its contract: pipes that are full, gone, closed or shared, and half a line finished first."""

import errno
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from unittest import mock

import pytest

from gateway.control.sinks.base import SinkError
from gateway.control.sinks.stdout import StdoutSink
from tests.unit.control.sinks.scenes import failing_writes

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe; the test may close either end."""
    reads, writes = os.pipe()
    yield reads, writes
    for fd in (reads, writes):
        with suppress(OSError):
            os.close(fd)


@pytest.fixture
def small(pipe: Pipe) -> Pipe:
    """A pipe that is full once anything is in it."""
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    return pipe


def line(number: int, size: int = 100) -> bytes:
    return b"%d:" % number + b"x" * size


def test_a_pipe_nobody_reads_stalls_the_sink_and_not_for_ever(small: Pipe) -> None:
    reads, writes = small
    sink = StdoutSink(writes, stall_s=0.05)
    batch = [line(number) for number in range(100)]
    with pytest.raises(SinkError, match="nobody has read"):
        sink.send(batch)
    got = b""
    thread = threading.Thread(target=sink_all, args=(sink, batch, writes))
    thread.start()
    while chunk := os.read(reads, 65536):
        got += chunk
    thread.join(10)
    arrived = got.splitlines()
    assert list(dict.fromkeys(arrived)) == batch
    assert got.endswith(b"\n")


def sink_all(sink: StdoutSink, batch: list[bytes], writes: int) -> None:
    """Send until it is taken, then close the pipe so that its reader ends."""
    while True:
        try:
            sink.send(batch)
        except SinkError:
            continue
        os.close(writes)
        return


def test_half_a_line_is_finished_before_anything_else(pipe: Pipe) -> None:
    reads, writes = pipe
    sink = StdoutSink(writes)
    batch = [b"first line", b"second line", b"third"]
    with failing_writes(1, errno.EIO), pytest.raises(SinkError, match="cannot be written"):
        sink.send(batch)
    assert os.read(reads, 4096) == b"first line\nsec"
    with mock.patch.object(os, "write", side_effect=OSError(errno.EIO, "broken")), pytest.raises(SinkError):
        sink.send(batch)
    sink.send(batch)
    assert os.read(reads, 4096) == b"ond line\n" + b"first line\nsecond line\nthird\n"


def test_a_fault_after_a_whole_line_leaves_nothing_to_finish(pipe: Pipe) -> None:
    reads, writes = pipe
    sink, real = StdoutSink(writes), os.write
    third = mock.Mock(side_effect=[2, 1, OSError(errno.EIO, "broken")])  # "ab", its newline, a fault

    def write(fd: int, data: bytes) -> int:
        taken: int = third()
        return real(fd, data[:taken])

    with mock.patch.object(os, "write", write), pytest.raises(SinkError):
        sink.send([b"ab", b"cd"])
    sink.send([b"ef"])
    assert os.read(reads, 100) == b"ab\nef\n"


def test_nobody_at_the_other_end(pipe: Pipe) -> None:
    reads, writes = pipe
    os.close(reads)
    with pytest.raises(SinkError, match="Broken pipe"):
        StdoutSink(writes).send([b"{}"])


def test_no_standard_output_at_all(pipe: Pipe) -> None:
    _, writes = pipe
    os.close(writes)
    with pytest.raises(SinkError, match="Bad file descriptor"):
        StdoutSink(writes).send([b"{}"])


def test_closing_ends_a_send_that_waits(small: Pipe) -> None:
    _, writes = small
    sink, ended = StdoutSink(writes, stall_s=60), list[str]()

    def send() -> None:
        try:
            sink.send([line(number) for number in range(200)])
        except SinkError as error:
            ended.append(str(error))

    thread = threading.Thread(target=send)
    thread.start()
    while select.select([], [writes], [], 0)[1]:
        time.sleep(0.001)
    sink.close()
    thread.join(10)
    assert len(ended) == 1
    assert "stopping" in ended[0]


def test_the_descriptor_stays_as_it_is(pipe: Pipe) -> None:
    _, writes = pipe
    before = fcntl.fcntl(writes, fcntl.F_GETFL)
    sink = StdoutSink(writes)
    sink.send([b"{}"])
    sink.close()
    assert fcntl.fcntl(writes, fcntl.F_GETFL) == before


def test_short_lines_are_never_divided(pipe: Pipe) -> None:
    """Whole lines in one write each, so that other writers of the pipe come between lines and not into them."""
    _, writes = pipe
    pieces = list[bytes]()

    def write(_fd: int, data: bytes) -> int:
        pieces.append(data)
        return len(data)

    with mock.patch.object(os, "write", write):
        StdoutSink(writes).send([line(number, 1000) for number in range(10)] + [line(10, 10_000), line(11)])
    assert all(len(piece) <= select.PIPE_BUF for piece in pieces)
    joined = b"".join(pieces)
    assert joined.count(b"\n") == 12
    assert all(piece.endswith(b"\n") for piece in pieces[:3])
    assert pieces[-1].endswith(b"\n")
