"""A journal at rest is changed under the lock, and afterwards recorded, signed and whole."""

import json
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from gateway.cli import journal_offline
from gateway.cli.journal_offline import append, at_rest, forget, held, status
from gateway.control.database.handle import Database
from gateway.control.database.trouble import DatabaseTrouble
from gateway.control.erasure import ErasureUnfinished
from gateway.control.readers.base import Cursor
from gateway.control.readers.runner import Runner, Source
from gateway.control.readers.usage import UsageReader
from gateway.journal import layout
from gateway.journal.layout import NoJournal
from gateway.journal.manifest import last_manifest
from gateway.journal.seal import Opener
from gateway.process.lock import StateLock
from gateway.process.settings import StartError
from gateway.record import Kind, Record
from tests.fakes.journal_node import JournalNode


@pytest.fixture
def node(tmp_path: Path) -> JournalNode:
    return JournalNode(tmp_path)


def count_usage(node: JournalNode) -> None:
    """As control does: every signed record into the usage table."""
    manifest = last_manifest(node.journal.path)
    assert manifest is not None
    seqs = {end.chain: end.seq for end in manifest.chains}
    source = Source(node.journal.path, node.journal.node, node.journal.signed, lambda: seqs)
    with closing(Database.of(node.config)) as database:
        opener = Opener(layout.sealing_of(node.state_dir))
        runner = Runner(UsageReader(database, node.journal.node, opener.open), source, node.state_dir)
        runner.step()
        assert runner.failing == ""


# --- changing -------------------------------------------------------------------------------------------------------


def test_a_hold_is_recorded_and_signed(node: JournalNode) -> None:
    with at_rest(node.config) as rest:
        hold = rest.holds.add("case", "ann")
    assert held(node.config) == [{
        "id": hold.id, "why": "case", "actor": "ann", "at_us": hold.at_us, "from_us": 0, "to_us": hold.to_us,
    }]  # fmt: skip
    assert [(record.action, record.subject) for record in node.told()] == [("journal.hold", hold.id)]
    report = node.verified()
    assert (report.findings, report.unsigned) == ([], 0)


def test_people_are_forgotten_in_keys_and_tables(node: JournalNode) -> None:
    count_usage(node)
    with at_rest(node.config) as rest:
        erased = rest.erasure.run("acme", "ann", "eve")
    assert erased == (1, 1)
    opener = Opener(layout.sealing_of(node.state_dir))
    assert [opener.open(record) is None for record in node.exchanges] == [True, False]
    (record,) = node.told()
    assert json.loads(record.detail)["keys"] == 1
    report = node.verified()
    assert (report.findings, report.unsigned) == ([], 0)


def test_all_of_an_organisation(node: JournalNode) -> None:
    count_usage(node)
    with closing(Database.of(node.config)) as database:
        assert forget(database, "acme", "bob") == 1
        assert forget(database, "acme", "") == 1
        assert forget(database, "acme", "") == 0


def test_the_lock_is_taken_and_given_back(node: JournalNode) -> None:
    with at_rest(node.config), pytest.raises(StartError):
        StateLock.acquire(node.state_dir, 0.0)
    with pytest.raises(ZeroDivisionError), at_rest(node.config):
        raise ZeroDivisionError
    StateLock.acquire(node.state_dir, 0.0).release()


def test_a_gateway_that_runs_is_left_alone(node: JournalNode) -> None:
    lock = StateLock.acquire(node.state_dir, 0.0)
    with pytest.raises(StartError, match="in use"), at_rest(node.config):
        raise AssertionError
    lock.release()
    assert node.told() == []


def test_without_a_journal_nothing_is_made(node: JournalNode) -> None:
    (node.journal.path / "node.json").unlink()
    before = sorted(node.state_dir.rglob("*"))
    for work in (held, status):
        with pytest.raises(NoJournal):
            work(node.config)
    with pytest.raises(NoJournal), at_rest(node.config):
        raise AssertionError
    assert sorted(node.state_dir.rglob("*")) == before


def test_a_record_that_is_not_taken_is_said(node: JournalNode) -> None:
    async def refused(*_given: object) -> bool:
        return False

    with mock.patch.object(journal_offline, "_written", refused), pytest.raises(OSError, match="cannot be written"):
        append(node.config, Record(Kind.ADMIN, "", 1))


def test_a_database_that_is_away_leaves_the_rest_done(node: JournalNode) -> None:
    away = mock.patch.object(journal_offline, "forget", side_effect=DatabaseTrouble("it is away"))
    with (
        away,
        pytest.raises(ErasureUnfinished, match=r"1 keys are destroyed.*it is away"),
        at_rest(node.config) as rest,
    ):
        rest.erasure.run("acme", "ann", "eve")
    assert len(node.told()) == 1
    assert node.verified().findings == []


# --- looking --------------------------------------------------------------------------------------------------------


def test_the_status_of_a_node_that_never_ran(node: JournalNode) -> None:
    told = status(node.config)
    assert [chain["chain"] for chain in told["chains"]] == ["w0", "control"]
    assert told["readers"] == [{"name": "export-siem", "lag_records": 4, "failing": ""}]
    assert "there is no database" in told["problems"][0]
    assert not (node.state_dir / "gateway.db").exists()


def test_how_far_readers_have_got_is_read_from_their_cursors(node: JournalNode) -> None:
    count_usage(node)
    cursor = Cursor(node.journal.chain("w0").end, 1)
    directory = node.state_dir / "exports"
    directory.mkdir()
    at = {"segment": cursor.place.segment, "offset": cursor.place.offset, "seq": 1, "missing": 0}
    content = {"v": 1, "node": node.journal.node, "chains": {"w0": at}}
    (directory / "siem.json").write_text(json.dumps(content))
    told = status(node.config)
    assert [(reader["name"], reader["lag_records"]) for reader in told["readers"]] == [("usage", 0), ("export-siem", 2)]
    assert told["problems"] == []
    (directory / "siem.json").write_text(json.dumps(content | {"node": "b" * 32}))
    assert status(node.config)["readers"][1]["lag_records"] == 4
