"""Hosts of their own on one machine: network namespaces, each with one cable to a bridge in between.

    root 198.18.0.1 ──┐
    host 198.18.0.11 ─┤ bridge, in a namespace of its own
    host 198.18.0.12 ─┘

What runs in a host has its own loopback, ports and TCP tables, and reaches others over a network only; 198.18.0.0/15 is
kept for benchmarks (RFC 2544). The machine's own namespace sees one interface more and no bridge, so its firewall and
its routes have no say in what hosts tell each other.

Nothing can be left behind: a namespace has no name, it lives by a sleeping process that the kernel ends with this one,
however that ends; with a namespace go its ends of the cables, and with an end the other. On a usual way out the one
interface that others see is removed at once.

It takes root, or who else may make namespaces and interfaces, and `ip`, `unshare` and `nsenter`. CannotRun says what is
missing. Two networks at a time are one too many, and that is said as well.
"""

import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.speed import launch
from bench.speed.launch import CannotRun, Host

INTERFACE: Final = "sluice-bench"
PACKAGES: Final = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
IP_PATIENCE_S: Final = 10.0
MAX_HOSTS: Final = 200
_SUBNET: Final = "198.18.0"
_FIRST: Final = 11


@dataclass(frozen=True)
class Network:
    """This machine as the others see it, and the others."""

    here: Host
    hosts: Sequence[Host]


@contextmanager
def network(hosts: int, folder: Path) -> Generator[Network, None, None]:
    """A bridge with so many hosts and this machine on it, until the block ends; CannotRun where it cannot be made."""
    if not 0 < hosts <= MAX_HOSTS:
        raise ValueError(f"1 to {MAX_HOSTS} hosts, not {hosts}")
    _look_for_programs()
    with ExitStack() as stack:
        bridge = stack.enter_context(_namespace("bridge", folder))
        _ip(f"link add {INTERFACE} type veth peer name here netns {bridge}")
        stack.callback(_remove)
        _ip(f"address add {_SUBNET}.1/24 dev {INTERFACE}", f"link set {INTERFACE} up")
        _ip("link add bridge type bridge", "link set bridge up", "link set here master bridge up", of=bridge)
        made = [_host(number, bridge, stack, folder) for number in range(hosts)]
        yield Network(Host(f"{_SUBNET}.1"), made)


def _look_for_programs() -> None:
    for name, package in PACKAGES.items():
        if launch.program(name) is None:
            raise CannotRun(f"{name} is missing; on Debian: apt-get install {package}")


def _host(number: int, bridge: int, stack: ExitStack, folder: Path) -> Host:
    """A namespace on the bridge."""
    pid, address = stack.enter_context(_namespace(f"host-{number}", folder)), f"{_SUBNET}.{_FIRST + number}"
    cable = f"host{number}"
    _ip(f"link add {cable} type veth peer name eth0 netns {pid}", f"link set {cable} master bridge up", of=bridge)
    _ip("link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up", of=pid)
    return Host(address, ("nsenter", f"--net={_namespace_of(pid)}"))


@contextmanager
def _namespace(name: str, folder: Path) -> Generator[int, None, None]:
    """The process that a new namespace lives by."""
    words = ["unshare", "--net", "sleep", "infinity"]
    with launch.started(f"network namespace ({name})", words, core=None, log=folder / f"{name}.log") as process:
        process.wait_for("namespace", lambda: _has_left(process.pid))
        yield process.pid


def _has_left(pid: int) -> bool:
    """Whether a process is in another namespace than this one."""
    with suppress(OSError):  # it has ended
        return not _namespace_of(pid).samefile("/proc/self/ns/net")
    return False


def _namespace_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net")


def _ip(*lines: str, of: int | None = None) -> None:
    """These commands of `ip`, here or in the namespace of a process. CannotRun with its words when one fails."""
    inside = ["nsenter", f"--net={_namespace_of(of)}"] if of else []
    done = subprocess.run(  # noqa: S603 - our own words
        [*inside, launch.program("ip") or "ip", "-batch", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=IP_PATIENCE_S,
    )
    if done.returncode:
        hint = " (is another bench under way?)" if INTERFACE in lines[0] and "exists" in done.stderr else ""
        raise CannotRun(f"no network between namespaces: ip {'; '.join(lines)}: {done.stderr.strip()}{hint}")


def _remove() -> None:
    """The interface here; with it goes its other end."""
    _ip(f"link delete {INTERFACE}")
