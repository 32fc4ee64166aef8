"""The store as an engine on a real one: killed, stopped, slow, flushed, behind TLS and passwords."""

import asyncio
import re
import select
import time
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.limiter.engine import Amount, Epoch, Outcome, Reason, Renewal, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.resp import ReplyError
from gateway.limiter.spec import Kind, rate
from gateway.limiter.store import Store
from tests.fakes.authority import Authority
from tests.fakes.patience import PATIENCE_S
from tests.fakes.store_scene import (
    CAPACITY,
    IN_FLIGHT,
    PATIENT_S,
    STANDING,
    TPM,
    USED,
    in_loop,
    insist,
    level_of,
    load,
    make,
    settle,
    until,
    up,
)
from tests.fakes.store_server import any_store, connect, running

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "limits-store.md"


async def trouble_of(url: str, said: str, **files: str) -> None:
    store = make(url, deadline_s=PATIENT_S, files=files)
    await until(lambda: bool(re.search(said, store.trouble)))
    assert not store.there
    await store.close()


# --- a store that does its work -------------------------------------------------------------------------------------


def test_a_life_of_a_hold() -> None:
    async def life() -> None:
        store = await up(url, domain="life")
        taken = await store.reserve("h", [TPM, IN_FLIGHT], owner=0, lease_ms=30_000)
        assert (taken.outcome, taken.levels) == (Outcome.ADMITTED, (999_000, 99_999))
        assert await store.renew([Renewal("h", ("in flight",)), Renewal("x")], lease_ms=500) == (
            State.OPEN, State.UNKNOWN
        )  # fmt: skip
        assert (await store.lease("n", 1, "tpm", STANDING, want=50, least=1, unused=0, lease_ms=500)).granted == 50
        done = await store.settle("h", [Amount("tpm", STANDING, 400), IN_FLIGHT])
        assert (done.found, done.levels) == (State.OPEN, (999_550, 100_000))
        assert (await store.settle("h", [TPM])).found is State.SETTLED
        await store.close()

    with any_store() as url:
        with connect(url) as connection:
            connection.ask("FLUSHALL")
        in_loop(life)


def test_two_workers_and_three_nodes_share_one_limit_to_the_unit() -> None:
    async def hammer() -> None:
        stores = [await up(url, domain="shared") for _ in range(3)]
        limit = rate(500_000, 1, 86_400_000)

        async def one(number: int) -> bool:
            take = [Amount("shared", limit, 1_000), IN_FLIGHT]
            taken = await stores[number % 3].reserve(f"h{number}", take, owner=0, lease_ms=30_000)
            return taken.outcome is Outcome.ADMITTED

        admitted = await asyncio.gather(*(one(number) for number in range(900)))
        assert sum(admitted) == 500
        for store in stores:
            await store.close()

    with any_store() as url:
        with connect(url) as connection:
            connection.ask("FLUSHALL")
        in_loop(hammer)


def test_calls_of_one_turn_share_their_packets() -> None:
    async def burst() -> None:
        store = await up(server.url)
        with server.connect() as connection:
            before = reads_of(connection.ask("INFO", "stats"))
            waiters = [store.reserve(f"h{number}", [TPM], owner=0, lease_ms=30_000) for number in range(30)]
            await asyncio.gather(*waiters)
            assert reads_of(connection.ask("INFO", "stats")) - before <= 4
        await store.close()

    def reads_of(info: object) -> int:
        assert isinstance(info, bytes)
        (reads,) = re.findall(rb"total_reads_processed:(\d+)", info)
        return int(reads)

    with running() as server:
        in_loop(burst)


def test_a_store_that_lost_its_data_has_another_epoch() -> None:
    async def lost() -> None:
        store, other = await up(url, domain="epochs"), await up(url, domain="epochs")
        first = await store.epoch()
        assert first.fresh
        assert (await other.epoch(), await store.epoch()) == (Epoch(first.id), first)
        with connect(url) as connection:
            connection.ask("FLUSHALL")
        second = await other.epoch()
        assert second.fresh
        assert second.id != first.id
        assert await store.epoch() == Epoch(second.id)
        await store.close()
        await other.close()

    with any_store() as url:
        with connect(url) as connection:
            connection.ask("FLUSHALL")
        in_loop(lost)


# --- scripts that go ------------------------------------------------------------------------------------------------


