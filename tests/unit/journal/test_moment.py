"""What is there at one moment fits together, whatever happens while it is looked at."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gateway.journal import layout, moment
from tests.fakes.a_journal import AJournal, a_whole_journal


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    return a_whole_journal(tmp_path / "state")


def never(_seconds: float) -> None:
    """Wait for no writer: there is none."""


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: list[Callable[[], object]]) -> None:
    """Have something happen each time before sizes are taken."""
    chains = layout.chains

    def after(journal: Path) -> list[str]:
        if happens:
            with monkeypatch.context() as untouched:  # what happens may look at the chains as well
                untouched.setattr(layout, "chains", chains)
                happens.pop(0)()
        return chains(journal)

    monkeypatch.setattr(layout, "chains", after)


def test_manifests_and_sizes(made: AJournal) -> None:
    taken = moment.take(made.journal)
    assert taken.manifests.newest is not None
    assert taken.manifests.newest.manifest.n == 5
    assert taken.sizes == {
        chain: {n: made.path(chain, n).stat().st_size for n in layout.segments(made.journal, chain)}
        for chain in ("w0", "w1", "control")
    }


def test_segments_without_a_line_are_none(made: AJournal) -> None:
    made.path("w0", 4).touch()
    (made.journal / "w9").mkdir()
    taken = moment.take(made.journal)
    assert list(taken.sizes["w0"]) == [3, 2, 1]
    assert taken.sizes["w9"] == {}


def test_what_is_written_in_between_is_longer_than_what_is_signed(
    made: AJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, [lambda: (made.write("w0"), made.sign())])
    taken = moment.take(made.journal)
    assert taken.manifests.newest is not None
    end = taken.manifests.newest.manifest.end_of("w0")
    assert end is not None
    assert (taken.manifests.newest.manifest.n, taken.sizes["w0"][3] > end.offset) == (5, True)


@pytest.mark.parametrize("floors", [[2], [2, 3]])
def test_a_floor_that_is_signed_in_between(made: AJournal, floors: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, [partial(made.drop, "w0", floor) for floor in floors])
    taken = moment.take(made.journal)
    assert taken.manifests.newest is not None
    (floor,) = taken.manifests.newest.manifest.floors
    assert floor.segment == min(taken.sizes["w0"]) == floors[-1]


def test_floors_without_end_are_not_waited_for(made: AJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop() -> None:
        made.roll("w0")
        made.drop("w0", made.chain("w0").segment)

    work: list[Callable[[], object]] = [drop] * 50
    meanwhile(monkeypatch, work)
    assert moment.take(made.journal).manifests.newest is not None
    assert len(work) > 40


def test_an_end_that_is_being_written_is_waited_for(made: AJournal) -> None:
    path = made.manifest_path(2)
    content = path.read_bytes()
    path.write_bytes(content[:-3])

    def pause(_seconds: float) -> None:
        path.write_bytes(content)

    taken = moment.take(made.journal, pause)
    assert taken.manifests.torn == 0


def test_an_end_that_stays_torn(made: AJournal) -> None:
    path = made.manifest_path(2)
    path.write_bytes(path.read_bytes()[:-3])
    assert moment.take(made.journal, never).manifests.torn > 0
