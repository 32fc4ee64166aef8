"""A reload replaces everything or nothing, says why not, and revoking needs neither."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.revocations import Revocations
from gateway.config.snapshot import SnapshotStore
from gateway.control import publisher as module
from gateway.control.publisher import Publisher
from tests.fakes.control_context import CONFIG, FakeContext, fake_context

BAD = CONFIG.replace("provider: big, model: large-1", "provider: bug, model: large-1")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[FakeContext]:
    made = fake_context(tmp_path)
    yield made
    made.close()


@pytest.fixture
def publisher(context: FakeContext) -> Publisher:
    made = Publisher(context, lambda _result, _actor: None)
    made.open()
    return made


def test_it_opens_what_the_board_names(publisher: Publisher) -> None:
    assert publisher.generation == 1
    assert publisher.config is not None
    assert publisher.keys is not None
    assert sorted(record.id for record in publisher.keys) == ["ann", "team/bob"]


def test_without_a_snapshot_it_goes_on_and_says_so(context: FakeContext, caplog: pytest.LogCaptureFixture) -> None:
    context.state.generation = 99
    publisher = Publisher(context, lambda _result, _actor: None)
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
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "reload_snapshot", full)
    result = asyncio.run(publisher.reload("operator"))
    assert result.problems == ("the snapshot cannot be written: [Errno 28] No space left on device",)
    assert context.state.generation == 1


def test_a_defect_refuses_the_reload_and_control_lives_on(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
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
