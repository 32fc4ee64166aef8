"""The manifests of a journal as they were at one moment, in order, and the one that an anchor names among them.

Models a stack of lines, read from the bottom, of which the top is known beforehand. Invariants: what is appended after
the moment is not read; a line is bounded; at most one line and a block of bytes are in memory. Left out: whether what
they say is true (`verify.py`).
"""

import re
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

from gateway.journal.layout import manifest_files
from gateway.journal.manifest import BadManifest, Manifest, digest_of, parse
from gateway.journal.scan import rest_of_line

MAX_LINE_BYTES: Final = 1024 * 1024
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_N: Final = re.compile(rb'\{"v":[0-9]+,"node":"[0-9a-f]*","n":([0-9]{1,18}),')


class BadCheckpoint(ValueError):
    """What was given names no manifest; the message says why and what would."""


class Checkpoint(NamedTuple):
    """A manifest to start from: its whole line, or only its number or its hash where that is all one has."""

    n: int = -1
    digest: str = ""
    line: bytes = b""

    @property
    def name(self) -> str:
        """As it is called in messages."""
        return f"manifest {self.n:,}" if self.n >= 0 else f"the manifest with hash {self.digest}"


class Signed(NamedTuple):
    """A manifest and its line, without the newline."""

    manifest: Manifest
    line: bytes


def read_checkpoint(given: str) -> Checkpoint:
    """The checkpoint that these words name: a manifest's number, its hash, or a file with its line (the last counts).

    Raises BadCheckpoint.
    """
    if _NUMBER.fullmatch(given):
        return Checkpoint(n=int(given))
    if _DIGEST.fullmatch(given):
        return Checkpoint(digest=given)
    try:
        with Path(given).open("rb") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        why = f"no number, no SHA-256 and no file: {error.strerror}"
    else:
        line = next(
            filter(_is_manifest, reversed(lines)), b""
        )  # an anchor that was cut short is followed by a whole one
        if line:
            return Checkpoint(n=parse(line).n, line=line)
        why = "a file in which no line is a manifest"
    raise BadCheckpoint(f"{given} is {why}; give a file that an anchor wrote, or a manifest's number or hash")


def _is_manifest(line: bytes) -> bool:
    try:
        parse(line)
    except BadManifest:
        return False
    return True


class ManifestScan:
    """The manifests at the moment this is made. `newest`: the last one that can be read at all.

    `torn`: bytes after the last whole line that stay incomplete.
    """

    def __init__(self, journal: Path, pause: Callable[[float], None] = time.sleep) -> None:
        """Raises OSError."""
        sized = [(path, path.stat().st_size) for path in reversed(manifest_files(journal))]  # those before are whole
        self._sizes = {path: size for path, size in reversed(sized) if size}
        self.torn = self._settle(pause) if self._sizes else 0
        self.newest = self._find_newest()

    def size_bytes(self, n: int = 0) -> int:
        """How many bytes `lines` will give out. Raises OSError."""
        return sum(self._sizes[path] for path in self._paths(n))

    def lines(self, n: int = 0) -> Iterator[bytes]:
        """The lines in order, newlines included, from somewhere before number `n` on; bad ones come as they are.

        Raises OSError.
        """
        for path in self._paths(n):
            yield from _lines_of(path, self._sizes[path])

    def firsts(self) -> Iterator[bytes]:
        """The line that each file begins with, without newlines. Raises OSError."""
        for path in self._sizes:
            with path.open("rb") as file:
                yield file.readline(MAX_LINE_BYTES).removesuffix(b"\n")

    def find(self, checkpoint: Checkpoint) -> bytes:
        """The line that a checkpoint names, without its newline, b"" when there is none. Raises OSError."""
        for raw in self.lines(checkpoint.n):
            line = raw.removesuffix(b"\n")
            if _number_of(line) == checkpoint.n if checkpoint.n >= 0 else digest_of(line) == checkpoint.digest:
                return line
        return b""

    def _paths(self, n: int) -> list[Path]:
        """The files from the last one on that begins with no later number than `n`, and says so."""
        paths = list(self._sizes)
        before = [at for at, line in enumerate(self.firsts()) if 0 <= _number_of(line) <= n] if n > 0 else []
        return paths[max(before, default=0) :]

    def _settle(self, pause: Callable[[float], None]) -> int:
        """Let a last line that is being written become whole; how many bytes stay that are no line."""
        path, size = list(self._sizes.items())[-1]
        with FileIO(path) as file:
            block = _tail(file, size)
            rest = block[block.rfind(b"\n") + 1 :]
            more = rest_of_line(file, pause) if rest else b""
        whole = more.endswith(b"\n")
        self._sizes[path] = size + len(more) if whole else size - len(rest)
        return 0 if whole else len(rest) + len(more)

    def _find_newest(self) -> Signed | None:
        """The last line that parses, among those at the end."""
        for path in reversed(self._sizes):
            with FileIO(path) as file:
                lines = _tail(file, self._sizes[path]).split(b"\n")
            line = next(filter(_is_manifest, reversed(lines[:-1])), b"")
            if line:
                return Signed(parse(line), line)
        return None


def _tail(file: FileIO, size: int) -> bytes:
    """The last bytes of a file that is taken to have `size`; the file stands behind them."""
    file.seek(max(0, size - 2 * MAX_LINE_BYTES))
    return file.read(min(size, 2 * MAX_LINE_BYTES)) or b""


def _lines_of(path: Path, size: int) -> Iterator[bytes]:
    """The lines of a file as far as it went; one that is too long comes in pieces."""
    with path.open("rb", buffering=MAX_LINE_BYTES) as file:
        while size > 0:
            line = file.readline(min(size, MAX_LINE_BYTES))
            if not line:
                return
            size -= len(line)
            yield line


def _number_of(line: bytes) -> int:
    """The number a line says it has, whatever else it says; -1 when it says none."""
    found = _N.match(line)
    return int(found[1]) if found else -1
