"""The store as a real cluster: found from any node, followed when its slot moves, and when its node dies."""

import asyncio
import time

import pytest

from gateway.limiter.engine import Outcome, Reason, Unavailable
from tests.fakes.store_fleet import ask, cluster
from tests.fakes.store_scene import CAPACITY, IN_FLIGHT, TPM, USED, in_loop, level_of, load, settle, until, up

pytestmark = pytest.mark.slow

KEY = "{gw:main}:1:r:tpm"
BACK_WITHIN_S = 30.0  # the nodes take 1.5 s to miss one and some to agree; the rest is this machine's


def test_any_node_leads_to_the_one_that_has_the_domain() -> None:
    async def entered() -> None:
        for entry in scene.nodes:
            store = await up(entry.url)
            assert (await store.reserve("h", [TPM, IN_FLIGHT], owner=0, lease_ms=9_000)).outcome is Outcome.ADMITTED
            assert store.counts.dials == (1 if entry is scene.home else 2)
            await store.close()
        assert ask(scene.home, "EXISTS", KEY) == 1

    with cluster(KEY) as scene:
        in_loop(entered)


def test_a_slot_that_moves_in_the_middle_loses_and_doubles_nothing() -> None:
    async def moved() -> None:
        store = await up(scene.url, deadline_s=0.25)
        to = scene.away[0]
        before = await load(store, "before", clients=10, each=20)
        under_way = asyncio.ensure_future(load(store, "during", clients=10, each=300))
        await asyncio.sleep(0.02)
        assert not under_way.done()
        scene.begin_move(to)
        while scene.move_some(to, 20):  # noqa: ASYNC110  # nobody could set an event
            await asyncio.sleep(0.005)  # the load goes on between these
        with pytest.raises(Unavailable) as failed:
            await store.reserve("new", [TPM], owner=0, lease_ms=60_000)
        assert failed.value.reason in {Reason.REFUSED, Reason.DOWN}  # neither node does it
        assert not under_way.done()
        scene.end_move(to)
        during = await under_way
        assert await level_of(store) == CAPACITY - (len(before) + len(during)) * USED
        assert await level_of(store, IN_FLIGHT) == 100_000
        assert ask(to, "EXISTS", KEY) == 1
        for hold in [*before, *during]:
            await settle(store, hold)  # their marks have moved as well
        assert await level_of(store) == CAPACITY - (len(before) + len(during)) * USED
        await store.close()

    with cluster(KEY) as scene:
        in_loop(moved)


def test_a_node_that_dies_is_replaced_by_its_replica() -> None:
    async def killed() -> None:
        store = await up(scene.url, deadline_s=0.25)
        before = await load(store, "before", clients=10, each=20)
        under_way = asyncio.ensure_future(load(store, "during", clients=10, each=300))
        await asyncio.sleep(0.05)
        assert not under_way.done()
        scene.home.kill()
        began = time.monotonic()
        await until(lambda: not store.there)
        await until(lambda: store.there)
        assert time.monotonic() - began < BACK_WITHIN_S
        during = await under_way
        for hold in [*before, *during]:
            await settle(store, hold)  # as control does: what the replica had not got yet
        assert ask(scene.replica, "EXISTS", KEY) == 1
        assert await level_of(store) == CAPACITY - (len(before) + len(during)) * USED
        await store.close()

    with cluster(KEY) as scene:
        in_loop(killed)
