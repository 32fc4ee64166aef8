"""What callers notice of a node's life: nothing, but for streams that die with their worker.

The real gateway with two workers, and two callers beside whatever happens to it: one connects anew every 5 ms, one
stays on its connection for as long as it may. An error is anything that is not the whole, right answer. The kept
connection may be closed between two requests, as HTTP allows: then that request is sent again on a new one, and that
must succeed.
"""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import uvloop
import yaml

from gateway.units import NS_PER_S
from tests.fakes.gateway_node import DISABLED_KEY, KEY, LIMITED_KEY, GatewayNode, chat_body, running, until
from tests.fakes.patience import PATIENCE_S
from tests.fakes.wire_client import Answer

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
NEW_KEY = "gw-added" + "0" * 38
EVERY_S = 0.005
MOST_AT_ONCE = 50
CONFIG: dict[str, Any] = {"log": {"requests": "none"}, "drain_delay_s": 1.0, "drain_s": 20.0}


class Failed(NamedTuple):
    """A call that was not answered as it should be; times are those of the monotonic clock."""

    began_s: float
    ended_s: float
    who: str
    how: str

    def open_within(self, since_s: float, until_s: float) -> bool:
        """Whether it was under way at any time between these two."""
        return self.began_s <= until_s and since_s <= self.ended_s


class Callers:
    """Both callers on a thread of their own; `errors` says when, who and what.

    No two bodies are the same: one that two workers were reading when they were killed would be refused. Where the
    gateway cannot keep up, no more than `MOST_AT_ONCE` wait for it.
    """

    def __init__(self, node: GatewayNode) -> None:
        self.node = node
        self.port = node.port
        self.seeds = itertools.count()
        self.answered = 0
        self.resent = 0
        self.errors: list[Failed] = []
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self.thread.start()
        until(lambda: self.answered > 20, "the callers' first answers")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop calling; open requests are waited for."""
        self.leaving.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def goes_on(self, answers: int = 50) -> None:
        """Wait for so many answers more."""
        goal = self.answered + answers
        until(lambda: self.answered >= goal, "answers")

    def unharmed(self) -> None:
        """Go on for a while, and then fail if there was an error so far."""
        self.goes_on()
        assert self.errors == []

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._call())

    async def _call(self) -> None:
        open_calls = {asyncio.create_task(self._stay())}
        while not self.leaving.is_set():
            open_calls = {call for call in open_calls if not call.done()}
            if len(open_calls) < MOST_AT_ONCE:
                open_calls.add(asyncio.create_task(self._connect_anew()))
            await asyncio.sleep(EVERY_S)
        await asyncio.gather(*open_calls)

    async def _connect_anew(self) -> None:
        await self._noted("new", self._once())

    async def _once(self) -> None:
        async with self._connected() as (reader, writer):
            await self._ask(reader, writer)

    async def _stay(self) -> None:
        while not self.leaving.is_set():
            await self._noted("kept", self._until_closed())

    async def _until_closed(self) -> None:
        async with self._connected() as (reader, writer):
            keep, served = True, 0
            while keep and not self.leaving.is_set():
                try:
                    keep = await self._ask(reader, writer)
                except ConnectionResetError:
                    if not served:
                        raise
                    self.resent += 1
                    return
                served += 1
                await asyncio.sleep(EVERY_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection may be used again. ConnectionResetError: not a byte of an answer."""
        writer.write(self.node.request(CHAT, chat_body("sim-m+tokens=3", seed=next(self.seeds))))
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        except asyncio.IncompleteReadError as end:
            if end.partial:
                raise
            raise ConnectionResetError("closed before the answer") from None
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        assert body.endswith(b"}"), body
        self.answered += 1
        return b"connection: close" not in head.lower()

    async def _noted(self, who: str, call: Any) -> None:  # noqa: ANN401 - a coroutine of one of the two
        began_s = time.monotonic()
        try:
            await call
        except (OSError, EOFError, AssertionError, TimeoutError) as error:
            self.errors.append(Failed(began_s, time.monotonic(), who, repr(error)))


@pytest.fixture
def node() -> Iterator[GatewayNode]:
    with running(CONFIG, workers=2) as running_node:
        yield running_node


@pytest.fixture
def callers(node: GatewayNode) -> Iterator[Callers]:
    with Callers(node) as calling:
        yield calling


def rewritten(node: GatewayNode, **changes: Any) -> None:
    """Write the config anew; nobody is told."""
    node.config = {**node.config, **changes}
    text = yaml.safe_dump(dict(node.config), sort_keys=False)
    node.config_path.write_text(text.replace("@SIM@", node.sim.url))


def generation(node: GatewayNode) -> int:
    found: int = node.admin("/v1/status").json["generation"]
    return found


