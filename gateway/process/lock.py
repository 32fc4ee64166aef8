"""One gateway per state_dir: an flock that lives as long as any process that may write there.

The lock belongs to the open file, which workers and an upgraded supervisor share, so it outlasts a supervisor that was
killed until the last orphaned worker has drained. The file holds the supervisor's pid: alive, the directory is taken;
dead, its orphans are on their way out and are worth waiting for.
"""

import fcntl
import logging
import os
import time
from pathlib import Path
from typing import Final

from gateway.process.settings import StartError

_log: Final = logging.getLogger("gateway.process")
_RETRY_S: Final = 0.05


class StateLock:
    """The held lock of one state_dir."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def acquire(cls, state_dir: Path, wait_s: float) -> "StateLock":
        """Take the lock, making the directory if need be; wait at most `wait_s` for a dead gateway's orphans.

        Raises StartError when another gateway has it, or the directory cannot be used.
        """
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = (state_dir / "lock").resolve()
            return cls(path, _locked(path, time.monotonic() + wait_s))
        except OSError as error:
            raise StartError(f"state_dir {state_dir}: {error.strerror}: give one this user may write to") from error

    @classmethod
    def inherited(cls, state_dir: Path, fd: int, path: str) -> "StateLock":
        """The lock as the executing build held it, or that of a state_dir the config has moved to since."""
        held = Path(path)
        if (state_dir / "lock").resolve() == held:
            return cls(held, fd)
        os.close(fd)  # the old workers keep the old directory for as long as they write there
        return cls.acquire(state_dir, 0.0)

    def release(self) -> None:
        """Give the directory up and leave no file behind; only for a gateway whose processes are all gone."""
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


def _locked(path: Path, until: float) -> int:
    waited = False
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _try_lock(fd) and _still_there(path, fd):
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd
        owner = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        if _alive(owner) or time.monotonic() > until:
            by = f"the gateway with pid {owner}" if owner else "another gateway"
            raise StartError(f"state_dir {path.parent} is in use by {by}: stop it, or give this one its own state_dir")
        if not waited:
            waited = True
            _log.warning(
                "waiting for the workers of a gateway that was killed (pid %s) to leave %s", owner, path.parent
            )
        time.sleep(_RETRY_S)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still_there(path: Path, fd: int) -> bool:
    """False when the previous owner unlinked the file between our open and our lock: that lock guards nothing."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def _alive(pid: str) -> bool:
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
