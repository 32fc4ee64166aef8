"""Allowances by ids: found by passes over all keys, few of them, and never those of other keys than are in use."""

import asyncio
from collections.abc import Iterable, Iterator

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance
from gateway.control.key_allowances import PASS_SHARE, KeyAllowances

RICH, POOR = Allowance(usd_per_month=9), Allowance(usd_per_month=1)


class Keys:
    """An index that counts passes over it, each of which takes a second."""

    def __init__(self, **allowances: Allowance | None) -> None:
        self.allowances = allowances
        self.passes = 0

    def __iter__(self) -> Iterator[KeyRecord]:
        self.passes += 1
        for name, allowance in self.allowances.items():
            yield KeyRecord(id=name, digest=b"", allowance=allowance)


class Node:
    def __init__(self, keys: Keys | None) -> None:
        self.keys = keys
        self.now_s = 0.0
        self.found = KeyAllowances(self.index, self.clock_s)

    def index(self) -> Iterable[KeyRecord] | None:
        return self.keys

    def clock_s(self) -> float:
        self.now_s += 0.5
        return self.now_s

    def ask(self, *names: str) -> list[Allowance | None]:
        return [self.found.find(name) for name in names]

    def look(self) -> None:
        asyncio.run(self.found.look())


def test_what_was_asked_for_is_known_after_the_next_look() -> None:
    keys = Keys(a=RICH, b=None, c=POOR)
    node = Node(keys)
    assert node.ask("a", "b", "gone") == [None, None, None]
    node.look()
    assert node.ask("a", "b", "gone") == [RICH, None, None]
    node.now_s += 1_000
    node.look()
    assert keys.passes == 1  # nobody asked for more


def test_a_pass_is_followed_by_a_rest() -> None:
    keys = Keys(a=RICH, c=POOR)
    node = Node(keys)
    node.ask("a")
    node.look()
    node.ask("c")
    node.look()
    assert (keys.passes, node.ask("c")) == (1, [None])
    node.now_s += PASS_SHARE
    node.look()
    assert (keys.passes, node.ask("a", "c")) == (2, [RICH, POOR])


def test_other_keys_are_looked_through_anew() -> None:
    node = Node(Keys(a=RICH))
    node.ask("a")
    node.look()
    node.keys = Keys(a=POOR)
    assert node.ask("a") == [None]
    node.now_s += 1_000
    node.look()
    assert node.ask("a") == [POOR]


def test_keys_that_come_while_it_looks_are_not_mistaken() -> None:
    node = Node(Keys())

    class Replaced(Keys):
        def __iter__(self) -> Iterator[KeyRecord]:
            node.keys = Keys(a=POOR)
            return super().__iter__()

    node.keys = Replaced(a=RICH)
    node.ask("a")
    node.look()
    assert node.ask("a") == [None]
    node.now_s += 1_000
    node.look()
    assert node.ask("a") == [POOR]


def test_without_keys_it_waits_for_them() -> None:
    node = Node(None)
    node.ask("a")
    node.look()
    node.keys = Keys(a=RICH)
    node.look()
    assert node.ask("a") == [RICH]
