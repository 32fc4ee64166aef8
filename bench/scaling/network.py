"""Hosts of their own on one machine: network namespaces, each with one cable to a bridge in between.

    root 198.18.0.1 ──┐
    host 198.18.0.11 ─┤ bridge, in a namespace of its own
    host 198.18.0.12 ─┘

What runs in a host has its own loopback, ports and TCP tables, and reaches others over a network only; 198.18.0.0/15 is
kept for benchmarks (RFC 2544). The machine's own namespace sees one interface more and no bridge, so its firewall and
its routes have no say in what hosts tell each other.

Networks of different runs have nothing to do with each other: each has a number that no other has now, which is in its
interface's name and in its addresses. The kernel decides who has it, since no two interfaces have one name.

Nothing can be left behind: a namespace has no name, it lives by a sleeping process that the kernel ends with this one,
however that ends; with a namespace go its ends of the cables, and with an end the other. On a usual way out the one
interface that others see is removed at once.

It takes root, or who else may make namespaces and interfaces, and `ip`, `unshare` and `nsenter`. CannotRun says what is
missing.
"""

import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.speed import launch
from bench.speed.launch import CannotRun, Host

INTERFACE: Final = "sluice-bench"  # and up to three digits: a name has 15 characters
PACKAGES: Final = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}
IP_PATIENCE_S: Final = 10.0
MAX_HOSTS: Final = 200
MAX_NETWORKS: Final = 512  # as many as 198.18.0.0/15 has of 256 addresses
_FIRST: Final = 11


@dataclass(frozen=True)
class Network:
    """This machine as the others see it, and the others; `interface` is the one that it has more meanwhile."""

    here: Host
    hosts: Sequence[Host]
    interface: str


class _Taken(CannotRun):
    """There is something of that name already."""


@contextmanager
def network(hosts: int, folder: Path) -> Generator[Network, None, None]:
    """A bridge with so many hosts and this machine on it, until the block ends; CannotRun where it cannot be made."""
    if not 0 < hosts <= MAX_HOSTS:
        raise ValueError(f"1 to {MAX_HOSTS} hosts, not {hosts}")
    _look_for_programs()
    with ExitStack() as stack:
        bridge = stack.enter_context(_namespace("bridge", folder))
        number = _connect(bridge)
        interface, subnet = f"{INTERFACE}{number}", f"198.{18 + number // 256}.{number % 256}"
        stack.callback(_ip, f"link delete {interface}")  # its other end goes with it
        _ip(f"address add {subnet}.1/24 dev {interface}", f"link set {interface} up")
        _ip("link add bridge type bridge", "link set bridge up", "link set here master bridge up", of=bridge)
        made = [_host(f"host{at}", f"{subnet}.{_FIRST + at}", bridge, stack, folder) for at in range(hosts)]
        yield Network(Host(f"{subnet}.1"), made, interface)


def _look_for_programs() -> None:
    for name, package in PACKAGES.items():
        if launch.program(name) is None:
            raise CannotRun(f"{name} is missing; on Debian: apt-get install {package}")


def _connect(bridge: int) -> int:
    """A cable from here to the bridge; the number of the network, the first that nobody has."""
    for number in range(MAX_NETWORKS):
        with suppress(_Taken):
            _ip(f"link add {INTERFACE}{number} type veth peer name here netns {bridge}")
            return number
    raise CannotRun(f"there are {MAX_NETWORKS} networks of benches already: `ip link` shows them")


def _host(name: str, address: str, bridge: int, stack: ExitStack, folder: Path) -> Host:
    """A namespace on the bridge."""
    pid = stack.enter_context(_namespace(name, folder))
    _ip(f"link add {name} type veth peer name eth0 netns {pid}", f"link set {name} master bridge up", of=bridge)
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
        kind = _Taken if "File exists" in done.stderr else CannotRun
        raise kind(f"no network between namespaces: ip {'; '.join(lines)}: {done.stderr.strip()}")
