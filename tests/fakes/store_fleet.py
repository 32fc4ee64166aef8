"""Real stores that belong together: a primary with its replica and sentinels, and a cluster."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateway.limiter.resp import ReplyError
from tests.fakes.ports import free_port
from tests.fakes.store_server import StoreServer, running

WITHIN_S = 60.0
SERVICE = "main"
QUICKLY = ("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "disabled")


def settled(holds: Callable[[], object]) -> None:
    """Wait until stores have agreed on something."""
    until_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def ask(server: StoreServer, *words: str | int) -> object:
    """One command on a connection of its own."""
    with server.connect() as connection:
        return connection.ask(*map(str, words))


# --- sentinels ------------------------------------------------------------------------------------------------------


class Guarded:
    """A primary, its replica, and the sentinels that watch them."""

    def __init__(self, stack: ExitStack, folder: Path, *, down_after_ms: int) -> None:
        self.one = stack.enter_context(running(*QUICKLY))
        self.two = stack.enter_context(running(*QUICKLY, "--replicaof", f"{self.one.host} {self.one.port}"))
        self.sentinels = [
            stack.enter_context(running(sentinel=_watching(self.one, folder / f"{number}.conf", down_after_ms)))
            for number in range(3)
        ]
        settled(self._known)

    @property
    def url(self) -> str:
        return f"sentinel://{','.join(f'{one.host}:{one.port}' for one in self.sentinels)}/{SERVICE}"

    @property
    def primary(self) -> StoreServer:
        """Of the two, by the word of the first sentinel that lives."""
        (_, port) = self.say(self.sentinels[-1], "GET-MASTER-ADDR-BY-NAME")
        return self.one if int(port) == self.one.port else self.two

    def say(self, sentinel: StoreServer, what: str) -> list[bytes]:
        answer = ask(sentinel, "SENTINEL", what, SERVICE)
        assert isinstance(answer, list)
        return answer

    def _known(self) -> bool:
        """Whether every sentinel knows the others and a replica that follows."""
        for sentinel in self.sentinels:
            fields = self.say(sentinel, "MASTER")
            about = dict(zip(fields[::2], fields[1::2], strict=True))
            if (about[b"num-slaves"], about[b"num-other-sentinels"]) != (b"1", b"2"):
                return False
        return b"master_link_status:up" in _text(ask(self.two, "INFO", "replication"))


def _watching(primary: StoreServer, config: Path, down_after_ms: int) -> Path:
    config.write_text(
        f"sentinel monitor {SERVICE} {primary.host} {primary.port} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\n"
        f"sentinel failover-timeout {SERVICE} 5000\n"
    )
    return config


@contextmanager
def guarded(folder: Path, *, down_after_ms: int = 1_000) -> Iterator[Guarded]:
    """A primary with everything around it, ready to fail over."""
    with ExitStack() as stack:
        yield Guarded(stack, folder, down_after_ms=down_after_ms)


# --- clusters -------------------------------------------------------------------------------------------------------


class Cluster:
    """Three nodes with a third of the slots each, and a replica of the one that has `key`, which is `home`."""

    def __init__(self, stack: ExitStack, key: str) -> None:
        self.nodes = [_clustered(stack) for _ in range(3)]
        bounds = [0, 5_461, 10_923, 16_384]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            ask(node, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        self._meet(self.nodes[1:])
        slot = ask(self.nodes[0], "CLUSTER", "KEYSLOT", key)
        assert isinstance(slot, int)
        self.slot = slot
        self.home = next(node for node, end in zip(self.nodes, bounds[1:], strict=False) if slot < end)
        self.away = [node for node in self.nodes if node is not self.home]
        self.replica = _clustered(stack)
        self._meet([self.replica])
        self.replicate()

    @property
    def url(self) -> str:
        return f"redis://{','.join(f'{one.host}:{one.port}' for one in self.nodes)}"

    def replicate(self) -> None:
        """Have the replica follow the home node."""
        name = self.name(self.home)
        settled(lambda: _done(lambda: ask(self.replica, "CLUSTER", "REPLICATE", name)))
        settled(lambda: b"master_link_status:up" in _text(ask(self.replica, "INFO", "replication")))
        settled(lambda: all(b"slave" in _text(ask(node, "CLUSTER", "NODES")) for node in self.nodes))

    def name(self, node: StoreServer) -> str:
        return _text(ask(node, "CLUSTER", "MYID")).decode()

    def begin_move(self, to: StoreServer) -> None:
        """From here on the slot is between two nodes."""
        ask(to, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.name(self.home))
        ask(self.home, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.name(to))

    def move_some(self, to: StoreServer, count: int) -> bool:
        """Move some keys; False when none was left."""
        keys = ask(self.home, "CLUSTER", "GETKEYSINSLOT", self.slot, count)
        assert isinstance(keys, list)
        if keys:
            names = [key.decode() for key in keys]
            ask(self.home, "MIGRATE", to.host, to.port, "", 0, 5_000, "REPLACE", "KEYS", *names)
        return bool(keys)

    def end_move(self, to: StoreServer) -> None:
        """The slot has moved; everyone is told."""
        name = self.name(to)
        for node in (to, self.home, *self.nodes):
            ask(node, "CLUSTER", "SETSLOT", self.slot, "NODE", name)

    def _meet(self, others: list[StoreServer]) -> None:
        first = self.nodes[0]
        for other in others:
            ask(first, "CLUSTER", "MEET", other.host, other.port, other.option("--cluster-port"))
        everyone = {*self.nodes, *others}
        settled(lambda: all(b"cluster_state:ok" in _text(ask(node, "CLUSTER", "INFO")) for node in everyone))


def _clustered(stack: ExitStack) -> StoreServer:
    ports = ("--cluster-port", str(stack.enter_context(free_port())))
    return stack.enter_context(running(*QUICKLY, "--cluster-enabled", "yes", *ports, "--cluster-node-timeout", "1500"))


def _text(answer: object) -> bytes:
    assert isinstance(answer, bytes)
    return answer


def _done(command: Callable[[], object]) -> bool:
    try:
        command()
    except ReplyError:
        return False
    return True


@contextmanager
def cluster(key: str) -> Iterator[Cluster]:
    """A cluster in which the home node of this key has a replica."""
    with ExitStack() as stack:
        yield Cluster(stack, key)