def test_scripts_flushed_in_the_middle_of_pipelines_cost_nobody_anything() -> None:
    async def flushed() -> None:
        store = await up(server.url)
        done = 0

        async def client(base: int) -> None:
            nonlocal done
            for number in range(base, base + 100):
                taken = await store.reserve(f"h{number}", [TPM, IN_FLIGHT], owner=0, lease_ms=30_000)
                assert taken.outcome is Outcome.ADMITTED
                assert (await store.settle(f"h{number}", [Amount("tpm", STANDING, 7), IN_FLIGHT])).found is State.OPEN
                done += 1

        async def flusher() -> None:
            with server.connect() as connection:
                for _ in range(40):
                    connection.ask("SCRIPT", "FLUSH")
                    await asyncio.sleep(0.003)

        await asyncio.gather(flusher(), *(client(base) for base in range(0, 2_000, 100)))
        assert done == 2_000
        assert await level_of(store) == 1_000_000 - 2_000 * 7
        assert store.counts.reloads >= 2
        assert (store.counts.refused, store.counts.lost) == (0, 0)
        await store.close()

    with running() as server:
        in_loop(flushed)


# --- a store that goes ----------------------------------------------------------------------------------------------


def test_a_store_stopped_in_the_middle_loses_and_doubles_nothing() -> None:
    async def stopped() -> None:
        store = await up(server.url, deadline_s=0.05)

        async def trouble() -> None:
            for _ in range(3):
                await asyncio.sleep(0.05)
                server.pause()
                await until(lambda: not store.there)
                server.resume()
                await until(lambda: store.there)

        _, holds = await asyncio.gather(trouble(), load(store, "h", clients=20, each=60))
        assert len(holds) == 1_200
        assert await level_of(store) == CAPACITY - len(holds) * USED
        assert await level_of(store, IN_FLIGHT) == 100_000
        assert store.counts.late > 0
        assert store.breaker.trips >= 3
        await store.close()

    with running() as server:
        in_loop(stopped)


def test_calls_on_a_stopped_store_fail_within_their_deadline_and_then_at_once() -> None:
    async def stopped() -> None:
        store = await up(server.url, deadline_s=0.005)
        server.pause()
        took_s = []
        while store.there:
            began = time.monotonic()
            with pytest.raises(Unavailable) as failed:
                await store.reserve("h", [TPM], owner=0, lease_ms=30_000)
            took_s.append(time.monotonic() - began)
            assert failed.value.reason in {Reason.LATE, Reason.DOWN}
        assert min(took_s) < 0.05  # the best: the others may say more about the machine
        began = time.monotonic()
        for _ in range(1_000):
            with pytest.raises(Unavailable, match="down"):
                await store.reserve("h", [TPM], owner=0, lease_ms=30_000)
        assert time.monotonic() - began < 1
        server.resume()
        await until(lambda: store.there)
        taken = await insist(lambda: store.reserve("h", [TPM], owner=0, lease_ms=30_000))
        assert taken.outcome is Outcome.ADMITTED
        await store.close()

    with running() as server:
        in_loop(stopped)


def test_a_store_that_takes_a_break_is_one_strike() -> None:
    async def paused() -> None:
        store = await up(server.url, deadline_s=0.2)
        with server.connect() as connection:
            connection.ask("CLIENT", "PAUSE", "250", "ALL")  # it looks at its clock each 100 ms
        assert await reason_of(store.reserve("h", [TPM], owner=0, lease_ms=30_000)) is Reason.LATE
        assert store.there
        assert (await insist(lambda: store.reserve("g", [TPM], owner=0, lease_ms=30_000))).outcome is Outcome.ADMITTED
        assert store.breaker.trips == 0
        await store.close()

    async def reason_of(waiter: Awaitable[Any]) -> Reason:
        with pytest.raises(Unavailable) as failed:
            await waiter
        return failed.value.reason

    with running() as server:
        in_loop(paused)


def await_answer(store: Store) -> None:
    """Stand still until the store has answered, which a busy machine may keep from it."""
    assert store._wire is not None
    assert store._wire._transport is not None
    received = store._wire._transport.get_extra_info("socket")
    assert select.select([received.fileno()], [], [], PATIENCE_S)[0]


def test_a_loop_that_was_busy_does_not_blame_the_store() -> None:
    async def busy() -> None:
        store = await up(server.url, deadline_s=0.005)
        for number in range(5):
            waiter = store.reserve(f"h{number}", [TPM], owner=0, lease_ms=30_000)
            for _ in range(4):  # until it is sent
                await asyncio.sleep(0)
            time.sleep(0.05)  # noqa: ASYNC251  # that is the point: nothing else runs
            if not waiter.done():
                await_answer(store)
            assert (await waiter).outcome is Outcome.ADMITTED
        assert (store.counts.late, store.there) == (0, True)
        await store.close()

    with running() as server:
        in_loop(busy)


