"""The index finds what is in it, through any collisions and removals."""

import random

import pytest

from gateway.limiter.index import NUMBER_BITS, TAG_MASK, Index
from gateway.segment import WORD

SIZE = 16


@pytest.fixture
def index() -> Index:
    return Index(memoryview(bytearray((SIZE + 8) * WORD)).cast("q"), 4, SIZE)


def add(index: Index, tag: int, number: int) -> None:
    apply(index, [index.insertion(tag, number)])


def remove(index: Index, tag: int, number: int) -> None:
    apply(index, index.removal(tag, number))


def apply(index: Index, changes: list[tuple[int, ...]]) -> None:
    for byte, word in changes:
        index.words[byte // WORD] = word


def found(index: Index, tag: int) -> list[int]:
    return list(index.candidates(tag))


def test_equal_tags_are_all_candidates(index: Index) -> None:
    add(index, 3, 10)
    add(index, 3, 11)
    add(index, 3 + SIZE, 12)  # the same home, another tag
    assert found(index, 3) == [10, 11]
    assert found(index, 3 + SIZE) == [12]
    assert found(index, 4) == []


def test_the_last_place_is_followed_by_the_first(index: Index) -> None:
    for number in range(3):
        add(index, SIZE - 1, number)
    assert found(index, SIZE - 1) == [0, 1, 2]
    remove(index, SIZE - 1, 0)
    assert found(index, SIZE - 1) == [1, 2]
    assert index.words[: index.at].tolist() == [0] * 4
    assert index.words[index.at + SIZE :].tolist() == [0] * 4


def test_removal_closes_the_gap(index: Index) -> None:
    add(index, 3, 0)
    add(index, 3, 1)
    add(index, 4, 2)  # pushed on by the second of home 3
    remove(index, 3, 0)
    assert found(index, 3) == [1]
    assert found(index, 4) == [2]
    assert len(index.removal(4, 2)) == 1, "it stands at its home again"


def test_what_stands_at_its_home_stays_there(index: Index) -> None:
    add(index, 3, 0)
    add(index, 4, 1)
    assert index.removal(3, 0) == [((index.at + 3) * WORD, 0)]


def test_what_is_not_there_is_removed_by_nothing(index: Index) -> None:
    add(index, 3, 0)
    assert index.removal(3, 1) == []
    assert index.removal(5, 0) == []


def test_one_store_is_enough_when_nothing_has_to_move_up(index: Index) -> None:
    add(index, 3, 0)
    add(index, 4, 1)
    assert index.blank(3, 0)
    assert (found(index, 3), found(index, 4)) == ([], [1])


def test_one_store_is_not_enough_when_something_has_to(index: Index) -> None:
    for tag, number in ((3, 0), (3, 1), (4, 2)):
        add(index, tag, number)
    before = index.words.tolist()
    assert not index.blank(3, 0)
    assert not index.blank(3, 1), "it does not stand at its home"
    assert not index.blank(9, 0), "it is not there"
    assert index.words.tolist() == before


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_additions_and_removals(index: Index, seed: int) -> None:
    chance, held = random.Random(seed), dict[int, int]()
    for number in range(300):
        if held and (chance.random() < 0.5 or len(held) == SIZE // 2):
            gone = chance.choice(list(held))
            tag = held.pop(gone)
            if not index.blank(tag, gone):
                remove(index, tag, gone)
        else:
            held[number] = chance.choice((0, 1, SIZE - 1, chance.randrange(TAG_MASK)))
            add(index, held[number], number)
        for kept, tag in held.items():
            assert kept in found(index, tag)
        assert sum(map(bool, index.words)) == len(held)


def test_an_entry_is_a_word() -> None:
    assert (TAG_MASK << NUMBER_BITS | (1 << NUMBER_BITS) - 1) < 2**63
