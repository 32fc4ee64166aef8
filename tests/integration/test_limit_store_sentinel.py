"""A primary that is killed, replaced and cut off, behind three sentinels: found again, and no settlement is lost."""

import asyncio
import time
from pathlib import Path

import pytest

from gateway.limiter.engine import Outcome
from tests.fakes.store_fleet import ask, guarded
from tests.fakes.store_scene import CAPACITY, IN_FLIGHT, TPM, USED, in_loop, level_of, load, make, settle, until, up

pytestmark = pytest.mark.slow

LEFT_WITHIN_S = 6.0  # it is looked at once a second
BACK_WITHIN_S = 30.0  # the sentinels take a second to miss it and some to agree; the rest is this machine's


def test_a_primary_that_is_killed_is_replaced_and_nothing_settled_is_lost(tmp_path: Path) -> None:
    async def killed() -> None:
        store = await up(scene.url, deadline_s=0.25)
        before = await load(store, "before", clients=10, each=20)
        under_way = asyncio.ensure_future(load(store, "during", clients=10, each=300))
        await asyncio.sleep(0.05)
        assert not under_way.done()
        scene.one.kill()
        scene.sentinels[0].kill()  # as if both had been on one host
        began = time.monotonic()
        await until(lambda: not store.there)
        await until(lambda: store.there)
        assert time.monotonic() - began < BACK_WITHIN_S
        during = await under_way
        # What the replica had not got yet is settled again, as control does with all that is younger than its last
        # look: whatever was lost, and however often it is said, it then counts once.
        for hold in [*before, *during]:
            await settle(store, hold)
        assert scene.primary is scene.two
        assert await level_of(store) == CAPACITY - (len(before) + len(during)) * USED
        assert await level_of(store, IN_FLIGHT) == 100_000
        await store.close()

    with guarded(tmp_path) as scene:
        in_loop(killed)


def test_a_failover_that_was_asked_for_is_followed(tmp_path: Path) -> None:
    async def switched() -> None:
        store = await up(scene.url)
        epoch = await store.epoch()
        await store.reserve("h", [TPM, IN_FLIGHT], owner=0, lease_ms=60_000)
        ask(scene.sentinels[1], "SENTINEL", "FAILOVER", "main")
        await until(lambda: scene.primary is scene.two)
        began = time.monotonic()
        await until(lambda: store.counts.dials > 1 and store.there)
        # Long before the old one is told that it is none any more, which takes sentinels 8 s and more.
        assert time.monotonic() - began < LEFT_WITHIN_S
        assert (await store.reserve("g", [TPM], owner=0, lease_ms=60_000)).outcome is Outcome.ADMITTED
        assert b"role:master" in bytes(ask(scene.two, "INFO", "replication"))  # type: ignore[call-overload]
        assert await store.epoch() == epoch  # nothing was forgotten, so nothing is given back
        assert await level_of(store) == CAPACITY - 2_000
        await store.close()

    with guarded(tmp_path, down_after_ms=10_000) as scene:
        in_loop(switched)


def test_sentinels_that_are_away_keep_nobody_from_a_store_that_is_there(tmp_path: Path) -> None:
    async def alone() -> None:
        store = await up(scene.url)
        for sentinel in scene.sentinels:
            sentinel.kill()
        assert len(await load(store, "h", clients=5, each=5)) == 25
        ask(scene.one, "CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: "no sentinel says where main is" in store.trouble)
        scene.sentinels[2].start()
        await until(lambda: store.there)
        unknown = make(scene.url.replace("/main", "/other"), deadline_s=1.0)
        await until(lambda: "it monitors nothing named other" in unknown.trouble)
        await unknown.close()
        await store.close()

    with guarded(tmp_path, down_after_ms=10_000) as scene:
        in_loop(alone)
