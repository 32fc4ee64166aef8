"""The control segment keeps what one process writes for another to read, and refuses memory it does not know."""

import mmap
import os

import pytest

from gateway.segment import LAYOUT_VERSION, MAGIC, WORD, Section, Segment, SegmentMismatch

LEFT = Section("left", version=1, words_shared=3, words_per_slot=2)
RIGHT = Section("a name of 24 bytes, full", version=7, words_per_slot=1000)
SLOTS = 4


@pytest.fixture
def segment() -> Segment:
    return Segment.create([LEFT, RIGHT], SLOTS)


def test_another_mapping_of_the_same_memory_sees_the_words(segment: Segment) -> None:
    segment.shared(LEFT)[2] = -5
    segment.slot(LEFT, 3)[1] = 2**63 - 1
    other = Segment(os.dup(segment.fd))
    assert other.slots == SLOTS
    assert other.shared(LEFT)[2] == -5
    assert other.slot(LEFT, 3)[1] == 2**63 - 1


def test_no_word_belongs_to_two_places(segment: Segment) -> None:
    segment.view(LEFT)[:] = memoryview(bytearray(b"\x01" * WORD * LEFT.words(SLOTS))).cast("q")
    assert not any(segment.view(RIGHT))
    for slot in range(SLOTS):
        segment.slot(RIGHT, slot)[0] = slot
        segment.slot(RIGHT, slot)[999] = slot
    assert [segment.slot(RIGHT, slot)[0] for slot in range(SLOTS)] == list(range(SLOTS))
    assert [segment.slot(RIGHT, slot)[999] for slot in range(SLOTS)] == list(range(SLOTS))
    assert len(segment.shared(RIGHT)) == 0


def test_sections_start_on_pages_so_that_no_cache_line_is_shared(segment: Segment) -> None:
    with mmap.mmap(segment.fd, 0) as raw:
        words = memoryview(raw).cast("q")
        head = words[:4].tolist()
        offsets = [words[4 + 8 * index + 4] for index in range(2)]
        words.release()
    assert head == [MAGIC, LAYOUT_VERSION, SLOTS, 2]
    assert [offset % mmap.PAGESIZE for offset in offsets] == [0, 0]


@pytest.mark.parametrize(
    "section",
    [
        Section("absent", version=1),
        Section("left", version=2, words_shared=3, words_per_slot=2),
        Section("left", version=1, words_shared=3, words_per_slot=3),
    ],
)
def test_a_section_of_another_build_is_refused(segment: Segment, section: Section) -> None:
    with pytest.raises(SegmentMismatch, match=section.name):
        segment.view(section)


@pytest.mark.parametrize("slot", [-1, SLOTS])
def test_a_slot_that_is_not_there_is_refused(segment: Segment, slot: int) -> None:
    with pytest.raises(IndexError):
        segment.slot(LEFT, slot)


@pytest.mark.parametrize("head", [b"", b"\0" * 4096, MAGIC.to_bytes(8, "little") + b"\xff" * 4088])
def test_memory_that_is_no_segment_of_ours_is_refused(head: bytes) -> None:
    fd = os.memfd_create("other")
    os.write(fd, head or b"\0" * 8)
    with pytest.raises(SegmentMismatch):
        Segment(fd)
    os.close(fd)


def test_a_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        Segment.create([Section("a name of 25 bytes, beyond", version=1)], SLOTS)


def test_an_elastic_section_is_used_at_the_size_it_was_made_with() -> None:
    made = Section("table", version=2, words_shared=100, elastic=True)
    segment = Segment.create([made, LEFT], SLOTS)
    declared = Section("table", version=2, words_shared=7, elastic=True)
    assert len(segment.view(declared)) == len(segment.shared(declared)) == 100
    with pytest.raises(SegmentMismatch, match="version 2"):
        segment.view(Section("table", version=3, words_shared=100, elastic=True))
