"""The directory survives what a SIGKILL can leave behind, and reads back what was written."""

import pytest

from gateway.segment import Segment
from gateway.telemetry.directory import (
    AREA_WORDS,
    CELL_WORDS,
    DIRECTORY_WORDS,
    HEAD_WORDS,
    METRICS,
    Area,
    Family,
    Kind,
)

SEEN = Family("seen_total", Kind.COUNTER, "Seen.", ("who",))
TOOK = Family("took_seconds", Kind.HISTOGRAM, "Took.", (), (10, 100))


def words() -> memoryview:
    return memoryview(bytearray(AREA_WORDS * 8)).cast("q")


def test_an_empty_area_has_nothing() -> None:
    assert Area(words()).read() == ([], [], 0)


def test_what_is_declared_reads_back_in_another_mapping() -> None:
    memory = words()
    writer = Area(memory)
    at = writer.append_family(SEEN, 0)
    at = writer.append_series(0, ("ann",), 0, at)
    at = writer.append_family(TOOK, at)
    at = writer.append_series(1, (), 1, at)
    families, series, end = Area(memory).read()
    assert families == [SEEN, TOOK]
    assert [(one.family, one.values, one.cell) for one in series] == [(SEEN, ("ann",), 0), (TOOK, (), 1)]
    assert end == at == writer.used_words


def test_an_entry_not_counted_yet_is_not_there_and_is_overwritten() -> None:
    memory = words()
    area = Area(memory)
    at = area.append_family(SEEN, 0)
    area.append_series(0, ("killed before the count word",), 0, at)
    memory[0] = at
    assert area.read()[1:] == ([], at)
    area.append_series(0, ("ann",), 0, at)
    assert [one.values for one in area.read()[1]] == [("ann",)]


@pytest.mark.parametrize("length", [-1, 0, 2**40])
def test_reading_stops_before_an_entry_of_impossible_length(length: int) -> None:
    memory = words()
    area = Area(memory)
    at = area.append_family(SEEN, 0)
    at = area.append_series(0, ("ann",), 0, at)
    area.append_series(0, ("bob",), 1, at)
    memory[HEAD_WORDS + at] = length
    _, series, end = area.read()
    assert [one.values for one in series] == [("ann",)]
    assert end == at


def test_reading_stops_before_bytes_that_are_no_entry() -> None:
    memory = words()
    area = Area(memory)
    at = area.append_family(SEEN, 0)
    area.append_series(0, ("ann",), 0, at)
    memory[HEAD_WORDS + at + 2] = -1
    assert area.read() == ([SEEN], [], at)


@pytest.mark.parametrize(
    ("family", "values", "cell"),
    [(7, ("ann",), 0), (0, ("ann", "bob"), 0), (0, ("ann",), CELL_WORDS), (0, ("ann",), -2)],
)
def test_a_series_of_no_family_or_outside_the_cells_is_not_read(
    family: int, values: tuple[str, ...], cell: int
) -> None:
    area = Area(words())
    at = area.append_family(SEEN, 0)
    area.append_series(family, values, cell, at)
    assert area.read()[1:] == ([], at)


@pytest.mark.parametrize("used", [-5, 2**62])
def test_a_nonsense_count_word_stays_inside_the_directory(used: int) -> None:
    memory = words()
    memory[0] = used
    assert 0 <= Area(memory).used_words <= DIRECTORY_WORDS
    assert Area(memory).read() == ([], [], 0)


def test_a_full_directory_says_so() -> None:
    assert Area(words()).append_family(SEEN, DIRECTORY_WORDS - 1) == -1


def test_cells_of_a_series() -> None:
    assert SEEN.cells == 1
    assert TOOK.cells == 4  # two bounds, above, sum


def test_the_layout_is_frozen() -> None:
    """A change here needs a new section version, and a reader of the old one for `transfer`."""
    assert (METRICS.name, METRICS.version, HEAD_WORDS, DIRECTORY_WORDS, CELL_WORDS) == ("metrics", 1, 8, 32768, 16384)
    assert METRICS.words_per_slot == METRICS.words_shared == AREA_WORDS
    segment = Segment.create([METRICS], slots=2)
    assert len(segment.slot(METRICS, 1)) == AREA_WORDS
