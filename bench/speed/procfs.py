"""What Linux says about a target's processes: CPU time, memory, descriptors, and which processes there are.

A target may be one process or a supervisor with children that come and go; everything is read for the whole tree below
the process that was started. CPU time is user + system from /proc/PID/stat: all threads, to 10 ms. What a core did is
told by /proc/stat, of which only the idle time is exact: the rest is sampled by the clock's tick.
"""

import os
import resource
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

US_PER_TICK: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")
STATE, PPID, FLAGS, UTIME, STIME, CUTIME, CSTIME, BORN, RSS_PAGES, LAST_CORE = 0, 1, 6, 11, 12, 13, 14, 19, 21, 36
"""Positions behind the command's closing parenthesis in /proc/PID/stat; C… is of children that were waited for."""
KERNEL_THREAD: Final = 0x00200000  # PF_KTHREAD, among the flags
IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL = 3, 4, 5, 6, 7
"""Positions behind a core's name in /proc/stat."""
SLICES, SLICE_S = 200, 0.001  # of the look at how interrupts count; one in which nobody came between is enough
MOSTLY: Final = 0.93
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


def pss_kb(pid: int) -> int:
    """Its memory, with what it shares with others counted in parts; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def alive(pid: int) -> bool:
    """Whether it still runs; one that ended and only waits to be asked for its status does not."""
    stat = _stat(pid)
    return stat is not None and stat[STATE] not in "ZX"


def _everybody() -> dict[int, list[str]]:
    """The fields of all processes there are."""
    entries = os.listdir("/proc")  # noqa: PTH208 - a Path for each of hundreds of entries, only to read its name
    return {int(entry): stat for entry in entries if entry.isdigit() and (stat := _stat(int(entry)))}


def tree(root: int) -> list[int]:
    """`root` and all processes below it, parents first."""
    return _below(root, _everybody())


def _below(root: int, everybody: Mapping[int, list[str]]) -> list[int]:
    found = [root] if root in everybody else []
    for parent in found:
        found.extend(pid for pid, stat in everybody.items() if int(stat[PPID]) == parent)
    return found


@dataclass(frozen=True)
class Process:
    """One process at one moment."""

    pid: int
    cpu_us: int
    rss_kb: int
    descriptors: int
    name: str = ""
    born_us: int = 0  # since the machine was started, to 10 ms

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
        rss_kb, born_us = int(stat[RSS_PAGES]) * PAGE_KB, int(stat[BORN]) * US_PER_TICK
        return cls(pid, cpu_us, rss_kb, descriptors, _name(pid), born_us)


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
        return self.called("worker") or max(self.processes.values(), key=lambda process: process.rss_kb, default=None)

    def called(self, part: str) -> Process | None:
        """The process with this in its name; of several the one with the most memory."""
        found = (process for process in self.processes.values() if part in process.name)
        return max(found, key=lambda process: process.rss_kb, default=None)


@dataclass(frozen=True)
class CoreTimes:
    """What a core has not spent in programs since the machine was started; waiting for a disk is idle."""

    idle_us: int
    interrupts_us: int
    stolen_us: int  # by the hypervisor

    @classmethod
    def read(cls, core: int) -> Self:
        """The core now; ValueError if there is none of that number."""
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name == f"cpu{core}":
                us = [int(field) * US_PER_TICK for field in fields]
                return cls(us[IDLE] + us[IOWAIT], us[IRQ] + us[SOFTIRQ], us[STEAL])
        raise ValueError(f"there is no core {core}")


@dataclass(frozen=True)
class Spent:
    """CPU time of a process and all below it, and of the kernel's threads: µs and the core last seen on, by process.

    Children that ended count with the parent that waited for them.
    """

    by_process: Mapping[int, tuple[int, int]]

    @classmethod
    def by(cls, root: int) -> Self:
        """Until now."""
        everybody = _everybody()
        kernel = [pid for pid, stat in everybody.items() if int(stat[FLAGS]) & KERNEL_THREAD]
        found = {}
        for pid in (*_below(root, everybody), *kernel):
            stat = everybody[pid]
            ticks = sum(int(stat[field]) for field in (UTIME, STIME, CUTIME, CSTIME))
            found[pid] = (ticks * US_PER_TICK, int(stat[LAST_CORE]))
        return cls(found)

    def since(self, before: "Spent", core: int) -> int:
        """µs spent since then by those that were last on this core; exact where processes are pinned."""
        return sum(
            us - before.by_process.get(pid, (0, core))[0] for pid, (us, on) in self.by_process.items() if on == core
        )


def processes_have_interrupts() -> bool:
    """Whether interrupts count as time of the process that they came upon (CONFIG_IRQ_TIME_ACCOUNTING is off).

    Asked of the machine itself: half of what sending to oneself over loopback takes is done in such an interrupt.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("127.0.0.1", 0))
        echo.connect(echo.getsockname())
        return any(_own_share(echo) > MOSTLY for _ in range(SLICES))


def _own_share(echo: socket.socket) -> float:
    """Of the time that a few datagrams to oneself take, how much is said to be ours; less where others came between."""
    began, own = time.monotonic(), time.process_time()
    while time.monotonic() - began < SLICE_S:
        echo.send(b"x" * 1000)
        echo.recv(2000)
    return (time.process_time() - own) / (time.monotonic() - began)


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
