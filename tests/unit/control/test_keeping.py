"""The parts of the journal in control: opened when it can be, told what happened before, followed, closed in order."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.config.limits import Limits, Rule
from gateway.config.revocations import Revocations
from gateway.config.schema import Anchor, Config, Export, Journal
from gateway.config.secrets import Secret
from gateway.control import keeping as module
from gateway.control.holds import HoldRefused
from gateway.control.keeping import Keeping
from gateway.control.limiting import NodeLimits
from gateway.control.parts import Parts
from gateway.control.publisher import ADMIN, OPERATOR, Reloaded
from gateway.journal import layout
from gateway.journal.manifest import last_manifest
from gateway.journal.opening import ensure_journal
from gateway.journal.read import entries
from gateway.limiter.engine import Amount
from gateway.limiter.spec import rate
from gateway.nodestate import Order
from gateway.record import Kind, Record
from tests.fakes.control_context import LIMITS, FakeContext, fake_context


@pytest.fixture
def context(tmp_path: Path) -> Iterator[FakeContext]:
    made = fake_context(tmp_path)
    made.state.slot(made.slot).begin(Order.SERVE, 0)
    made.state.recounting = 1
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIGN_S", "RETAIN_S", "RETRY_S", "REVOKED_S"):
        monkeypatch.setattr(module, name, 0.01)


def config(directory: Path, **changed: object) -> Config:
    return replace(Config(state_dir=str(directory / "state")), **changed)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.005)


def kept(keeping: Keeping, talk: Callable[[Parts], Awaitable[None]]) -> None:
    """Run it around `talk`, and close it as control does."""

    async def main() -> None:
        running = asyncio.ensure_future(keeping.run())
        await until(lambda: keeping.parts is not None or running.done())
        assert keeping.parts is not None
        await talk(keeping.parts)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await keeping.close()

    asyncio.run(main())


def records(directory: Path) -> list[Record]:
    found = [entry.record for entry in entries(directory / "state" / "journal", layout.CONTROL)]
    assert [record.action for record in found[:2]] == ["segment", "began"]
    return [record for record in found if record.kind is not Kind.CHECKPOINT]


def test_what_was_told_before_it_was_open_comes_first(tmp_path: Path) -> None:
    ensure_journal(tmp_path / "state")
    keeping = Keeping(lambda: config(tmp_path), clock_us=lambda: 7)
    keeping.tell(Kind.ADMIN, "early", "x", "gateway", n=1)

    async def talk(_parts: Parts) -> None:
        keeping.tell(Kind.MODE, "late", "y", "admin")

    kept(keeping, talk)
    assert [(record.action, record.subject, record.actor, record.at_us) for record in records(tmp_path)] == [
        ("early", "x", "gateway", 7),
        ("late", "y", "admin", 7),
    ]
    assert json.loads(records(tmp_path)[0].detail) == {"n": 1}


def test_what_came_of_a_reload_is_told_from_prices_that_came_in_force(tmp_path: Path) -> None:
    ensure_journal(tmp_path / "state")
    keeping = Keeping(lambda: config(tmp_path))

    async def talk(_parts: Parts) -> None:
        keeping.reloaded(Reloaded(2), "operator")
        keeping.reloaded(Reloaded(2, problems=("a", "b")), "admin")
        keeping.reloaded(Reloaded(3, prices="the prices of today"), "gateway")

    kept(keeping, talk)
    assert [(record.action, record.subject, record.actor, record.detail) for record in records(tmp_path)] == [
        ("config.reload", "generation 2", "operator", '{"problems": 0}'),
        ("config.refused", "generation 2", "admin", '{"problems": 2}'),
        ("prices.renew", "generation 3", "gateway", '{"prices": "the prices of today"}'),
    ]


def test_retention_does_not_believe_a_clock_that_is_far_ahead_of_the_last_start(tmp_path: Path) -> None:
    ensure_journal(tmp_path / "state")
    (tmp_path / "state" / "clock").write_text("7\n")
    keeping = Keeping(lambda: config(tmp_path), clock_us=lambda: 10**15)

    async def talk(parts: Parts) -> None:
        assert "hours ahead of what it was" in parts.retention._doubt()

    kept(keeping, talk)
    assert (tmp_path / "state" / "clock").read_text() == "7\n"


def test_the_last_manifest_covers_everything(tmp_path: Path) -> None:
    ensure_journal(tmp_path / "state")
    keeping = Keeping(lambda: config(tmp_path))

    async def talk(_parts: Parts) -> None:
        for _ in range(5):
            keeping.tell(Kind.ADMIN, "a", "b", "c")

    kept(keeping, talk)
    manifest = last_manifest(tmp_path / "state" / "journal")
    assert manifest is not None
    end = manifest.end_of(layout.CONTROL)
    assert end is not None
    assert end.seq == 6


def test_readers_follow_what_is_signed(tmp_path: Path) -> None:
    ensure_journal(tmp_path / "state")
    export = Export(name="out", kind="file", path=str(tmp_path / "out.jsonl"))
    keeping = Keeping(lambda: config(tmp_path, exports=(export,)))
    keeping.tell(Kind.ADMIN, "a", "b", "c")

    async def talk(parts: Parts) -> None:
        assert [runner.name for runner in parts.readers.runners] == ["usage", "export-out"]
        await until(
            lambda: (tmp_path / "out.jsonl").is_file() and b'"action":"a"' in (tmp_path / "out.jsonl").read_bytes()
        )
        await until(lambda: all(runner.lag_records == 0 for runner in parts.readers.runners))

    kept(keeping, talk)


def test_a_hold_added_from_a_thread_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    ensure_journal(tmp_path / "state")
    keeping = Keeping(lambda: config(tmp_path))

    async def talk(parts: Parts) -> None:
        holds = parts.journal_api._holds
        await asyncio.to_thread(holds.add, "a lawsuit", "ann")
        assert [record.action for record in records(tmp_path)] == ["journal.hold"]
        with pytest.raises(HoldRefused):
            await asyncio.to_thread(holds.add, "", "ann")

    kept(keeping, talk)


def test_a_journal_that_cannot_be_opened_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeping = Keeping(lambda: config(tmp_path))

    async def main() -> None:
        running = asyncio.ensure_future(keeping.run())
        await until(lambda: bool(caplog.records))
        assert keeping.parts is None
        ensure_journal(tmp_path / "state")
        await until(lambda: keeping.parts is not None)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await keeping.close()

    asyncio.run(main())
    assert [record.getMessage()[:35] for record in caplog.records if record.levelname == "ERROR"] == [
        "control cannot open the journal, an"
    ]


@pytest.mark.parametrize("said", [None, Config(journal=Journal(enabled=False))])
def test_without_a_config_that_wants_one_none_is_kept(said: Config | None) -> None:
    async def main() -> None:
        keeping = Keeping(lambda: said)
        running = asyncio.ensure_future(keeping.run())
        await asyncio.sleep(0.05)
        keeping.follow()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await keeping.close()
        assert keeping.parts is None

    asyncio.run(main())


def test_a_reload_is_followed(tmp_path: Path) -> None:
    ensure_journal(tmp_path / "state")
    current = [config(tmp_path)]
    keeping = Keeping(lambda: current[0])

    async def talk(parts: Parts) -> None:
        keeping.follow()
        assert parts.retention.settings.keep_days == 400
        anchor = Anchor(kind="file", path=str(tmp_path / "anchors"))
        current[0] = config(tmp_path, journal=Journal(keep_days=3, anchors=(anchor,)))
        keeping.follow()
        assert parts.retention.settings.keep_days == 3
        assert len(parts.anchoring.scheduled) == 1
        await until(lambda: parts.anchoring.scheduled[0].anchored > 0)

    kept(keeping, talk)


def test_what_is_told_while_nothing_is_open_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNTOLD", 3)
    keeping = Keeping(lambda: None)
    for _ in range(10):
        keeping.tell(Kind.ADMIN, "a", "b", "c")
    assert len(keeping._untold) == 3


def test_revoked_keys_are_told_while_it_runs_and_the_last_when_it_closes(tmp_path: Path) -> None:
    state_dir = config(tmp_path).state_dir
    Revocations(state_dir).add("before", 1)
    ensure_journal(Path(state_dir))
    keeping = Keeping(lambda: config(tmp_path))

    async def talk(_parts: Parts) -> None:
        await until(lambda: len(revoked()) == 1)
        with keeping.revokers.revoking("at the end"):
            Revocations(state_dir).add("at the end", 2)
            keeping.revokers.revoked("at the end", ADMIN)

    def revoked() -> list[tuple[str, str]]:
        found = [entry.record for entry in entries(tmp_path / "state" / "journal", layout.CONTROL)]
        return [(record.subject, record.actor) for record in found if record.action == "key.revoke"]

    kept(keeping, talk)
    assert revoked() == [("before", OPERATOR), ("at the end", ADMIN)]


# --- limits ---------------------------------------------------------------------------------------------------------


def limited(context: FakeContext, said: Callable[[], Config | None]) -> Keeping:
    return Keeping(said, limits=NodeLimits(context, lambda: None))


def test_the_node_is_ready_when_limits_count_what_was_used(tmp_path: Path, context: FakeContext) -> None:
    current: list[Config | None] = [None]
    keeping = limited(context, lambda: current[0])
    assert keeping.unready == "what was used of limits is not known: the journal is being opened"
    current[0] = config(tmp_path, limits=LIMITS)

    async def talk(parts: Parts) -> None:
        assert [runner.name for runner in parts.runners] == ["usage", "budgets"]
        assert keeping.limits_engine is not None
        assert keeping.unready in {"", "what was used of limits is being read from the journal"}
        await until(lambda: not keeping.unready)
        current[0] = config(tmp_path, limits=LIMITS, journal=Journal(keep_days=3))
        keeping.follow()
        assert parts.limiting is not None
        assert parts.limiting.alerting._config is current[0]

    kept(keeping, talk)
    assert (tmp_path / "state" / "limits" / "checkpoint.json").is_file()


def test_a_control_that_is_replaced_waits_for_no_journal(tmp_path: Path, context: FakeContext) -> None:
    context.state.recounting = 0
    keeping = limited(context, lambda: config(tmp_path, limits=LIMITS))
    assert keeping.unready == ""

    async def talk(_parts: Parts) -> None:
        assert keeping.unready == ""

    kept(keeping, talk)


def test_why_the_node_is_not_ready_is_why_the_journal_cannot_be_opened(tmp_path: Path, context: FakeContext) -> None:
    limits = Limits(store=Secret("rediss://127.0.0.1:1"), ca_file="/nowhere")
    keeping = limited(context, lambda: config(tmp_path, limits=limits))

    async def main() -> None:
        running = asyncio.ensure_future(keeping.run())
        await until(lambda: "ca_file /nowhere" in keeping.unready)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    assert keeping.parts is None


def test_without_a_journal_nothing_is_waited_for_and_that_is_said_once(
    context: FakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    limits = Limits(rules=(Rule(name="spend", usd=1, every="day"),))
    keeping = limited(context, lambda: Config(journal=Journal(enabled=False), limits=limits))

    async def main() -> None:
        running = asyncio.ensure_future(keeping.run())
        await until(lambda: "(spend)" in caplog.text)
        assert keeping.unready == ""
        assert keeping.limits_engine is not None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert len(caplog.records) == 1


def test_without_a_journal_limits_that_are_gone_are_forgotten_where_they_count(context: FakeContext) -> None:
    rule = Rule(name="words", tokens=9, every="minute")
    bucket = Amount("words", rate(9_000, 9_000, 3_600_000), 7_000)
    current = [Config(journal=Journal(enabled=False), limits=replace(LIMITS, rules=(rule,)))]
    keeping = limited(context, lambda: current[0])

    def has_forgotten(number: int) -> bool:
        assert keeping._forgetting is not None
        return not keeping._forgetting._snapshots and keeping._forgetting.forgotten == number

    async def level() -> int:
        assert keeping.limits_engine is not None
        (standing,) = await keeping.limits_engine.peek([bucket])
        return standing.level

    async def main() -> None:
        running = asyncio.ensure_future(keeping.run())
        await until(lambda: keeping._forgetting is not None)
        assert keeping.limits_engine is not None
        await keeping.limits_engine.settle("h", (bucket,))
        for rules, forgotten in (((rule,), 0), ((), 1)):
            current[0] = replace(current[0], limits=replace(LIMITS, rules=rules))
            keeping.follow()
            await until(partial(has_forgotten, forgotten))
            assert (await level() == 9_000) is bool(forgotten)  # else it has refilled no more than a little
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