def reloaded(node: GatewayNode) -> None:
    """SIGHUP, and wait until every worker has taken the new snapshot."""
    before = generation(node)
    os.kill(node.pid, signal.SIGHUP)
    node.until(lambda: generation(node) > before, "a new snapshot")
    node.until(lambda: f"snapshot {before + 1} is in use by all 2 workers" in node.log(), "both workers")


def open_stream(node: GatewayNode, tokens: int = 60, token_ms: int = 40) -> Any:  # noqa: ANN401 - a Call, and its end
    """A stream of some seconds that has begun."""
    call = node.open(node.request(CHAT, chat_body(f"sim-m+tokens={tokens}+token-ms={token_ms}", stream=True)))
    assert call.head().status == 200
    return call


def read_out(call: Any) -> Answer:  # noqa: ANN401 - see open_stream
    with call:
        return Answer(200, [], b"".join(call.pieces()))


def requests_total(node: GatewayNode) -> float:
    return node.metrics("gateway_requests_total")


# --- reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_brings_keys_and_takes_keys_within_a_second(node: GatewayNode, callers: Callers) -> None:
    assert node.post(CHAT, chat_body("renamed"), key=LIMITED_KEY).status == 200
    assert node.post(CHAT, chat_body("renamed"), key=NEW_KEY).status == 401
    keys = [key for key in node.config["keys"] if key["id"] != "limited"]
    stream = open_stream(node, tokens=30)
    rewritten(node, keys=[*keys, {"id": "added", "secret": NEW_KEY}])
    took_s = []
    for _ in range(3):  # of which the best counts: the others may say more about the machine than about the node
        told = time.monotonic()
        reloaded(node)
        took_s.append(time.monotonic() - told)
    assert min(took_s) < 1
    for _ in range(20):  # over both workers
        assert node.post(CHAT, chat_body("renamed"), key=NEW_KEY).status == 200
        assert node.post(CHAT, chat_body("renamed"), key=LIMITED_KEY).status == 401
    assert read_out(stream).body.endswith(b"data: [DONE]\n\n")
    callers.unharmed()


def test_a_bad_config_changes_nothing_and_says_why(node: GatewayNode, callers: Callers) -> None:
    before, pids = generation(node), node.session()
    good = dict(node.config)
    for bad, why in (
        ({"drain_s": "soon"}, "drain_s: must be a number"),
        ({"models": {"m": {"targets": [{"provider": "nobody", "model": "x"}]}}}, r"models\.m\S+ names no provider"),
        ({"policy": {}}, "policy: is not enforced"),
    ):
        rewritten(node, **bad)
        refusals = node.log().count("reload refused")
        os.kill(node.pid, signal.SIGHUP)
        node.until(lambda: node.log().count("reload refused") > refusals, "the refusal")  # noqa: B023 - awaited here
        assert re.search(rf"gateway\.yaml:\d+:\d+: {why}", node.log())
        assert generation(node) == before
        rewritten(node, **good)
    node.config_path.write_text("listen: [")
    refusals = node.log().count("reload refused")
    os.kill(node.pid, signal.SIGHUP)
    node.until(lambda: node.log().count("reload refused") > refusals, "the refusal of no YAML")
    assert node.get("/readyz", key="").status == 200
    assert sorted(node.session()) == sorted(pids)
    node.config = {key: value for key, value in good.items() if key != "policy"}
    rewritten(node)
    reloaded(node)
    callers.unharmed()
    node.expected += [re.escape(str(node.config_path)), "reload refused"]


# --- deaths ---------------------------------------------------------------------------------------------------------


def test_a_killed_worker_costs_its_open_requests_and_no_count(node: GatewayNode) -> None:
    seen, deaths_s, took_s = list[float](), list[tuple[float, float]](), list[float]()
    with Callers(node) as callers:
        for _ in range(3):
            victim = node.until_workers(2)[0]
            began_s = time.monotonic()
            node.kill_child(victim)
            deaths_s.append((began_s, time.monotonic()))
            node.until_workers(2, without=[victim])
            took_s.append(time.monotonic() - began_s)
            seen.append(requests_total(node))
            callers.goes_on()
    assert all(any(error.open_within(*death_s) for death_s in deaths_s) for error in callers.errors), callers.errors
    assert not [error for error in callers.errors if "refused" in error.how.lower()]
    assert min(took_s) < 2, took_s  # the best of three: the others may say more about the machine than about the node
    assert seen == sorted(seen)
    node.until(lambda: node.metrics("gateway_connections") == 0, "all that was answered to be counted")
    before = requests_total(node)
    assert callers.answered - 3 <= before <= callers.answered + len(callers.errors) + callers.resent
    assert [node.chat().status for _ in range(10)] == [200] * 10
    node.until(lambda: requests_total(node) == before + 10, "ten more, exactly")


