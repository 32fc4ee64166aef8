"""What Linux says about a target's processes: CPU time, memory, descriptors, and which processes there are.

A target may be one process or a supervisor with children that come and go; everything is read for the whole tree below
the process that was started. CPU time is user + system from /proc/PID/stat: all threads, to 10 ms.
"""

import os
import resource
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

US_PER_TICK: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")
STATE, PPID, UTIME, STIME, RSS_PAGES = 0, 1, 11, 12, 21
"""Positions behind the command's closing parenthesis in /proc/PID/stat."""
PAGE_KB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


def _stat(pid: int, thread: str = "") -> list[str] | None:
    """The fields behind the command name, which may hold spaces and parentheses itself; None: it has ended."""
    try:
        return Path(f"/proc/{pid}/{thread}stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def main_thread_cpu_us(pid: int) -> int:
    """CPU time of a process's first thread alone; 0 when it has ended."""
    stat = _stat(pid, f"task/{pid}/")
    return (int(stat[UTIME]) + int(stat[STIME])) * US_PER_TICK if stat else 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """Whether it still runs; one that ended and only waits to be asked for its status does not."""
    stat = _stat(pid)
    return stat is not None and stat[STATE] not in "ZX"


def tree(root: int) -> list[int]:
    """`root` and all processes below it, parents first."""
    parents = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a Path for each of hundreds of entries, only to read its name
        if entry.isdigit() and (stat := _stat(int(entry))):
            parents[int(entry)] = int(stat[PPID])
    found = [root] if root in parents else []
    for parent in found:
        found.extend(pid for pid, of in parents.items() if of == parent)
    return found


@dataclass(frozen=True)
class Process:
    """One process at one moment."""

    pid: int
    cpu_us: int
    rss_kb: int
    descriptors: int
    name: str = ""

    @classmethod
    def read(cls, pid: int) -> Self | None:
        """The process now, or None if it has ended."""
        stat = _stat(pid)
        if stat is None:
            return None
        try:
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - as above, ten thousand times
        except (FileNotFoundError, ProcessLookupError):
            return None
        cpu_us = (int(stat[UTIME]) + int(stat[STIME])) * US_PER_TICK
        return cls(pid, cpu_us, int(stat[RSS_PAGES]) * PAGE_KB, descriptors, _name(pid))


@dataclass(frozen=True)
class Reading:
    """A target's processes at one moment, by pid."""

    processes: dict[int, Process]

    @classmethod
    def of(cls, root: int | None) -> Self:
        """All processes at and below `root`; none when there is no process to look at."""
        pids = tree(root) if root else []
        return cls({pid: process for pid in pids if (process := Process.read(pid))})

    def cpu_us_since(self, before: "Reading") -> dict[int, int]:
        """CPU time by pid between the two readings; a process new since then counts from its birth."""
        spent = {}
        for pid, now in self.processes.items():
            then = before.processes.get(pid)
            spent[pid] = now.cpu_us - (then.cpu_us if then else 0)
        return spent

    def worker(self) -> Process | None:
        """The process that serves: one that is called a worker, else the one with the most memory."""
        called = [process for process in self.processes.values() if "worker" in process.name]
        return max(called or self.processes.values(), key=lambda process: process.rss_kb, default=None)


def core_busy_us(core: int) -> int:
    """Time that `core` has spent in anybody's programs, or stolen by the hypervisor; interrupts are left out."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, steal = (int(fields[i]) for i in (0, 1, 2, 7))
            return (user + nice + system + steal) * US_PER_TICK
    raise ValueError(f"there is no core {core}")


@contextmanager
def pinned(core: int) -> Generator[None, None, None]:
    """This process on one core while the block runs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit, which children inherit, to the hard one; the number allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
