"""Files that are whole or not there: written aside, synced, then renamed into place.

After a crash at any point a reader finds the old file or the new one. Everything is readable by its owner only, since
configs and key digests are nobody else's business.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write (and read back) that takes the path's place when the block ends well, and else disappears."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            aside.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names created or renamed in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_directory(path: Path) -> Path:
    """The directory, made for this user alone where it did not exist."""
    path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    return path
