"""The writer's side of the manifests: appended one by one, each on the disk before it counts.

Models an append-only log in numbered files, a new one every FILE_BYTES or FILE_US, that survives whatever happens to
its writer. A line that could not be written whole and synced did not happen: its bytes are taken back, and the caller
comes again *with the same line*, because somebody may have seen it; two different manifests of one number would look
like forgery. After a crash or a power cut the end of the newest file may be torn. What is no whole manifest there was
never acknowledged: it is set aside as `torn-…` and cut off. Damage further back is nothing a crash does, and raises.

Invariants: `last` is on the disk; a lock keeps a second writer out, whatever started it. Left out: what is signed and
when (`control/notary.py`).
"""

import errno
import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

from gateway.config.files import FILE_MODE, private_directory, replacing, sync_directory
from gateway.journal.layout import MANIFESTS, manifest_files
from gateway.journal.manifest import BadManifest, Floor, Manifest, ManifestFloor, NewerManifest, parse
from gateway.units import MIB, US_PER_S

FILE_BYTES: Final = 8 * MIB
FILE_US: Final = 86_400 * US_PER_S


class ManifestLog:
    """The manifests of one journal, open for appending by one process at a time."""

    def __init__(self, journal: Path) -> None:
        """Find the end of what was written, and repair it. Raises OSError, BadManifest.

        A BlockingIOError among them: another process has it open.
        """
        self._directory: Final = journal / MANIFESTS
        if not self._directory.is_dir():
            sync_directory(private_directory(self._directory).parent)
        self._lock = _locked(self._directory)
        self._fd = -1
        self._end = 0  # of the open file: all before it is whole and synced
        self._since_us = 0  # what the first manifest of the open file says
        self.last: Manifest | None = None
        self.last_line = b""
        self.torn = ""  # the file that a torn end was set aside in
        try:
            files = manifest_files(journal)
            self._number = _number_of(files[-1]) if files else 0
            if files:
                self._continue(files)
        except BaseException:
            self.close()
            raise

    def append(self, line: bytes, manifest: Manifest) -> None:
        """Write the next manifest (`line` without its newline); when this returns, a power cut cannot undo it.

        Raises OSError: then nothing has changed, and the next one to append must be this very line.
        """
        if self._fd < 0 or self._full(len(line), manifest.at_us):
            self._open_next()
        if not self._end:
            self._since_us = manifest.at_us
        try:
            _write_all(self._fd, line + b"\n", self._end)
            os.fdatasync(self._fd)
        except OSError:
            with suppress(OSError):  # or else the same bytes come again, at the same place
                os.ftruncate(self._fd, self._end)
            raise
        self._end += len(line) + 1
        self.last, self.last_line = manifest, line

    def floor_over(self, floors: Mapping[str, Floor]) -> ManifestFloor | None:
        """Where the manifests may begin when chains begin at these floors; None when all are needed.

        A file is needed while any line that its manifests cover is kept: without them that line is still part of
        a chain that ends in a signature, but cannot be proved by itself.
        """
        kept = None
        for path, after in self._pairs():
            if not _is_behind(_last_of(path), floors):
                break
            first = _first_of(after)
            kept = ManifestFloor(first.n, first.prev)
        return kept

    def drop_below(self, floor: ManifestFloor) -> None:
        """Remove the files that hold nothing from `floor` on, oldest first. Raises OSError, BadManifest."""
        for path, after in self._pairs():
            if _first_of(after).n > floor.n:
                return
            for torn in self._directory.glob(f"torn-{_number_of(path)}-*"):
                torn.unlink()
            path.unlink()

    def close(self) -> None:
        """Let go of the file and of the lock."""
        self._close_file()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # --- the end as it was left -------------------------------------------------------------------------------------

    def _continue(self, files: list[Path]) -> None:
        data = files[-1].read_bytes()
        kept = _whole(data, files[-1])
        self._fd = os.open(files[-1], os.O_RDWR | os.O_CLOEXEC)
        if len(kept) < len(data):
            self._set_aside(data, len(kept))
        os.fsync(self._fd)  # a whole last line may not have been synced yet
        sync_directory(self._directory)
        self._end = len(kept)
        self._read_last(kept, files)

    def _read_last(self, kept: bytes, files: list[Path]) -> None:
        if kept:
            self.last_line = _last_line(kept)
            self.last = parse(self.last_line)
            self._since_us = parse(kept[: kept.index(b"\n")]).at_us
        elif len(files) > 1:
            self.last_line = _last_line(files[-2].read_bytes())
            self.last = _parsed(self.last_line, files[-2])

    def _set_aside(self, data: bytes, end: int) -> None:
        torn = data[end:]
        self.torn = f"torn-{self._number}-{end}-{sha256(torn).hexdigest()[:8]}"
        with replacing(self._directory / self.torn) as file:
            file.write(torn)
        os.ftruncate(self._fd, end)

    # --- files ------------------------------------------------------------------------------------------------------

    def _full(self, length: int, now_us: int) -> bool:
        if not self._end:
            return False
        return self._end + length >= FILE_BYTES or now_us - self._since_us >= FILE_US

    def _open_next(self) -> None:
        path = self._directory / f"{self._number + 1:010d}.jsonl"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            sync_directory(self._directory)
        except BaseException:
            os.close(fd)
            raise
        self._close_file()
        self._fd, self._end = fd, 0
        self._number += 1

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _pairs(self) -> list[tuple[Path, Path]]:
        """Every file but the newest, each with the one after it, oldest first."""
        files = [path for path in manifest_files(self._directory.parent) if path.stat().st_size]
        return list(pairwise(files))


def _locked(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise BlockingIOError(errno.EAGAIN, "another process is signing this journal", str(directory)) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _whole(data: bytes, path: Path) -> bytes:
    """The part of a newest file that holds whole manifests: all but a torn end. Raises BadManifest."""
    end = data.rfind(b"\n") + 1
    if end and not _is_manifest(_last_line(data[:end])):
        if end < len(data):
            raise BadManifest(f"{path} is damaged before its last line: no crash does this; see `gateway audit verify`")
        end = data.rfind(b"\n", 0, end - 1) + 1
        if end:
            _parsed(_last_line(data[:end]), path)
    return data[:end]


def _last_line(data: bytes) -> bytes:
    """The last of some whole lines, without its newline."""
    return data[data.rfind(b"\n", 0, -1) + 1 : -1]


def _is_manifest(line: bytes) -> bool:
    try:
        parse(line)
    except NewerManifest:
        raise
    except BadManifest:
        return False
    return True


def _parsed(line: bytes, path: Path) -> Manifest:
    try:
        return parse(line)
    except BadManifest as error:
        raise BadManifest(f"{path} is damaged: {error}; see `gateway audit verify`") from None


def _number_of(path: Path) -> int:
    return int(path.stem)


def _first_of(path: Path) -> Manifest:
    with path.open("rb") as file:
        return _parsed(file.readline().removesuffix(b"\n"), path)


def _last_of(path: Path) -> Manifest:
    return _parsed(_last_line(path.read_bytes()), path)


def _is_behind(manifest: Manifest, floors: Mapping[str, Floor]) -> bool:
    """Whether every line covered up to this manifest was dropped."""
    return all(end.chain in floors and end.seq < floors[end.chain].seq for end in manifest.chains)
