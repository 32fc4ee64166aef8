"""The parts of a journal in control: given each other, so that nothing is dropped that one of them still needs."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from gateway.config.schema import Config, Export
from gateway.config.schema import Journal as JournalConfig
from gateway.control import parts as module
from gateway.control.parts import Parts, made, retention_of
from gateway.control.revoked import Revokers
from gateway.journal import layout
from gateway.journal.opening import ensure_journal, open_journal
from gateway.journal.read import Place
from gateway.record import Kind, Record

if TYPE_CHECKING:
    from gateway.control.limiting import Limiting
    from gateway.journal.journal import Journal

PLACE = Place(3, 7)


class Limited:
    """As much of control's part in limits as the other parts see."""

    def __init__(self, *_: object) -> None:
        self.runner = SimpleNamespace(name="budgets", stop=lambda: None)

    def places(self) -> Mapping[str, Place]:
        return {"w0": PLACE}


def made_in(state_dir: Path, *, limited: bool = True, **fields: Any) -> Parts:
    """The parts of a new journal; nothing runs."""
    ensure_journal(state_dir)
    config = Config(state_dir=str(state_dir), **fields)

    async def main() -> Parts:
        journal = open_journal(config, (layout.CONTROL,))
        parts = made(config, journal, cast("type[Limiting]", Limited) if limited else None, Revokers(), lambda: 1)
        journal._chain.close()
        return parts

    return asyncio.run(main())


def test_the_reader_of_budgets_is_shown_with_the_others_and_runs_apart(tmp_path: Path) -> None:
    parts = made_in(tmp_path, exports=(Export(name="out", kind="file", path=str(tmp_path / "out")),))
    assert [runner.name for runner in parts.readers.runners] == ["usage", "export-out"]
    assert [runner.name for runner in parts.runners] == ["usage", "export-out", "budgets"]
    assert list(parts.journal_api._runners) == list(parts.runners)


def test_every_export_has_a_pace_of_its_own_which_is_its_runners(tmp_path: Path) -> None:
    exports = tuple(Export(name=name, kind="file", path=str(tmp_path / name)) for name in ("a", "b"))
    parts = made_in(tmp_path, exports=exports)
    usage, *runners = parts.readers.runners
    assert [reader._pace for reader in parts.exports] == [runner._pace for runner in runners]
    assert len({id(runner._pace) for runner in (usage, *runners)}) == 3


def test_retention_keeps_what_no_checkpoint_holds_yet(tmp_path: Path) -> None:
    parts = made_in(tmp_path)
    assert parts.retention._places() == {"usage": {}, "budgets": {"w0": PLACE}}


def test_without_limits_nothing_waits_for_them(tmp_path: Path) -> None:
    parts = made_in(tmp_path, limited=False)
    assert parts.limiting is None
    assert list(parts.retention._places()) == ["usage"]


def test_what_the_config_says_of_retention() -> None:
    config = Config(journal=JournalConfig(max_bytes=10**9, keep_days=7))
    assert retention_of(config) == (10**9, 7)


class Deaf:
    """A journal that takes nothing: it says so, or says nothing."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent

    async def commit(self, _content: bytes, *, synced: bool) -> bool:
        assert synced
        if self.silent:
            await asyncio.get_running_loop().create_future()
        return False


@pytest.mark.parametrize("silent", [True, False])
def test_a_record_from_a_thread_that_was_not_written_is_an_error(monkeypatch: pytest.MonkeyPatch, silent: bool) -> None:
    monkeypatch.setattr(module, "APPEND_S", 0.01)

    async def main() -> None:
        append = module._FromThreads(cast("Journal", Deaf(silent=silent)), asyncio.get_running_loop())
        with pytest.raises(OSError, match="cannot be written at the moment"):
            await asyncio.to_thread(append.record, Record(Kind.ADMIN, "", 1))

    asyncio.run(main())