def test_a_killed_store_comes_back_empty_and_is_used_again() -> None:
    async def killed() -> None:
        heard: list[bool] = []
        store = make(server.url, deadline_s=PATIENT_S, on_change=lambda there, _: heard.append(there))
        await until(lambda: store.there)
        await store.reserve("before", [TPM], owner=0, lease_ms=30_000)
        server.kill()
        await until(lambda: not store.there)
        with pytest.raises(Unavailable) as failed:
            await store.settle("before", [TPM])
        assert failed.value.reason is Reason.DOWN
        await until(lambda: "refused" in store.trouble.lower() or "Errno 111" in store.trouble)
        server.start()
        began = time.monotonic()
        await until(lambda: store.there)
        assert time.monotonic() - began < 10
        assert heard == [True, False, True]
        assert await level_of(store) == 1_000_000
        replayed = await store.settle("before", [Amount("tpm", STANDING, 300)])
        assert (replayed.found, replayed.levels) == (State.UNKNOWN, (999_700,))
        assert (await store.settle("before", [Amount("tpm", STANDING, 300)])).found is State.SETTLED
        await store.close()

    with running() as server:
        in_loop(killed)


def test_a_store_that_comes_back_with_an_old_snapshot_says_how_old() -> None:
    async def snapshot() -> None:
        store = await up(server.url)
        name = (await store.epoch()).id
        await store.epoch(name, 1_000)
        await settle(store, "in the snapshot")
        assert (await store.epoch(name, 2_000)).known_us == 1_000
        with server.connect() as connection:
            connection.ask("SAVE")
        await settle(store, "lost")
        assert (await store.epoch(name, 3_000)).known_us == 2_000
        server.kill()
        await until(lambda: not store.there)
        server.start()
        await until(lambda: store.there)
        assert await level_of(store) == CAPACITY - USED
        back = await store.epoch(name, 3_500)
        assert (back.id, back.known_us, back.behind) == (name, 2_000, True)
        for hold in ("in the snapshot", "lost"):  # what was settled since then, and some more to be sure
            await settle(store, hold)
        assert await level_of(store) == CAPACITY - 2 * USED
        assert not (await store.epoch(name, 4_000)).behind
        await store.close()

    with running() as server:
        in_loop(snapshot)


# --- who may ask ----------------------------------------------------------------------------------------------------


def test_a_password_is_asked_for() -> None:
    async def asked() -> None:
        await trouble_of(server.url, "NOAUTH")
        await trouble_of(f"redis://:wrong@{server.host}:{server.port}", "WRONGPASS")
        store = await up(f"redis://:s3cret%2F@{server.host}:{server.port}/2")
        assert (await store.reserve("h", [TPM], owner=0, lease_ms=30_000)).outcome is Outcome.ADMITTED
        await store.close()

    with running("--requirepass", "s3cret/") as server:
        in_loop(asked)


