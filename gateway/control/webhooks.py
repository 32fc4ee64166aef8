"""Webhooks: events to the URLs of the config, signed, until somebody has taken them.

    POST <url>
    webhook-id: <id>                    the same at every try: whoever must do something once goes by it
    webhook-timestamp: <seconds>        of this try
    webhook-signature: v1,<base64>      HMAC-SHA256(secret, "<id>.<seconds>.<body>")

as the Standard Webhooks specification has it, so that its libraries verify it. Any 2xx takes an event. Everything else
is tried again, after a pause that doubles from FIRST_WAIT_S to LONGEST_WAIT_S, less up to half of it by chance; an
event is given up after MAX_TRIES or MAX_AGE_US, loudly. Events of one destination do not wait for each other's pauses.

Only public addresses are talked to, unless the destination says `allow_private` (`public_address.py`); no redirect is
followed, no proxy used, no cookie kept, a connection is used once, and of the answer only its status is read.

Invariants: an event that was added is on the disk (`webhook_queue.py`) until it is taken or given up; one destination
holds up no other. Left out: what is worth an event.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import msgspec
from yarl import URL

from gateway import __version__
from gateway.control.public_address import PublicResolver, check_host
from gateway.control.webhook_queue import Pending, Queue
from gateway.tasks import spawn
from gateway.units import NS_PER_US, US_PER_S

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 1_800.0
MAX_TRIES: Final = 60
MAX_AGE_US: Final = 24 * 3600 * US_PER_S
CONNECT_S: Final = 5.0
DISK_WAIT_S: Final = 1.0
_SECRET_MARK: Final = "whsec_"  # noqa: S105 - what secrets begin with that are written in base64
_OK: Final = range(200, 300)
_log: Final = logging.getLogger("gateway.webhooks")


class Destination(NamedTuple):
    """Where events go. `types`: which, none is all."""

    name: str
    url: str
    secret: str
    types: tuple[str, ...] = ()
    allow_private: bool = False
    timeout_s: float = 10.0

    def __repr__(self) -> str:
        return f"Destination({self.name!r})"  # URL and secret are nobody's business

    def wants(self, kind: str) -> bool:
        """Whether it hears events of this type."""
        return not self.types or kind in self.types


class NotTaken(Exception):
    """The destination did not take an event; the message says why."""


def check(destination: Destination) -> None:
    """Raise ValueError, saying what to change, for a destination that events cannot go to."""
    try:
        url = URL(destination.url)
        host = url.host
    except ValueError as error:
        raise ValueError(f"webhook {destination.name}: its url is none: {error}") from error
    if url.scheme not in ("https", "http") or not host:
        raise ValueError(f"webhook {destination.name}: its url must begin with https:// and name a host")
    if url.scheme == "http" and not destination.allow_private:
        raise ValueError(f"webhook {destination.name}: http is for private networks; use https, or `allow_private`")
    if url.user is not None or url.password is not None:
        raise ValueError(f"webhook {destination.name}: no user name or password in its url; events are signed")
    if not destination.allow_private:
        try:
            check_host(host)
        except OSError as error:
            raise ValueError(f"webhook {destination.name}: {error}; `allow_private` permits it") from error
    if not key_of(destination.secret):
        raise ValueError(f"webhook {destination.name}: its secret is empty")


def key_of(secret: str) -> bytes:
    """The key that a secret stands for. Raises ValueError."""
    if not secret.startswith(_SECRET_MARK):
        return secret.encode()
    return base64.b64decode(secret.removeprefix(_SECRET_MARK), validate=True)


def signed_headers(key: bytes, event_id: str, body: bytes, now_s: int) -> dict[str, str]:
    """The headers that prove who sent this body, and when."""
    mac = hmac.new(key, b"%b.%d.%b" % (event_id.encode(), now_s, body), hashlib.sha256)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(mac.digest()).decode()}",
    }


class Webhooks:
    """All destinations of a node. `adopt` says which, and may say so again."""

    def __init__(self, state_dir: Path, clock_us: Callable[[], int] | None = None) -> None:
        self.senders: dict[str, Sender] = {}
        self._state_dir = state_dir
        self._clock_us = clock_us or (lambda: time.time_ns() // NS_PER_US)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._before = Counter[tuple[str, str]]()  # of senders that were replaced

    @property
    def results(self) -> Mapping[tuple[str, str], int]:
        """What came of events so far, by destination and result: sent, failed (tries), given_up."""
        total = self._before.copy()
        for sender in self.senders.values():
            total.update(sender.results)
        return total

    async def adopt(self, destinations: Sequence[Destination]) -> None:
        """Send to these from now on. What waits for one that is gone stays in its file. Raises OSError, ValueError."""
        wanted = {destination.name: destination for destination in destinations}
        for destination in destinations:
            check(destination)
        for name in [name for name, sender in self.senders.items() if wanted.get(name) != sender.destination]:
            await self._stop(name)
        for name in wanted.keys() - self.senders.keys():
            queue = await asyncio.to_thread(Queue, self._state_dir, name)
            sender = self.senders[name] = Sender(wanted[name], queue, self._clock_us)
            self._tasks[name] = spawn(sender.run(), name=f"webhook {name}")

    async def tell(self, kind: str, event_id: str, data: object) -> None:
        """Have an event sent to whom it concerns. Raises OSError unless it is on the disk for all of them."""
        now_us = self._clock_us()
        body = msgspec.json.encode({"id": event_id, "type": kind, "at_us": now_us, "data": data}).decode()
        for sender in self.senders.values():
            if sender.destination.wants(kind):
                await sender.add(Pending(event_id, now_us, body))

    async def close(self) -> None:
        """Stop sending; what waits stays in the files."""
        for name in list(self.senders):
            await self._stop(name)

    async def _stop(self, name: str) -> None:
        sender = self.senders.pop(name)
        task = self._tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await sender.close()
        self._before.update(sender.results)


class Sender:
    """One destination, and what waits for it."""

    def __init__(self, destination: Destination, queue: Queue, clock_us: Callable[[], int]) -> None:
        self.destination = destination
        self.queue = queue
        self.sent = 0
        self.failures = 0
        self.given_up = 0
        self.failing = ""  # why the last try failed; "" after one that did not
        self._clock_us = clock_us
        self._key = key_of(destination.secret)
        self._writing = asyncio.Lock()
        self._change: asyncio.Future[None] | None = None  # of the queue, under way in a thread
        self._woken = asyncio.Event()

    @property
    def results(self) -> dict[tuple[str, str], int]:
        """What came of its events since it was made, by its name and result."""
        name = self.destination.name
        given_up = self.given_up + self.queue.dropped
        return {(name, "sent"): self.sent, (name, "failed"): self.failures, (name, "given_up"): given_up}

    async def add(self, event: Pending) -> None:
        """Have an event sent. Raises OSError, ValueError."""
        await self._changed(self.queue.add, event)
        self._woken.set()

    async def close(self) -> None:
        """Return when nobody writes the queue's file any more; `run` has ended."""
        if self._change is not None:
            await asyncio.gather(self._change, return_exceptions=True)

    async def run(self) -> None:
        """Send until cancelled."""
        async with _session(self.destination) as session:
            while True:
                self._woken.clear()
                async with self._writing:
                    event = self.queue.next_due()
                wait_s = None if event is None else self._wait_s(event)
                if event is None or wait_s:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), wait_s)
                else:
                    await self._try(session, event)

    def _wait_s(self, event: Pending) -> float:
        """How long until an event is due; a clock that was set back makes none wait longer."""
        wait_s = (event.due_us - self._clock_us()) / US_PER_S
        return wait_s if 0 < wait_s <= LONGEST_WAIT_S else 0.0

    async def _try(self, session: aiohttp.ClientSession, event: Pending) -> None:
        try:
            await self._post(session, event)
        except NotTaken as error:
            await self._failed(event, str(error))
            return
        if self.failing:
            _log.warning("webhook %s takes events again", self.destination.name)
        self.failing = ""
        await self._kept(self.queue.done, event)
        self.sent += 1

    async def _post(self, session: aiohttp.ClientSession, event: Pending) -> None:
        body = event.body.encode()
        headers = signed_headers(self._key, event.id, body, self._clock_us() // US_PER_S)
        try:
            async with session.post(self.destination.url, data=body, headers=headers, allow_redirects=False) as answer:
                status = answer.status
                answer.close()
        except TimeoutError:
            raise NotTaken(f"no answer within {self.destination.timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise NotTaken(f"it cannot be reached: {error.os_error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotTaken(str(error) or type(error).__name__) from error
        if status not in _OK:
            raise NotTaken(f"it answered {status}")

    async def _failed(self, event: Pending, why: str) -> None:
        self.failures += 1
        if why != self.failing:
            _log.warning("webhook %s did not take an event, which is tried again: %s", self.destination.name, why)
        self.failing = why
        now_us, tries = self._clock_us(), event.tries + 1
        if tries >= MAX_TRIES or now_us - event.at_us >= MAX_AGE_US:
            _log.error(
                "webhook %s: event %s is given up after %d tries: %s", self.destination.name, event.id, tries, why
            )
            await self._kept(self.queue.done, event)
            self.given_up += 1
            return
        due_us = now_us + round(pause_s(tries) * US_PER_S)
        await self._kept(self.queue.retry, msgspec.structs.replace(event, tries=tries, due_us=due_us))

    async def _kept(self, change: Callable[[Pending], None], event: Pending) -> None:
        """Change the queue; a disk that cannot be written costs a repetition after a crash, no more."""
        try:
            await self._changed(change, event)
        except OSError as error:
            _log.error("webhook %s: its queue cannot be written: %s", self.destination.name, error)
            await asyncio.sleep(DISK_WAIT_S)

    async def _changed(self, change: Callable[[Pending], None], event: Pending) -> None:
        async with self._writing:
            self._change = asyncio.ensure_future(asyncio.to_thread(change, event))
            await asyncio.shield(self._change)


def pause_s(tries: int, chance: Callable[[], float] = random.random) -> float:
    """How long to wait after so many tries."""
    longest = min(FIRST_WAIT_S * 2.0 ** (tries - 1), LONGEST_WAIT_S)
    return longest * (1 - chance() / 2)


def _session(destination: Destination) -> aiohttp.ClientSession:
    resolver = None if destination.allow_private else PublicResolver()
    headers: Mapping[str, str] = {"content-type": "application/json", "user-agent": f"sluice/{__version__}"}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True, limit=1),
        timeout=aiohttp.ClientTimeout(total=destination.timeout_s, connect=min(CONNECT_S, destination.timeout_s)),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        auto_decompress=False,
        trust_env=False,
    )
