"""Who is told of a budget: the journal first, then the webhooks, once, over reloads and what cannot be written."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from gateway.config.keyindex import KeyIndex
from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance, Limits, Rule
from gateway.config.schema import Config, Webhook
from gateway.config.secrets import Secret
from gateway.control import webhook_queue
from gateway.control.alerting import Alerting
from gateway.control.budget_events import Crossing
from gateway.control.readers.budgets import BudgetReader
from gateway.limiter.engine import Unavailable
from gateway.limiter.spec import window
from gateway.record import Record
from tests.fakes.hooked import Hooked
from tests.fakes.limit_records import BUDGET
from tests.fakes.limits_node import Bucket, LimitsNode, run

if TYPE_CHECKING:
    from gateway.journal.journal import Journal

SPENT = ("spend|org=a", BUDGET)
KEYS = ("key.usd_per_month|key=ann", BUDGET)


class Paper:
    """A journal: what was committed, or why nothing is."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False

    async def commit(self, content: bytes, *, synced: bool) -> bool:
        if not self.full:
            assert synced
            self.records.append(msgspec.json.decode(content, type=Record))
        return not self.full


class Scene:
    """A node whose requests have spent something, and control's look at it."""

    def __init__(self, state_dir: Path) -> None:
        self.node = LimitsNode(state_dir)
        run(self.node)
        self.paper = Paper()
        self.keys: list[KeyRecord] = []
        self.alerting = self.begun(self.config())

    def config(self, *webhooks: Webhook, usd: float = 0.001, alerts: tuple[int, ...] = (70,)) -> Config:
        rule = Rule(name="spend", per=("org",), usd=usd, every="day", alerts=alerts)
        return Config(state_dir=str(self.node.journal.state_dir), limits=Limits(rules=(rule,)), webhooks=webhooks)

    def begun(self, config: Config) -> Alerting:
        node, paper = self.node, cast("Journal", self.paper)
        return Alerting(config, node.engine, node.reader, paper, self._index, lambda: node.now_us)

    def spends(self, hold: str, amount: int, bucket: Bucket = SPENT) -> None:
        self.node.settles(hold, amount, bucket)
        self.node.runner.step()

    def _index(self) -> KeyIndex | None:
        return cast("KeyIndex", self.keys)

    @property
    def percents(self) -> list[int]:
        """What the journal tells."""
        return [msgspec.json.decode(record.detail, type=Crossing).percent for record in self.paper.records]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def hook(hooked: Hooked, name: str = "ops", **changed: Any) -> Webhook:
    return Webhook(name=name, url=Secret(hooked.url), secret=Secret("s3cret"), allow_private=True, **changed)


def played(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(act())


def turn(scene: Scene) -> None:
    async def once() -> None:
        await scene.alerting.turn()
        await scene.alerting.close()

    played(once)


def test_a_threshold_is_told_to_the_journal_the_log_and_whoever_wants_to_hear(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        async with Hooked() as hooked:
            scene.alerting = scene.begun(scene.config(hook(hooked)))
            scene.spends("a", 700)
            await scene.alerting.turn()
            (came,) = await hooked.requests(1)
            await scene.alerting.turn()
            await hooked.until(lambda: scene.alerting.webhooks.results["ops", "sent"] == 1)
            await scene.alerting.close()
            told = json.loads(came.body)
            (record,) = scene.paper.records
            assert told["data"] == json.loads(record.detail)
            assert (told["id"], told["type"]) == (told["data"]["id"], "budget.crossed")
            assert len(hooked.came) == 1

    played(act)
    assert (scene.percents, scene.alerting.crossed) == ([70], {"spend": 1})
    assert "budget spend|org=a has passed 70 %: 700 of 1000 micro-USD are used" in caplog.text


def test_what_was_told_is_kept_at_once(scene: Scene) -> None:
    scene.spends("a", 700)
    turn(scene)
    kept = BudgetReader(scene.node.journal.state_dir, scene.node.journal.path, scene.node.journal.node)
    kept.load()
    assert kept.told["spend|org=a"].percent == 70


def test_a_journal_that_cannot_be_written_is_told_later(scene: Scene) -> None:
    scene.spends("a", 700)
    scene.paper.full = True
    with pytest.raises(OSError, match="journal cannot be written"):
        turn(scene)
    scene.paper.full = False
    turn(scene)
    assert scene.percents == [70]


def test_a_webhook_that_could_not_be_queued_has_the_journal_told_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("No space left on device")

    async def act() -> None:
        async with Hooked() as hooked:
            scene.alerting = scene.begun(scene.config(hook(hooked)))
            scene.spends("a", 700)
            with monkeypatch.context() as patch:
                patch.setattr(webhook_queue, "replacing", refuse)
                with pytest.raises(OSError, match="No space"):
                    await scene.alerting.turn()
            await scene.alerting.turn()
            await hooked.requests(1)
            await scene.alerting.close()

    played(act)
    assert (scene.percents, scene.alerting.crossed) == ([70], {"spend": 1})


def test_an_engine_that_is_away_is_asked_again(scene: Scene) -> None:
    scene.spends("a", 700)
    scene.node.engine.away = True
    with pytest.raises(Unavailable):
        turn(scene)
    scene.node.engine.away = False
    turn(scene)
    assert scene.percents == [70]


def test_a_reload_changes_budgets_and_where_events_go(scene: Scene) -> None:
    async def act() -> None:
        async with Hooked() as old, Hooked() as new:
            scene.alerting = scene.begun(scene.config(hook(old)))
            scene.spends("a", 700)
            await scene.alerting.turn()
            await old.requests(1)
            scene.alerting.follow(scene.config(hook(new, "others"), alerts=(70, 60, 65, 70, 69)))
            await scene.alerting.turn()
            scene.alerting.follow(scene.config(hook(new, "others"), usd=0.0007, alerts=(70, 100)))
            await scene.alerting.turn()
            (came,) = await new.requests(1)
            assert json.loads(came.body)["data"]["percent"] == 100
            assert len(old.came) == 1
            await scene.alerting.close()

    played(act)
    assert scene.percents == [70, 100]


def test_the_budget_of_a_key_is_found_among_the_keys(scene: Scene) -> None:
    scene.keys = [KeyRecord(b"", "bob"), KeyRecord(b"", "ann", allowance=Allowance(usd_per_month=0.001))]
    scene.spends("a", 700, KEYS)
    turn(scene)
    assert scene.percents == []
    turn(scene)
    assert (scene.percents, scene.alerting.crossed) == ([70], {"key.usd_per_month": 1})


def test_a_destination_that_cannot_be_used_keeps_nobody_else_from_hearing(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        async with Hooked() as hooked:
            bad = Webhook(name="bad", url=Secret("https://[ff0e::1]/"), secret=Secret("s"))
            scene.alerting = scene.begun(scene.config(bad, hook(hooked)))
            scene.spends("a", 700)
            await scene.alerting.turn()
            await scene.alerting.turn()
            await hooked.requests(1)
            await scene.alerting.close()

    with caplog.at_level(logging.ERROR):
        played(act)
    assert caplog.text.count("no events are sent: webhook bad") == 1


def test_a_window_that_ended_unwatched_is_told_of_nobody(scene: Scene) -> None:
    scene.spends("a", 700, ("spend|org=b", window(10**9, BUDGET.start_ms - 1_000, BUDGET.start_ms)))
    turn(scene)
    assert scene.percents == []
