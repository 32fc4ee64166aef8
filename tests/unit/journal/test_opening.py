"""A process's chain as the config says: whose it is, what it rests on, and what is there before any is opened."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway import __version__
from gateway.config.schema import Config, Journal
from gateway.journal import layout
from gateway.journal.findings import Fault
from gateway.journal.layout import NoJournal
from gateway.journal.manifest import MANIFEST_VERSION, ChainEnd, Manifest, sign
from gateway.journal.merkle import EMPTY_ROOT
from gateway.journal.opening import Desk, ensure_journal, open_desk, open_journal, settings_of, signed_end
from gateway.journal.read import Place, entries
from gateway.journal.recover import NoFreeChain
from gateway.journal.signing import SigningError, load_signer
from gateway.journal.verify import verify
from gateway.limiter.replay import Fact, What, fact_of
from gateway.record import Kind, Personal, Record
from tests.fakes.patience import PATIENCE_S

SLOTS = 6


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(state_dir=str(tmp_path), region="eu", journal=Journal(segment_bytes=100_000, segment_s=9))
    ensure_journal(tmp_path)
    return made


def opened(config: Config, slot: int = 0) -> Desk:
    desk = open_desk(config, slot, SLOTS)
    assert desk is not None
    return desk


def test_a_node_and_its_first_key_are_there_before_any_chain(tmp_path: Path) -> None:
    with pytest.raises(NoJournal):
        settings_of(Config(state_dir=str(tmp_path)))
    ensure_journal(tmp_path)
    first = (layout.node_id(tmp_path / "journal"), load_signer(tmp_path / "signing").key_id)
    ensure_journal(tmp_path)
    assert (layout.node_id(tmp_path / "journal"), load_signer(tmp_path / "signing").key_id) == first


def test_a_signed_journal_gets_no_other_first_key(tmp_path: Path) -> None:
    ensure_journal(tmp_path)
    manifests = tmp_path / "journal" / layout.MANIFESTS
    manifests.mkdir()
    (manifests / "0000000001.jsonl").touch()
    ensure_journal(tmp_path)
    for path in (tmp_path / "signing").iterdir():
        path.unlink()
    with pytest.raises(SigningError, match="restore that directory"):
        ensure_journal(tmp_path)
    assert list((tmp_path / "signing").iterdir()) == []


def test_a_chain_is_what_the_config_says(config: Config, tmp_path: Path) -> None:
    settings = settings_of(config)
    assert (settings.region, settings.segment_bytes, settings.segment_s) == ("eu", 100_000, 9)
    assert settings.node == layout.node_id(tmp_path / "journal")


def test_where_no_journal_is_kept_there_is_no_desk(tmp_path: Path) -> None:
    assert open_desk(Config(state_dir=str(tmp_path), journal=Journal(enabled=False)), 0, SLOTS) is None
    assert list(tmp_path.iterdir()) == []


def test_a_slot_has_its_own_chain_and_another_while_that_is_still_written(config: Config) -> None:
    desks = [opened(config, 2), opened(config, 2), opened(config, 3)]
    assert [desk.journal.chain for desk in desks] == ["w2", "w8", "w3"]
    for desk in desks:
        asyncio.run(desk.close(0))
    again = opened(config, 2)
    assert again.journal.chain == "w2"
    asyncio.run(again.close(0))


def test_who_takes_a_chain_over_says_so_before_anything_else(config: Config, tmp_path: Path) -> None:
    async def write(exchange: str) -> None:
        desk = opened(config)
        desk.journal.start(asyncio.get_running_loop())
        desk.scribe.outcome(Record(Kind.OUTCOME, exchange, 1, key_id="k"))
        await desk.close(0)

    for exchange in ("x", "y"):
        asyncio.run(write(exchange))
    found = [entry.record for entry in entries(tmp_path / "journal", "w0")]
    assert [record.action or record.exchange_id for record in found] == ["segment", "began", "x", "began", "y"]
    assert json.loads(found[3].detail) == {"pid": os.getpid(), "version": __version__}
    assert found[3].kind is Kind.CHECKPOINT
    assert fact_of(found[3]) == Fact(What.BEGAN, found[3].at_us // 1_000)
    assert [finding.fault for finding in verify(tmp_path / "journal").findings] == [Fault.UNSIGNED]


def test_controls_chain_has_one_writer(config: Config) -> None:
    first = open_journal(config, (layout.CONTROL,))
    with pytest.raises(NoFreeChain):
        open_journal(config, (layout.CONTROL,))
    asyncio.run(first.close())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a thread counts, and tells nobody
            await asyncio.sleep(0.002)


def test_keys_are_on_the_disk_before_the_lines_that_name_them(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().parent.name)
        real(fd)

    async def main() -> None:
        desk = opened(config)
        desk.journal.start(asyncio.get_running_loop())
        await until(lambda: desk.journal.syncs > 0)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        sealed = desk.scribe.seal("x", "acme", Personal("ann"))
        desk.scribe.outcome(Record(Kind.OUTCOME, "x", 1, sealed=sealed.text, sealed_by=sealed.key.id, key_id="k"))
        await until(lambda: "w0" in synced)
        assert synced == ["sealing", "w0"]
        await desk.close(0)

    asyncio.run(main())
    assert [entry.record.exchange_id for entry in entries(tmp_path / "journal", "w0")][-1] == "x"


def test_closing_writes_what_was_only_counted(config: Config, tmp_path: Path) -> None:
    async def main() -> None:
        desk = opened(config)
        desk.journal.start(asyncio.get_running_loop())
        desk.scribe.outcome(Record(Kind.OUTCOME, "x", 5_000_000, error="invalid_api_key", ending="refused"))
        await desk.close(5_000_000)

    asyncio.run(main())
    last = list(entries(tmp_path / "journal", "w0"))[-1].record
    assert (last.action, last.count) == ("refusals", 1)


def test_a_desk_follows_a_snapshot(config: Config) -> None:
    desk = opened(config)
    desk.adopt(replace(config, journal=Journal(refusals_per_s=77, segment_bytes=200_000)))
    assert desk.scribe._refusals.per_s == 77
    assert desk.journal._segment_bytes == 200_000
    asyncio.run(desk.close(0))


def test_how_far_the_newest_manifest_covers_a_chain(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "journal"
    assert signed_end(journal, "w0") is None
    end = ChainEnd("w0", 3, 700, 12, "ab" * 32)
    draft = Manifest(
        v=MANIFEST_VERSION, node=layout.node_id(journal), n=0, at_us=1, prev="0" * 64, chains=(end,), first={"w0": 0},
        leaves=13, root=EMPTY_ROOT.hex(), key="0" * 16, sig="",
    )  # fmt: skip
    path = journal / layout.MANIFESTS / "0000000001.jsonl"
    path.parent.mkdir()
    path.write_bytes(sign(draft, load_signer(tmp_path / "signing")) + b"\n")
    found = signed_end(journal, "w0")
    assert found is not None
    assert (found.place, found.seq, found.head) == (Place(3, 700), 12, b"\xab" * 32)
    assert signed_end(journal, "w1") is None
    assert caplog.records == []
    path.write_bytes(b"rubbish\n")
    assert signed_end(journal, "w0") is None
    assert "cannot be read" in caplog.text
    assert config.journal.enabled