def rights() -> tuple[list[str], list[str]]:
    """The words of the page, for a user with the password `pw`: at a store, and at a sentinel."""
    found = re.findall(r"^ACL SETUSER gateway (.*?)\n```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    store, sentinel = (rules.replace("\\\n", " ").replace(">password", ">pw").split() for rules in found)
    return store, sentinel


async def works(url: str, *, database: int) -> None:
    """Everything that the gateway asks of a store. Raises Unavailable, or what says why it never comes up."""
    store = make(f"{url}/{database}", deadline_s=PATIENT_S)
    await until(lambda: store.there or bool(store.trouble))
    try:
        assert not store.trouble, store.trouble
        assert (await store.reserve("h", [TPM, IN_FLIGHT], owner=0, lease_ms=9_000)).outcome is Outcome.ADMITTED
        again = await store.reserve("h", [TPM, IN_FLIGHT], owner=0, lease_ms=9_000, attempt=1, releases=[IN_FLIGHT])
        assert again.outcome is Outcome.ADMITTED
        assert await store.renew([Renewal("h", ("in flight",))], lease_ms=9_000) == (State.OPEN,)
        assert (await store.lease("n", 1, "tpm", STANDING, want=5, least=1, unused=0, lease_ms=30_000)).granted == 5
        assert len(await store.peek([TPM, IN_FLIGHT])) == 2
        assert (await store.settle("h", [TPM, IN_FLIGHT])).found is State.OPEN
        assert await store.forget([(Kind.RATE, "tpm"), (Kind.WINDOW, "nobody's")]) == 1
        assert [standing.level for standing in await store.peek([TPM])] == [TPM.spec.limit]
        name = (await store.epoch()).id
        await store.epoch(name, 7)
        assert (await store.epoch(name, 8)).known_us == 7
        pings = store.counts.answered
        await until(lambda: store.counts.answered > pings or bool(store.trouble))  # after a second of silence
        assert not store.trouble, store.trouble
    finally:
        await store.close()


def test_the_rights_of_the_page_are_all_that_the_gateway_needs_and_each_of_them_is() -> None:
    given, _ = rights()
    needed = [word for word in given if word.startswith("+")]
    assert len(needed) == 14

    async def without(missing: str) -> None:
        with server.connect() as connection:
            connection.ask("FLUSHALL")
            connection.ask("ACL", "SETUSER", "gateway", "reset", *(word for word in given if word != missing))
        url = f"redis://gateway:pw@{server.host}:{server.port}"
        if not missing:
            await works(url, database=1)
            return
        with pytest.raises((Unavailable, AssertionError), match=r"NOPERM|can't run this command"):
            await works(url, database=1)

    with running() as server:
        for missing in ["", *needed]:
            in_loop(partial(without, missing))
        with server.connect() as connection:
            connection.ask("ACL", "SETUSER", "gateway", "reset", *given)
            connection.ask("AUTH", "gateway", "pw")
            for forbidden in (("GET", "{gw:main}:1:epoch"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "dir")):
                with pytest.raises(ReplyError, match="NOPERM"):
                    connection.ask(*forbidden)
            with pytest.raises(ReplyError, match=r"NOPERM.*key"):
                connection.ask("MGET", "{gw:other}:1:epoch")


# --- TLS ------------------------------------------------------------------------------------------------------------


def tls_options(authority: Authority, *names: str, clients: str = "no") -> list[str]:
    certificate, key = authority.issue(*names)
    return [
        "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority.ca_file,
        "--tls-auth-clients", clients,
    ]  # fmt: skip


def test_tls_is_verified_against_the_authority_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path, "stranger")

    async def over_tls() -> None:
        url = f"rediss://127.0.0.1:{server.port}"
        store = await up(url, files={"ca_file": authority.ca_file})
        assert (await store.reserve("h", [TPM], owner=0, lease_ms=30_000)).outcome is Outcome.ADMITTED
        await store.close()
        await trouble_of(url, "CERTIFICATE_VERIFY_FAILED", ca_file=stranger.ca_file)
        await trouble_of(url, "CERTIFICATE_VERIFY_FAILED")
        await trouble_of(f"redis://127.0.0.1:{server.port}", "lost|closed|reset|does not speak")

    with running(*tls_options(authority, "127.0.0.1"), tls=True) as server:
        in_loop(over_tls)


def test_tls_wants_the_name_that_was_dialled(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def wrong_name() -> None:
        await trouble_of(f"rediss://127.0.0.1:{server.port}", "IP address mismatch", ca_file=authority.ca_file)

    with running(*tls_options(authority, "elsewhere.example"), tls=True) as server:
        in_loop(wrong_name)


def test_a_store_may_ask_for_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway")

    async def identified() -> None:
        url = f"rediss://127.0.0.1:{server.port}"
        files = {"ca_file": authority.ca_file, "client_cert": certificate, "client_key": key}
        store = await up(url, files=files)
        assert (await store.reserve("h", [TPM], owner=0, lease_ms=30_000)).outcome is Outcome.ADMITTED
        await store.close()
        await trouble_of(url, "lost|certificate|CERTIFICATE", ca_file=authority.ca_file)

    with running(*tls_options(authority, "127.0.0.1", clients="yes"), tls=True) as server:
        in_loop(identified)


def test_sentinels_by_tls_that_know_who_asks(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    of_store, of_sentinel = rights()

    async def asked() -> None:
        places = f"gateway:pw@127.0.0.1:{sentinel.port}/main"
        store = await up(f"sentinels://{places}", files={"ca_file": authority.ca_file})
        assert (await store.reserve("h", [TPM], owner=0, lease_ms=30_000)).outcome is Outcome.ADMITTED
        await store.close()
        await trouble_of(f"sentinels://{places}", "no sentinel says.*CERTIFICATE_VERIFY_FAILED")
        stranger = f"sentinels://127.0.0.1:{sentinel.port}/main"
        await trouble_of(stranger, "no sentinel says.*NOAUTH", ca_file=authority.ca_file)

    options = tls_options(authority, "127.0.0.1")
    config = tmp_path / "sentinel.conf"
    with running(*options, "--user", "gateway", *of_store, tls=True) as primary:
        config.write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            f"user default off\nuser gateway {' '.join(of_sentinel)}\n"
        )
        with running(*options, "--tls-replication", "yes", tls=True, sentinel=config) as sentinel:
            in_loop(asked)
