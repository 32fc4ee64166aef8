"""A reload replaces everything or nothing, says why not, and revoking and other prices need none."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from gateway.config.revocations import Revocations
from gateway.config.snapshot import SnapshotStore
from gateway.control import publisher as module
from gateway.control.pricing import LOOK_S, Pricing
from gateway.control.publisher import Publisher, Reloaded
from gateway.ledger.book import bound, edition
from gateway.ledger.prices import Book, Clause, Entry, Price, Rates, Shelf
from tests.fakes.control_context import CONFIG, FakeContext, fake_context

BAD = CONFIG.replace("provider: big, model: large-1", "provider: bug, model: large-1")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[FakeContext]:
    made = fake_context(tmp_path)
    yield made
    made.close()


def uninstalled() -> Pricing:
    """Prices of a package that is not there."""
    return Pricing(lambda _version, _day: pytest.fail("nothing to read"), lambda: "")


@pytest.fixture
def publisher(context: FakeContext) -> Publisher:
    made = Publisher(context, lambda _result, _actor: None, uninstalled())
    made.open()
    return made


def test_it_opens_what_the_board_names(publisher: Publisher) -> None:
    assert publisher.generation == 1
    assert publisher.config is not None
    assert publisher.keys is not None
    assert sorted(record.id for record in publisher.keys) == ["ann", "team/bob"]


def test_without_a_snapshot_it_goes_on_and_says_so(context: FakeContext, caplog: pytest.LogCaptureFixture) -> None:
    context.state.generation = 99
    publisher = Publisher(context, lambda _result, _actor: None, uninstalled())
    publisher.open()
    assert publisher.config is None
    assert "99" in caplog.text
    assert asyncio.run(publisher.page(0, 10)) == {"keys": [], "next": None}
    assert asyncio.run(publisher.revoke("ann")) is False


def test_a_good_config_becomes_the_next_generation(context: FakeContext, publisher: Publisher) -> None:
    context.write(CONFIG.replace("large:", "larger:").replace("[large]", "[larger]"))
    result = asyncio.run(publisher.reload("operator"))
    assert result == module.Reloaded(2)
    assert context.state.generation == publisher.generation == 2
    assert publisher.config is not None
    assert "larger" in publisher.config.models
    assert SnapshotStore(context.settings.state_dir).current() == 2


def test_a_bad_config_changes_nothing_and_every_problem_is_logged(
    context: FakeContext, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    context.write(BAD.replace("weight: 2", "weight: -2"))
    before = publisher.config
    result = asyncio.run(publisher.reload("operator"))
    assert result.generation == 1
    assert len(result.problems) == 2
    assert context.state.generation == 1
    assert publisher.config is before
    assert publisher.last_reload == result
    logged = [record.getMessage() for record in caplog.records]
    assert logged == [*result.problems, "reload refused: keeping snapshot 1"]


def test_a_disk_that_cannot_be_written_refuses_the_reload(
    publisher: Publisher, context: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "reload_snapshot", full)
    result = asyncio.run(publisher.reload("operator"))
    assert result.problems == ("the snapshot cannot be written: [Errno 28] No space left on device",)
    assert context.state.generation == 1


def test_a_defect_refuses_the_reload_and_control_lives_on(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(module, "reload_snapshot", broken)
    result = asyncio.run(publisher.reload("operator"))
    assert result.problems == ("internal error: ZeroDivisionError",)
    assert caplog.records[0].exc_info is not None
    assert (publisher.reloads_published, publisher.reloads_refused) == (0, 1)


@pytest.mark.parametrize(("text", "answer"), [(CONFIG, (7, 2)), (BAD, (7, 0))])
def test_requests_of_the_supervisor_are_answered_once_each(
    context: FakeContext, publisher: Publisher, text: str, answer: tuple[int, int]
) -> None:
    context.write(text)
    context.requests.put_nowait(7)
    context.requests.put_nowait(None)
    asyncio.run(publisher.answer_requests())
    assert context.answers == [answer]


def test_reloads_asked_for_at_once_follow_each_other(context: FakeContext, publisher: Publisher) -> None:
    async def main() -> list[int]:
        results = await asyncio.gather(publisher.reload("operator"), publisher.reload("admin"))
        return [result.generation for result in results]

    assert asyncio.run(main()) == [2, 3]
    assert context.state.generation == 3


def test_the_number_of_workers_follows_the_config(context: FakeContext, publisher: Publisher) -> None:
    context.write("listen: {workers: 5}\n" + CONFIG)
    asyncio.run(publisher.reload("operator"))
    assert context.state.workers_wanted == 5


def test_what_acts_only_after_a_restart_is_said(
    context: FakeContext, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    context.write("listen: {port: 9001}\n" + CONFIG)
    result = asyncio.run(publisher.reload("operator"))
    assert result.restart == ("listen.port",)
    assert "listen.port has changed: it acts after a restart" in caplog.text


def test_a_revoked_key_is_written_down_and_seen(context: FakeContext, publisher: Publisher) -> None:
    assert asyncio.run(publisher.revoke("team/bob")) is True
    assert publisher.revoked == {"team/bob"}
    line = json.loads((context.settings.state_dir / "revocations").read_text())
    assert line["key"] == "team/bob"
    assert line["at_ms"] > 1_600_000_000_000


def test_a_key_that_does_not_exist_is_not_revoked(context: FakeContext, publisher: Publisher) -> None:
    assert asyncio.run(publisher.revoke("nobody")) is False
    assert not (context.settings.state_dir / "revocations").exists()


def test_what_the_command_line_revoked_is_seen(context: FakeContext, publisher: Publisher) -> None:
    Revocations(context.settings.state_dir).add("ann", 1)
    publisher.watch_revocations()
    (ann,) = [key for key in asyncio.run(publisher.page(0, 10))["keys"] if key["id"] == "ann"]
    assert ann["revoked"] is True


def test_revocations_that_cannot_be_read_are_a_warning(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(publisher._store.revocations, "poll", refused)
    with caplog.at_level(logging.WARNING):
        publisher.watch_revocations()
    assert "Permission denied" in caplog.text


# --- prices ---------------------------------------------------------------------------------------------------------

DAY = date(2026, 11, 21)
PRICE = Price(Rates(1, 2, 1, 1, 2, 1, 2), source="a list")
BOOK = Book("a list", (Shelf("openai", "https://api", Clause("or"), (Entry(Clause("equals", "large-1"), PRICE),)),))
FIRST, SECOND = bound(BOOK, "1.0", DAY), bound(Book("another list"), "2.0", DAY)
MONEY = "limits: {rules: [{name: budget, per: [team], usd: 5, every: month}]}\n"


class Priced:
    """A publisher on a node with the first prices, and a package of which other versions can be installed."""

    def __init__(self, context: FakeContext, kept: bytes = FIRST) -> None:
        self.context = context
        self.version = "1.0"
        self.make: Callable[[], bytes] = lambda: bound(BOOK, self.version, DAY)
        self.told: list[tuple[Reloaded, str]] = []
        self.store = SnapshotStore(context.settings.state_dir)
        if kept:
            context.state.generation = self.store.reprice(1, kept)
        pricing = Pricing(lambda _version, _day: self.make(), lambda: self.version, lambda: DAY)
        self.publisher = Publisher(context, lambda *told: self.told.append(told), pricing)
        self.publisher.open()

    def upgrade(self, raw: bytes = SECOND) -> None:
        self.version, self.make = "2.0", lambda: raw


@pytest.fixture
def priced(context: FakeContext, caplog: pytest.LogCaptureFixture) -> Priced:
    caplog.set_level(logging.INFO)
    return Priced(context)


def test_it_knows_the_prices_in_use(priced: Priced) -> None:
    assert priced.publisher.prices == FIRST
    assert priced.publisher.price_list().resolve("openai", "large-1") == PRICE
    assert priced.publisher.price_list() is priced.publisher.price_list()


def test_other_prices_are_published_with_the_same_config_and_keys(
    priced: Priced, caplog: pytest.LogCaptureFixture
) -> None:
    priced.upgrade()
    before = priced.publisher.config
    asyncio.run(priced.publisher.renew_prices())
    assert priced.context.state.generation == priced.publisher.generation == 3
    assert priced.store.load(3).prices == priced.publisher.prices == SECOND
    assert priced.publisher.config is before
    assert sorted(record.id for record in priced.publisher.keys or ()) == ["ann", "team/bob"]
    name = "the prices of genai-prices 2.0 on 2026-11-21"
    assert priced.told == [(Reloaded(3, prices=name), "gateway")]
    assert caplog.messages == [f"snapshot 3 published: {name}"]


def test_the_same_prices_are_no_new_snapshot(priced: Priced) -> None:
    priced.version = "1.1"
    asyncio.run(priced.publisher.renew_prices())
    assert (priced.context.state.generation, priced.told) == (2, [])


def test_a_reload_brings_the_prices_in_force(priced: Priced, caplog: pytest.LogCaptureFixture) -> None:
    priced.upgrade()
    result = asyncio.run(priced.publisher.reload("operator"))
    assert result == Reloaded(3)
    assert caplog.messages == ["the prices of genai-prices 2.0 on 2026-11-21 come in force", "snapshot 3 published"]
    assert priced.store.load(3).prices == priced.publisher.prices == SECOND


def test_a_reload_that_is_refused_brings_none(priced: Priced) -> None:
    priced.upgrade()
    priced.context.write(BAD)
    asyncio.run(priced.publisher.reload("operator"))
    assert priced.store.prices() == priced.publisher.prices == FIRST


@pytest.mark.parametrize("damage", ["full", "gone", "defect"])
def test_prices_that_cannot_be_published_leave_the_old_ones_until_they_can(
    priced: Priced, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    priced.upgrade()
    with monkeypatch.context() as patched:
        if damage == "full":
            patched.setattr(SnapshotStore, "_write", _raising(OSError(28, "No space left on device")))
        elif damage == "gone":
            patched.setattr(SnapshotStore, "_newest", lambda _store: None)
        else:
            patched.setattr(SnapshotStore, "reprice", _raising(ZeroDivisionError("a defect")))
        asyncio.run(priced.publisher.renew_prices())
    assert (priced.context.state.generation, priced.publisher.prices) == (2, FIRST)
    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert said.message.startswith("other prices cannot be published, tried again later: ")
    assert bool(said.exc_info) == (damage == "defect")
    asyncio.run(priced.publisher.renew_prices())
    assert (priced.context.state.generation, priced.publisher.prices) == (3, SECOND)


def _raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_without_a_config_in_use_prices_wait(context: FakeContext) -> None:
    context.state.generation = 99
    priced = Priced(context, b"")
    asyncio.run(priced.publisher.renew_prices())
    assert (context.state.generation, SnapshotStore(context.settings.state_dir).current()) == (99, 1)


async def _kept(publisher: Publisher, until: Callable[[], bool], every_s: float) -> None:
    task = asyncio.ensure_future(publisher.keep_prices(every_s))
    while not until():
        assert not task.done()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})


def test_prices_are_looked_at_at_once_and_again(priced: Priced) -> None:
    async def main() -> None:
        priced.upgrade()
        await _kept(priced.publisher, lambda: priced.context.state.generation == 3, 3600.0)
        priced.version, priced.make = "3.0", lambda: bound(Book("a third"), "3.0", DAY)
        await _kept(priced.publisher, lambda: priced.context.state.generation == 4, 0.001)

    asyncio.run(main())


def test_a_node_without_prices_looks_later(context: FakeContext) -> None:
    priced = Priced(context, b"")
    looks: list[str] = []
    waits: list[float] = []

    async def main() -> None:
        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            looks.append("slept")
            if len(waits) == 2:
                raise asyncio.CancelledError

        def make() -> bytes:
            looks.append("made")
            return FIRST

        priced.make = make
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(asyncio, "sleep", sleep)
            with pytest.raises(asyncio.CancelledError):
                await priced.publisher.keep_prices()

    asyncio.run(main())
    assert looks == ["slept", "made", "slept"]
    assert waits == [LOOK_S] * 2
    assert edition(priced.publisher.prices) is not None


def test_a_start_says_which_models_a_limit_in_money_cannot_count(
    context: FakeContext, caplog: pytest.LogCaptureFixture
) -> None:
    context.write(MONEY + CONFIG)
    priced = Priced(context, SECOND)
    priced.upgrade()
    asyncio.run(priced.publisher.reload("operator"))
    said = [message for message in caplog.messages if "no price is known" in message]
    assert len(said) == 1
    assert "large (big/large-1)" in said[0]
    again = Publisher(context, lambda *_: None, uninstalled())
    again.open()
    caplog.clear()
    asyncio.run(_kept(again, lambda: bool(caplog.messages), 3600.0))
    assert caplog.messages[0] == said[0]


def test_a_reload_that_prices_them_says_nothing(priced: Priced, caplog: pytest.LogCaptureFixture) -> None:
    priced.context.write(MONEY + CONFIG)
    asyncio.run(priced.publisher.reload("operator"))
    assert "no price is known" not in caplog.text
