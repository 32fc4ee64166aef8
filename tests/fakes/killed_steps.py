"""A process that is killed at one step of what it does to the disk, and a disk that may lose what was not synced.

`run` forks: the child does the work with every call that changes the disk counted, and kills itself before, after or
(a write) in the middle of the one it is told. What it synced and what it said until then reaches the parent.
"""

import json
import os
import random
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

CHANGING = ("open", "mkdir", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "replace", "unlink")
How = Literal["before", "after", "within"]


class Ended(NamedTuple):
    """What is known of the child: whether it was killed, at which call, what it said, what it had synced."""

    killed: bool
    call: str
    said: list[str]
    synced: dict[str, int]  # files: bytes
    named: dict[str, list[str]]  # directories: entries


Say = Callable[[str], None]


def run(work: Callable[[Say], None], step: int, how: How) -> Ended:
    """Do the work in a child that dies at that step, counted from 1; step 0: never."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 3
        try:
            child = _Child(writing, step, how)
            child.intercept()
            work(child.say)
            code = 0
        except BaseException:  # noqa: BLE001 - the child never returns into the parent's test
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        events = [json.loads(line) for line in pipe.read().splitlines()]
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, "the work raised: see above"
    said = [event["said"] for event in events if "said" in event]
    call = next((event["dies"] for event in events if "dies" in event), "")
    synced = {event["file"]: event["size"] for event in events if "file" in event}
    named = {event["directory"]: event["names"] for event in events if "directory" in event}
    return Ended(killed, call, said, synced, named)


class _Child:
    def __init__(self, pipe: int, step: int, how: How) -> None:
        self._pipe, self._step, self._how = pipe, step, how
        self._count = 0
        self._real = {name: getattr(os, name) for name in CHANGING}

    def say(self, text: str) -> None:
        self._tell(said=text)

    def intercept(self) -> None:
        for name in CHANGING:
            setattr(os, name, self._counted(name))

    def _counted(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*args: Any, **options: Any) -> object:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **options)
            self._count += 1
            if self._count == self._step:
                self._die(name, args, options)
            result = real(*args, **options)
            if name in ("fsync", "fdatasync"):
                self._note(args[0])
            return result

        return call

    def _die(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if self._how == "within" and name == "pwrite":
            fd, data, offset = args
            self._real["pwrite"](fd, bytes(data)[: len(data) // 2], offset)
        elif self._how != "before":
            with suppress(OSError):  # a call that fails, as it does where a directory is there already, is a step too
                self._real[name](*args, **options)
            if name in ("fsync", "fdatasync"):
                self._note(args[0])
        self._tell(dies=name)
        os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_dir():
            self._tell(directory=str(path), names=[entry.name for entry in path.iterdir()])
        else:
            self._tell(file=str(path), size=os.fstat(fd).st_size)

    def _tell(self, **event: object) -> None:
        os.write(self._pipe, json.dumps(event).encode() + b"\n")


def lose_power(root: Path, before: "Kept", ended: Ended, dice: random.Random) -> None:
    """Leave below `root` what a power cut might: names and bytes that were synced, and any part of the bytes after."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        names = ended.named.get(str(path.parent), [])
        if path not in before.sizes and path.name not in names:
            path.unlink()
            continue
        size = path.stat().st_size
        safe = min(size, ended.synced.get(str(path), before.sizes.get(path, 0)))
        os.truncate(path, dice.choice((safe, dice.randint(safe, size))))


class Kept(NamedTuple):
    """Files that are on the disk whatever happens, and how much of each."""

    sizes: dict[Path, int]

    @classmethod
    def now(cls, root: Path) -> "Kept":
        """Everything there is below."""
        return cls({path: path.stat().st_size for path in root.rglob("*") if path.is_file()})
