"""What tests do with the limiter's engine on real stores: bring it up, wait, insist, and count at the end.

A *load* is clients that reserve and settle, each insisting until it is answered. However a store fails meanwhile, what
is left of the bucket must then be exactly what the settlements come to.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import uvloop

from gateway.limiter.address import parse
from gateway.limiter.engine import Amount, Unavailable
from gateway.limiter.spec import rate, slots
from gateway.limiter.store import Store

WITHIN_S = 60.0
PATIENT_S = 10.0

CAPACITY = 1_000_000
STANDING = rate(CAPACITY, 1, 86_400_000)  # refills a unit a day: what is left is what was not charged
TPM = Amount("tpm", STANDING, 1_000)
IN_FLIGHT = Amount("in flight", slots(100_000), 1)
USED = 11

Changed = Callable[[bool, str], None]
NO_FILES: Final[Mapping[str, str]] = MappingProxyType({})

_made: list[Store] = []


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test on uvloop, bounded in time; what it made is closed, however it ends."""

    async def whole() -> None:
        try:
            await asyncio.wait_for(test(), WITHIN_S)
        finally:
            while _made:
                await _made.pop().close()

    uvloop.run(whole())


def make(
    url: str,
    *,
    deadline_s: float,
    domain: str = "main",
    files: Mapping[str, str] = NO_FILES,
    on_change: Changed = lambda _there, _why: None,
) -> Store:
    """A store that is being brought up, closed at the end of the test."""
    store = Store(parse(url, **files), domain=domain, node="n1", deadline_s=deadline_s, on_change=on_change)
    _made.append(store)
    store.start()
    return store


async def up(
    url: str, *, deadline_s: float = PATIENT_S, domain: str = "main", files: Mapping[str, str] = NO_FILES
) -> Store:
    """A store that is there."""
    store = make(url, deadline_s=deadline_s, domain=domain, files=files)
    await until(lambda: store.there)
    return store


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # a store is watched from outside
        await asyncio.sleep(0.002)


async def insist(ask: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401
    """Repeat an operation until the store has answered it, as a replay would."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(0.005)


async def level_of(store: Store, what: Amount = TPM) -> int:
    (standing,) = await insist(lambda: store.peek([what]))
    level: int = standing.level
    return level


async def settle(store: Store, hold: str) -> None:
    await insist(partial(store.settle, hold, [Amount("tpm", STANDING, USED), IN_FLIGHT]))


async def load(store: Store, name: str, *, clients: int, each: int) -> list[str]:
    """Reserve and settle; returns the holds."""

    async def client(number: int) -> list[str]:
        holds = [f"{name}-{number}-{index}" for index in range(each)]
        for hold in holds:
            await insist(partial(store.reserve, hold, [TPM, IN_FLIGHT], owner=0, lease_ms=60_000))
            await settle(store, hold)
        return holds

    done = await asyncio.gather(*(client(number) for number in range(clients)))
    return [hold for holds in done for hold in holds]
