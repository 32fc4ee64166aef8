"""When a memory is ours, another, or behind, and until when it is."""

from gateway.limiter.engine import Epoch
from gateway.limiter.epochs import Epochs

NAME = "theirs-1"


def known(epochs: Epochs, remembered_us: int, known_us: int) -> bool:
    """Ask, and leave what is known unless the memory is behind; whether it is."""
    epoch = epochs.judge(NAME, remembered_us, NAME, known_us)
    if not epoch.behind:
        epochs.left(known_us)
    return epoch.behind


def test_no_name_is_offered_twice_and_ours_are_known_by_how_they_begin() -> None:
    epochs, others = Epochs(), Epochs()
    first, second = epochs.offer(), epochs.offer()
    assert len({first, second, others.offer()}) == 3
    assert epochs.judge(first, 0, "", 0) == Epoch(first, fresh=True)  # also when the call that offered it had failed
    assert others.judge(first, 0, "", 0) == Epoch(first)


def test_a_memory_that_has_what_was_left_is_not_behind() -> None:
    epochs = Epochs()
    assert [known(epochs, remembered, knows) for remembered, knows in ((5, 5), (5, 7), (7, 9))] == [False] * 3


def test_of_a_node_that_began_anew_what_it_knows_is_what_it_left() -> None:
    assert known(Epochs(), 5, 6)
    assert known(Epochs(), 0, 6)
    assert not known(Epochs(), 7, 6)  # it died before it had saved what it left
    assert not known(Epochs(), 0, 0)


def test_another_memory_is_not_behind_and_expects_nothing_to_be_left_in_it() -> None:
    epochs = Epochs()
    assert not known(epochs, 10, 10)
    assert epochs.judge(NAME, 0, "theirs-0", 20) == Epoch(NAME)
    assert not known(epochs, 0, 30)  # everything was given to it meanwhile, and nothing left there yet
    assert known(epochs, 20, 31)


def test_behind_is_said_until_more_is_known_than_then() -> None:
    epochs = Epochs()
    assert not known(epochs, 10, 10)
    assert known(epochs, 4, 11)
    assert known(epochs, 4, 11)  # it was not settled again: the store was away
    assert not known(epochs, 4, 12)
    assert not known(epochs, 12, 13)


def test_a_memory_that_goes_back_further_meanwhile_is_behind_again() -> None:
    epochs = Epochs()
    assert not known(epochs, 10, 10)
    assert known(epochs, 4, 11)
    assert known(epochs, 2, 12)
    assert not known(epochs, 2, 13)
