"""The engine of a fleet: the scripts of `lua/` in a store that many nodes share, asked over one connection a worker.

Models a store that is there or is not. While its breaker is CLOSED, every call goes to the wire; else it fails at once,
and a task of ours brings the store back: it rests, dials, logs in, loads the scripts, and has a LEASE of nothing
answered in time, which reads, writes and asks the clock as every call does. A second of silence is broken by a PING, so
that a connection that died unnoticed is missed before a caller misses it.

- NOSCRIPT (the store restarted, or its scripts were flushed) is answered by loading the script and sending the call
  again, in order, once. MOVED is followed to the node it names; READONLY, LOADING and the like mean that another dial
  may find the right node. ASK and TRYAGAIN, while a cluster moves the domain's slot, are errors like others: a call
  with a new key, as each RESERVE has one, is done by neither node until the slot has moved.
- No call is repeated after a lost connection or a deadline: whether to repeat is the caller's, for whom it is harmless.

Invariants: at most one wire carries calls; a future that was returned is always ended; at most MAX_DUE calls wait.
Left out: what to do without the store (each limit's own mode), settlements that did not arrive (the journal has them),
and telling anyone: `on_change` hears when the store goes and when it is back, and counters are plain integers.
"""

import asyncio
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from gateway.limiter import scripts
from gateway.limiter.address import StoreAddress, tls_context
from gateway.limiter.breaker import MAX_REST_S, Breaker, BreakerEvent
from gateway.limiter.engine import Amount, Epoch, Reason, Renewal, Reserved, Settled, Slice, Standing, Unavailable
from gateway.limiter.epochs import Epochs
from gateway.limiter.hold import State
from gateway.limiter.resp import ReplyError, command
from gateway.limiter.scripts import Calls, Script, load_scripts
from gateway.limiter.spec import Kind, Spec, rate
from gateway.limiter.whereabouts import Whereabouts
from gateway.limiter.wire import MAX_DUE, Call, Wire, fail
from gateway.tasks import spawn

Answer = TypeVar("Answer")

DEADLINE_S: Final = 0.005
CONNECT_S: Final = 2.0  # for all of it: the name, TCP, TLS, the password, the scripts
SILENCE_S: Final = 1.0
SPREAD_REST_S: Final = (
    1.0  # at most, where there are several places to look: it is no burden to the one that comes back
)

