"""The world around each kind of sink, as the contract suite (test_base.py) needs it: a new sink adds a class and a row.

A scene makes its sink, reads what arrived at the other end, and can make the hand-over fail in the middle.
"""

import errno
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest import mock

from gateway.config.schema import Export
from gateway.control.sinks.base import Sink
from gateway.control.sinks.file import FileSink
from gateway.control.sinks.stdout import StdoutSink


class Scene(ABC):
    """One sink and its other end."""

    kind: str  # as a config names it

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def sink(self) -> Sink:
        """A sink to this scene's destination; another one stands for the process after a crash."""

    @abstractmethod
    def received(self) -> bytes:
        """Everything that has arrived."""

    @contextmanager
    def failing(self, nth: int, error: int) -> Iterator[list[int]]:
        """The nth write takes half and the next one fails; the list tells how many there were."""
        with failing_writes(nth, error) as writes:
            yield writes

    @abstractmethod
    def close(self) -> None:
        """Leave nothing open."""


class FileScene(Scene):
    kind = "file"

    def sink(self) -> Sink:
        return FileSink(self.directory / "out.jsonl", rotate_bytes=1 << 30)

    def received(self) -> bytes:
        path = self.directory / "out.jsonl"
        return path.read_bytes() if path.exists() else b""

    def close(self) -> None:
        pass


class StdoutScene(Scene):
    """A pipe with a reader that keeps up."""

    kind = "stdout"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._reads, self._writes = os.pipe()
        self._got = bytearray()
        self._thread = threading.Thread(target=self._drain)
        self._thread.start()

    def sink(self) -> Sink:
        return StdoutSink(self._writes)

    def received(self) -> bytes:
        self.close()
        return bytes(self._got)

    def close(self) -> None:
        if self._writes >= 0:
            os.close(self._writes)
            self._writes = -1
            self._thread.join(timeout=10)
            os.close(self._reads)

    def _drain(self) -> None:
        while chunk := os.read(self._reads, 65536):
            self._got += chunk


SCENES: Final[tuple[type[Scene], ...]] = (FileScene, StdoutScene)


def export(kind: str, path: Path) -> Export:
    """A config's part for a kind."""
    return Export(name="all", kind=kind, path=str(path))  # type: ignore[arg-type]  # any kind there may be


@contextmanager
def failing_writes(nth: int, error: int = errno.ENOSPC) -> Iterator[list[int]]:
    """os.write takes half of the nth piece and then fails, once."""
    real, writes = os.write, list[int]()

    def write(fd: int, data: bytes) -> int:
        writes.append(len(data))
        if len(writes) == nth and len(data) > 1:
            return real(fd, bytes(data)[: len(data) // 2])
        if len(writes) == nth + 1:
            raise OSError(error, os.strerror(error))
        return real(fd, data)

    with mock.patch.object(os, "write", write):
        yield writes
