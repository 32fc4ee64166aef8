"""Control as the process layer runs it: serves, follows reloads and revocations, counts, and leaves when told."""

import asyncio
import gc
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.control import main as module
from gateway.control.keeping import Keeping
from gateway.control.main import Logs, control_main
from gateway.control.publisher import Publisher
from gateway.journal.read import entries
from gateway.record import Kind
from gateway.segment import Segment
from gateway.telemetry import families
from gateway.telemetry.scrape import counted, scrape
from tests.fakes.control_context import CONFIG, TOKEN, FakeContext, fake_context
from tests.fakes.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def quiet_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Control sets logging up for its process; here that process is the test's."""
    monkeypatch.setattr(module, "WATCH_S", 0.005)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[FakeContext]:
    made = fake_context(tmp_path)
    yield made
    made.close()


def run(context: FakeContext, talk: Callable[[ClientSession], Awaitable[None]]) -> None:
    """Run control around `talk`, then tell it to stop as the process layer does."""

    async def main() -> None:
        control = asyncio.ensure_future(control_main(context))
        await asyncio.wait({control, asyncio.ensure_future(context.is_ready.wait())}, return_when="FIRST_COMPLETED")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        try:
            async with ClientSession(f"http://127.0.0.1:{context.port}", headers=headers) as session:
                await talk(session)
        finally:
            context.stopping.set()
            await asyncio.wait_for(control, PATIENCE_S)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is a word in shared memory
            await asyncio.sleep(0.002)


def test_it_serves_until_told_to_stop_and_leaves_the_socket_listening(context: FakeContext) -> None:
    async def talk(session: ClientSession) -> None:
        async with session.get("/healthz") as response:
            assert await response.json() == {"status": "ok"}

    run(context, talk)
    assert context.admin.fileno() >= 0
    assert context.admin.getsockopt(1, 30) == 1  # SO_ACCEPTCONN: the supervisor's port is still open


def test_a_reload_request_is_answered_and_counted(context: FakeContext) -> None:
    async def talk(_session: ClientSession) -> None:
        context.requests.put_nowait(1)
        await until(lambda: context.answers == [(1, 2)])
        context.write(CONFIG + "nonsense: 1\n")
        context.requests.put_nowait(2)
        await until(lambda: context.answers == [(1, 2), (2, 0)])
        await until(lambda: reloads(context.segment) == {("published",): 1, ("refused",): 1})

    run(context, talk)


def reloads(segment: Segment) -> dict[tuple[str, ...], int]:
    return counted(segment, families.RELOADS)


def test_a_refused_token_is_counted_and_its_own_memory_shown(context: FakeContext) -> None:
    async def talk(session: ClientSession) -> None:
        async with session.get("/", headers={"Authorization": "Bearer wrong"}) as response:
            assert response.status == 401
        await until(lambda: counted(context.segment, families.ADMIN_REFUSALS) == {(): 1})

    run(context, talk)
    page = scrape(context.segment, live={context.slot})
    assert f'gateway_worker_rss_bytes{{slot="{context.slot}"}} ' in page


def test_a_revocation_from_the_command_line_is_shown(context: FakeContext) -> None:
    async def talk(session: ClientSession) -> None:
        with (context.settings.state_dir / "revocations").open("w") as file:
            file.write(json.dumps({"key": "ann", "at_ms": 1}) + "\n")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with session.get("/v1/keys") as response:
                    keys = (await response.json())["keys"]
                if [key["id"] for key in keys if key["revoked"]] == ["ann"]:
                    return

    run(context, talk)


def test_what_operators_do_stands_in_the_journal(context: FakeContext) -> None:
    async def talk(session: ClientSession) -> None:
        journal = context.settings.state_dir / "journal"
        await until((journal / "control").is_dir)
        context.requests.put_nowait(1)
        await until(lambda: bool(context.answers))
        async with session.post("/v1/reload") as response:
            assert response.status == 200
        async with session.post("/v1/keys/ann/revoke") as response:
            assert response.status == 200
        with (context.settings.state_dir / "revocations").open("a") as file:
            file.write(json.dumps({"key": "team/bob", "at_ms": 1}) + "\n")
        await until(lambda: "team/bob" in told(journal))

    def told(journal: Path) -> dict[str, tuple[str, str]]:
        records = [entry.record for entry in entries(journal, "control")]
        return {record.subject: (record.action, record.actor) for record in records if record.kind is Kind.ADMIN}

    run(context, talk)
    assert told(context.settings.state_dir / "journal") == {
        "generation 1": ("control.start", "gateway"),
        "generation 2": ("config.reload", "operator"),
        "generation 3": ("config.reload", "admin"),
        "ann": ("key.revoke", "admin"),
        "team/bob": ("key.revoke", "operator"),
    }


def test_what_is_loaded_is_left_to_itself_once_control_is_warm(
    context: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WARM_S", 0.02)
    done: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))

    async def talk(_session: ClientSession) -> None:
        await until(lambda: "freeze" in done)

    run(context, talk)
    assert done == ["collect", "freeze"], "garbage is not kept with the rest"


def test_control_that_has_ended_leaves_collections_alone(context: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []
        call_later = loop.call_later

        def noted(delay: float, callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.TimerHandle:
            timer = call_later(delay, callback, *args, **options)
            if delay == module.WARM_S and callback is module._freeze:
                timers.append(timer)
            return timer

        monkeypatch.setattr(loop, "call_later", noted)
        control = asyncio.ensure_future(control_main(context))
        await context.is_ready.wait()
        await until(lambda: bool(timers))
        context.stopping.set()
        await asyncio.wait_for(control, PATIENCE_S)
        assert [timer.cancelled() for timer in timers] == [True]

    asyncio.run(main())
    assert frozen == []


def test_workers_hear_soon_that_limits_count_what_was_used(
    context: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["reading it", "reading it", "reading it"]
    monkeypatch.setattr(module, "WATCH_S", 2 * PATIENCE_S)
    monkeypatch.setattr(Keeping, "unready", property(lambda _: said.pop() if said else ""))

    async def talk(_session: ClientSession) -> None:
        await until(lambda: not context.state.recounting)

    context.state.recounting = 1
    run(context, talk)
    assert not said


def test_a_port_that_cannot_be_served_ends_control(context: FakeContext) -> None:
    context.admin.close()

    async def main() -> None:
        await control_main(context)

    with pytest.raises(OSError, match="Bad file descriptor"):
        asyncio.run(main())


def test_control_does_not_go_on_without_one_of_its_parts(context: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_self: Publisher) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Publisher, "answer_requests", broken)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(control_main(context))  # the supervisor starts another


def test_logging_follows_the_config(context: FakeContext) -> None:
    publisher = Publisher(context, lambda _result, _actor: None)
    logs = Logs(publisher)
    logs.follow()
    assert logs.dropped == 0
    publisher.open()
    logs.follow()
    assert logging.getLogger().level == logging.WARNING
    context.write(CONFIG.replace("level: warning", "level: error"))
    asyncio.run(publisher.reload("operator"))
    logs.follow()
    assert logging.getLogger().level == logging.ERROR
    logs.close()