_TIME: Final = re.compile(rb"[0-9]{1,16}")
_PROBED: Final = rate(1, 1, 1_000)
_PING: Final = command(b"PING")
_ELSEWHERE: Final = frozenset(
    {"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "NOAUTH", "UNBLOCKED", "MOVED"}
)
_NODES_CLOCK: Final = "window_ahead"  # as lua/bucket.lua says it: this node is wrong, not the store


class StoreCounts(msgspec.Struct):
    """What happened so far; telemetry reads it at scrape time."""

    answered: int = 0
    late: int = 0
    refused: int = 0  # answered with an error
    unasked: int = 0  # failed at once: the breaker was open, or too many waited
    reloads: int = 0  # scripts loaded again
    dials: int = 0
    lost: int = 0  # connections


class Store:
    """The Engine that a store is; make it on the loop that uses it, then `start`.

    `on_change(there, why)` is called when the store goes (why it did) and when it is back. Raises ValueError, naming
    the file, when the TLS files of the address cannot be used.
    """

    def __init__(
        self,
        address: StoreAddress,
        *,
        domain: str = "main",
        node: str = "",
        deadline_s: float = DEADLINE_S,
        max_rest_s: float = MAX_REST_S,
        keep_ms: int = scripts.KEEP_MS,
        on_change: Callable[[bool, str], None] = lambda _there, _why: None,
    ) -> None:
        self.counts = StoreCounts()
        is_spread = address.service or address.others
        self.breaker = Breaker(max_rest_s=min(max_rest_s, SPREAD_REST_S) if is_spread else max_rest_s)
        self.trouble = ""  # why the store is not there, or the last error it answered with
        self._tls = tls_context(address)
        self._whereabouts = Whereabouts(address, self._tls)
        self._scripts = load_scripts()
        self._calls = Calls(self._scripts, domain, keep_ms=keep_ms)
        self._by_sha = {script.sha: script for script in self._scripts.values()}
        self._loading: set[bytes] = set()
        self._node = node
        self._epochs = Epochs()
        self._deadline_s = deadline_s
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None  # the connection, also while it is only probed
        self._carrying: Wire | None = None  # the connection, while the breaker is CLOSED
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._striking = False
        self._struck_s = 0.0
        self._last_answer_s = 0.0

    @property
    def there(self) -> bool:
        """Whether calls go to the store."""
        return self._carrying is not None

    def start(self) -> None:
        """Begin to keep the connection."""
        self._keeper = spawn(self._keep(), name="limit store")

    # --- Engine -----------------------------------------------------------------------------------------------------

    def reserve(
        self,
        hold: str,
        takes: Sequence[Amount],
        *,
        owner: int,  # noqa: ARG002  # a store cannot see processes: it frees slots by their lease
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> asyncio.Future[Reserved]:
        """Charge all takes or none."""
        call = self._calls.reserve(hold, takes, lease_ms=lease_ms, attempt=attempt, releases=releases)
        return self._ask(call, scripts.reserved)

    def settle(self, hold: str, actuals: Sequence[Amount]) -> asyncio.Future[Settled]:
        """Apply what was really used, once."""
        return self._ask(self._calls.settle(hold, actuals), scripts.settled)

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> asyncio.Future[tuple[State, ...]]:
        """Prolong the leases of 1 to MAX_RENEWALS holds."""
        return self._ask(self._calls.renew(holds, lease_ms=lease_ms), scripts.renewed)

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> asyncio.Future[Slice]:
        """Exchange a node's slice for a new one."""
        call = self._calls.lease(node, turn, bucket, spec, want=want, least=least, unused=unused, lease_ms=lease_ms)
        return self._ask(call, scripts.leased)

    def peek(self, asked: Sequence[Amount]) -> asyncio.Future[tuple[Standing, ...]]:
        """How buckets stand, and when so much would fit."""
        return self._ask(self._calls.peek(asked), scripts.peeked)

    def forget(self, buckets: Sequence[tuple[Kind, str]]) -> asyncio.Future[int]:
        """Forget what is used of these (at least one); how many there were. Raises Unavailable when awaited."""
        return self._ask(self._calls.forget(buckets), _as_it_is)

    async def epoch(self, known: str = "", known_us: int = 0) -> Epoch:
        """The name of the store's memory, which is given to it here if it has none. Raises Unavailable.

        `known` is the memory that has everything which this node settled up to `known_us` (wall clock), if there is
        one. That is left there under the name of the node, unless it is another memory or behind; a node without a name
        leaves nothing, and is never told that the memory is behind.
        """
        known = known if self._node else ""
        named = self._ask(self._calls.name_epoch(self._epochs.offer()), _as_it_is)
        name, remembered = await self._ask(self._calls.ask_epoch(self._node), _as_it_is)
        if name is None:
            await named  # it may say why there is no name
            raise Unavailable(Reason.LOST, "the store lost its data while it was asked for its epoch")
        remembered_us = int(remembered) if remembered is not None and _TIME.fullmatch(remembered) else 0
        epoch = self._epochs.judge(name.decode(errors="replace"), remembered_us, known, known_us)
        if epoch.id == known and not epoch.behind:
            await self._ask(self._calls.leave_known(self._node, known_us), _as_it_is)
            self._epochs.left(known_us)
        return epoch

    async def close(self) -> None:
        """Let the calls that are under way be answered, within their deadline, and cut the connection."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._carrying is not None:
            await asyncio.wait({self._send(self._carrying, _PING)})
        self._carrying = None
        if self._wire is not None:
            wire = self._wire
            wire.close()
            await wire.gone.wait()

    def _ask(self, data: bytes, decode: Callable[[bytes], Answer]) -> asyncio.Future[Answer]:
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        wire = self._carrying
        if wire is None or wire.due >= MAX_DUE:
            self.counts.unasked += 1
            fail(waiter, Unavailable(Reason.DOWN, self.trouble) if wire is None else Unavailable(Reason.BUSY))
            return waiter
        wire.send((waiter, decode, data, False))
        return waiter

    # --- what the wire tells ----------------------------------------------------------------------------------------

    def on_answers(self, calls: int) -> None:
        """The store does its work."""
        self.counts.answered += calls
        self._last_answer_s = self._loop.time()
        self.breaker.answered()

    def on_late(self, calls: int) -> None:
        """A turn of calls was not answered in time."""
        self.counts.late += calls
        self._strike(f"no answer within {self._deadline_s * 1000:g} ms")

    def on_refused(self, wire: Wire, call: Call, error: ReplyError) -> None:
        """A call was answered with an error: load the script, follow the store, or pass the error on."""
        waiter, decode, data, again = call
        script = self._by_sha.get(_named_script(data))
        if error.code == "NOSCRIPT" and script is not None and not again:
            self._reload(wire, script)
            wire.send((waiter, decode, data, True))
            return
        fail(waiter, Unavailable(Reason.REFUSED, str(error)))
        self.counts.refused += 1
        self.trouble = str(error)
        if error.code == "MOVED" and wire is self._wire:
            self._whereabouts.moved(str(error))
        if error.code in _ELSEWHERE:
            wire.close(str(error))
        elif _NODES_CLOCK not in str(error) and not self._striking:
            self._striking = True
            self._loop.call_soon(self._strike_once, str(error))

    def on_lost(self, wire: Wire, why: str) -> None:
        """The connection is gone."""
        if wire is not self._wire:
            return
        self._wire = None
        self._loading.clear()
        self.counts.lost += 1
        self._gone(BreakerEvent.LOST, f"connection lost: {why}")

    def _reload(self, wire: Wire, script: Script) -> None:
        """Load a script, unless that is under way: what is sent after it finds it there."""
        if script.sha in self._loading:
            return
        self._loading.add(script.sha)
        self.counts.reloads += 1
        loaded = self._send(wire, script.load)
        loaded.add_done_callback(lambda _: self._loading.discard(script.sha))

    def _strike_once(self, why: str) -> None:
        """All calls of a turn that were refused are one strike."""
        self._striking = False
        self._struck_s = 0.0
        self._strike(why)

    def _strike(self, why: str) -> None:
        """Count a strike, at most one in the time an answer has: a hiccup is one, however many turns it holds up."""
        now_s = time.monotonic()
        if now_s - self._struck_s < self._deadline_s:
            return
        self._struck_s = now_s
        if self.breaker.strike():
            self._stop_carrying(why)

    def _gone(self, event: BreakerEvent, why: str) -> None:
        was_closed = self.breaker.closed
        self.breaker.on(event)
        if was_closed:
            self._stop_carrying(why)

    def _stop_carrying(self, why: str) -> None:
        self._carrying = None
        self.trouble = why
        self._changed.set()
        self._on_change(False, why)  # noqa: FBT003  # named where it is declared

    # --- bringing the store back ------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            if self.breaker.closed:
                await self._watch()
            else:
                await self._bring_back()

    async def _watch(self) -> None:
        """Wait until the breaker opens; break a long silence with a PING, and see whether the primary is another."""
        self._changed.clear()
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._changed.wait()
        except TimeoutError:
            if self._carrying is not None and self._loop.time() - self._last_answer_s >= SILENCE_S:
                self._send(self._carrying, _PING)
            if await self._whereabouts.replaced() and self._carrying is not None:
                self._carrying.close("the sentinels name another primary")

    async def _bring_back(self) -> None:
        await asyncio.sleep(self.breaker.rest_s(random.random()))  # noqa: S311  # only spreads a fleet in time
        self.breaker.on(BreakerEvent.RESTED)
        wire = await self._found()
        if wire is None and self._whereabouts.sent_elsewhere:
            if self._wire is not None:
                await self._wire.gone.wait()  # the node that sent us away
            wire = await self._found()
        if wire is None:
            self.breaker.on(BreakerEvent.FAILED)
            return
        self.breaker.on(BreakerEvent.PROBED)
        self._carrying = wire
        self.trouble = ""
        self._on_change(True, "")  # noqa: FBT003

    async def _found(self) -> Wire | None:
        """A connection to a store that does its work, None if there is none: `trouble` says why."""
        try:
            wire = self._wire or await self._dial(await self._whereabouts.following())
            await self._probe(wire)
        except (OSError, TimeoutError, Unavailable) as error:
            self.trouble = f"{self._whereabouts.at}: {str(error) or f'no connection within {CONNECT_S:g} s'}"
            self._whereabouts.failed()
            return None
        return wire

    async def _dial(self, address: StoreAddress) -> Wire:
        """Connect, log in, load the scripts. Raises OSError, TimeoutError or Unavailable."""
        self.counts.dials += 1
        async with asyncio.timeout(CONNECT_S):
            _, wire = await self._loop.create_connection(
                lambda: Wire(self, deadline_s=CONNECT_S),
                address.host,
                address.port,
                ssl=self._tls,
                server_hostname=address.host if self._tls else None,
            )
            self._wire = wire
            try:
                for greeting in self._greetings(address):
                    await self._send(wire, greeting)
            except BaseException:
                wire.close("the greeting failed")
                raise
        wire.hurry(self._deadline_s)
        return wire

    def _greetings(self, address: StoreAddress) -> list[bytes]:
        account = (address.user.encode(),) if address.user else ()
        greetings = [command(b"AUTH", *account, address.password.encode())] if address.password else []
        if address.db:
            greetings.append(command(b"SELECT", b"%d" % address.db))
        return greetings + [script.load for script in self._scripts.values()]

    async def _probe(self, wire: Wire) -> None:
        """Have a LEASE of nothing answered in time. Raises Unavailable."""
        turn = int(time.time() * 1000)
        call = self._calls.lease(
            f"probe-{self._node}", turn, "probe", _PROBED, want=0, least=0, unused=0, lease_ms=1_000
        )
        await self._send(wire, call)

    def _send(self, wire: Wire, data: bytes) -> asyncio.Future[Any]:
        """Send a call of our own."""
        waiter: asyncio.Future[Any] = self._loop.create_future()
        if wire.open:
            wire.send((waiter, _as_it_is, data, False))
        else:
            fail(waiter, Unavailable(Reason.LOST, self.trouble))
        return waiter


def _named_script(call: bytes) -> bytes:
    """The digest in the bytes of an EVALSHA; nothing of any other call."""
    words = call.split(b"\r\n", 5)
    return words[4] if words[2] == b"EVALSHA" else b""


def _as_it_is(reply: Any) -> Any:  # noqa: ANN401  # what a store answers to commands of its own
    return reply