def test_nobody_notices_that_control_has_died(node: GatewayNode, callers: Callers) -> None:
    stream = open_stream(node, tokens=30)
    before = requests_total(node)
    node.kill_child(node.control())
    node.until(lambda: requests_total(node) > before, "the metrics page")
    assert node.get("/readyz", key="").status == 200
    reloaded(node)
    assert read_out(stream).body.endswith(b"data: [DONE]\n\n")
    callers.unharmed()


# --- upgrade --------------------------------------------------------------------------------------------------------


def test_an_upgrade_in_place_is_not_noticed(node: GatewayNode, callers: Callers) -> None:
    stream = open_stream(node)
    before, counted = set(node.workers()), requests_total(node)
    supervisor = node.pid
    os.kill(node.pid, signal.SIGUSR2)
    node.until(lambda: "the new workers have taken over" in node.log(), "the new workers")
    node.until_workers(2, without=before)
    assert node.pid == supervisor
    assert read_out(stream).body.endswith(b"data: [DONE]\n\n")
    assert requests_total(node) >= counted
    node.until(lambda: not before & set(node.session()), "the old workers to leave")
    assert node.admin("/readyz").status == 200
    callers.unharmed()


def test_a_config_that_fails_its_check_stops_an_upgrade(node: GatewayNode, callers: Callers) -> None:
    before = set(node.workers())
    rewritten(node, drain_s="soon")
    os.kill(node.pid, signal.SIGUSR2)
    node.expected.append("upgrade given up")
    node.until(lambda: "upgrade given up" in node.log(), "the refusal")
    assert set(node.workers()) == before
    callers.unharmed()


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_drain_serves_until_its_delay_is_over_and_streams_to_their_end() -> None:
    delay_s = 4.0
    with running({**CONFIG, "drain_delay_s": delay_s}, workers=2) as node:
        stream = open_stream(node)
        assert [node.get(path, key="").status for path in ("/healthz", "/readyz")] == [200, 200]
        assert [node.admin(path).status for path in ("/healthz", "/readyz")] == [200, 200]
        with Callers(node) as callers:
            told = time.monotonic()
            node.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr] # it runs
            until(lambda: node.get("/readyz", key="").status == 503, "readyz to fail")
            assert node.get("/healthz", key="").status == 200
            assert node.admin("/readyz").status == 503
            until(lambda: node.chat().header("connection") == "close", "callers to be sent away")
            callers.stop()
        assert callers.errors == []
        with node.sim.standing_still():  # so that the stream does not end before
            until(lambda: not accepts(node), "accepting to end")
        assert time.monotonic() - told >= delay_s
        assert read_out(stream).body.endswith(b"data: [DONE]\n\n")


def accepts(node: GatewayNode) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", node.port)):
        return True
    return False


def test_callers_are_answered_or_refused_but_never_cut(node: GatewayNode) -> None:
    """Past the moment accepting ends: who was accepted is answered, who was not is refused."""
    with Callers(node) as callers:
        assert node.stop() == 0
        until(lambda: callers.errors, "a caller to be refused")
    assert [error for error in callers.errors if "refused" not in error.how.lower()] == []


def test_all_of_it_in_a_row() -> None:
    with running({**CONFIG, "drain_delay_s": 20.0}, workers=2) as node, Callers(node) as callers:
        reloaded(node)
        node.kill_child(node.control())
        for upgrades in (1, 2):
            before = set(node.workers())
            os.kill(node.pid, signal.SIGUSR2)
            taken = "the new workers have taken over"
            node.until(lambda: node.log().count(taken) == upgrades, "the new workers")  # noqa: B023 - awaited here
            node.until(lambda: not before & set(node.session()), "the old ones to leave")  # noqa: B023
            reloaded(node)
        keys = [{"id": "demo", "secret": KEY}, {"id": "other", "secret": DISABLED_KEY}]
        rewritten(node, keys=keys)
        reloaded(node)
        callers.goes_on(300)
        node.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr] # it runs
        until(lambda: node.get("/readyz", key="").status == 503, "readyz to fail")
        callers.unharmed()
        callers.stop()
        assert callers.errors == []


def test_start_to_ready() -> None:
    """The time in which its processes wanted to run and others did says something about the machine alone."""
    took_s = []
    for _ in range(3):
        started = time.monotonic()
        with running(CONFIG, workers=2) as node:
            took_s.append(time.monotonic() - started - sum(map(queued_s, [node.sim.pid, *node.session()])))
            assert node.chat().status == 200
    assert min(took_s) < 5, took_s  # of which the simulated provider takes a part


def queued_s(pid: int) -> float:
    """How long a process has waited for a core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / NS_PER_S
