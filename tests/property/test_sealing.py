"""Whatever is sealed, erased, restarted and polled in whichever order: what opens is what was sealed, and only that.

A run is a list of moves, played on real files beside a model that knows which rows were destroyed. Half-way and at
the end every record is opened, by a reader that was there from the beginning and by a fresh one: it gives its own
people back, or nothing if its row is gone, and nothing under any other record's key or exchange.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.erase import erase
from gateway.journal.keytable import key_files, key_path
from gateway.journal.seal import Opener, Sealer
from gateway.record import Kind, Personal, Record

ORGS: Final = ["", "acme", "acme\0ann", "ümlaut"]
USERS: Final = ["", "ann", "bob", "ann\0bob", "ann" * 300]
DAY_S: Final = 86_400

Move = Callable[["Play"], None]


class Item(NamedTuple):
    """A record, and who it is about."""

    record: Record
    people: tuple[str, str, str]
    personal: Personal
    body: bytes


class Play:
    """Two workers, and what a model knows of their keys."""

    def __init__(self, directory: Path, clock: mock.Mock) -> None:
        self.directory = directory
        self.clock = clock
        self.slots = [self.begun(0), self.begun(1)]
        self.reader = Opener(directory)
        self.items: list[Item] = []
        self.owner: dict[str, tuple[str, str, str]] = {}  # of each row
        self.dead: set[str] = set()  # rows
        self.told = [True, True]  # of every erasure so far

    def begun(self, slot: int) -> Sealer:
        """A new life of a slot; it holds few keys, so that some are pushed out."""
        return Sealer(self.directory, f"w{slot}", capacity=3)

    def check(self) -> None:
        """Everything opens as it should, and nothing as it should not."""
        for opener in (self.reader, Opener(self.directory)):
            for item in self.items:
                alive = item.record.sealed_by not in self.dead
                assert opener.open(item.record) == (item.personal if alive else None)
                digest = opener.digest(item.record.sealed_by, item.body)
                assert digest == (item.record.prompt_digest if alive else None)
                self.check_swapped(opener, item)

    def check_swapped(self, opener: Opener, item: Item) -> None:
        """A sealed part under another's key, or in another's record, opens nowhere."""
        part = item.record.sealed
        for other in self.items:
            if other.record.sealed_by != item.record.sealed_by:
                under = Record(Kind.OUTCOME, item.record.exchange_id, 1, sealed=part, sealed_by=other.record.sealed_by)
                assert opener.open(under) is None
            if other is not item:
                within = Record(Kind.OUTCOME, other.record.exchange_id, 1, sealed=part, sealed_by=item.record.sealed_by)
                assert opener.open(within) is None

    def check_files(self) -> None:
        """Rows are destroyed whole, and none but those of the model."""
        for chain, number in key_files(self.directory):
            raw = key_path(self.directory, chain, number).read_bytes()
            for row in range(1, len(raw) // 64):
                assert any(raw[row * 64 : row * 64 + 64]) == (f"{chain}-{number}.{row}" not in self.dead)


def seal(slot: int, people: tuple[str, str, str], body: bytes) -> Move:
    def move(play: Play) -> None:
        org, user, end_user = people
        key = play.slots[slot].key(org, user, end_user)
        assert play.owner.setdefault(key.id, people) == people
        assert key.id not in play.dead or not play.told[slot]
        exchange_id, personal = f"x{len(play.items)}", Personal(user, end_user, "203.0.113.7")
        record = Record(
            Kind.OUTCOME,
            exchange_id,
            1,
            sealed=key.seal(personal, exchange_id),
            sealed_by=key.id,
            prompt_digest=key.digest(body),
        )
        play.items.append(Item(record, people, personal, body))

    return move


def erased(org: str, user: str) -> Move:
    def move(play: Play) -> None:
        hit = {row for row, (of, *users) in play.owner.items() if of == org and (not user or user in users)} - play.dead
        assert erase(play.directory, org=org, user=user) == len(hit)
        play.dead |= hit
        play.told = [False, False]
        play.check()

    return move


def poll(slot: int) -> Move:
    def move(play: Play) -> None:
        play.slots[slot].poll()
        play.told[slot] = True

    return move


def restart(slot: int, *, overlapping: bool) -> Move:
    def move(play: Play) -> None:
        old = play.slots[slot]
        if not overlapping:
            old.close()
        play.slots[slot] = play.begun(slot)
        play.told[slot] = True
        old.close()

    return move


def next_day(play: Play) -> None:
    play.clock.return_value += DAY_S


def sync(slot: int) -> Move:
    return lambda play: play.slots[slot].sync()


SLOTS = st.integers(0, 1)
PEOPLE = st.tuples(st.sampled_from(ORGS), st.sampled_from(USERS), st.sampled_from(USERS))
MOVES = st.one_of(
    st.builds(seal, SLOTS, PEOPLE, st.binary(max_size=8)),
    st.builds(seal, SLOTS, st.just(("acme", "ann", "")), st.just(b"again")),
    st.builds(erased, st.sampled_from(ORGS), st.sampled_from(USERS)),
    st.builds(poll, SLOTS),
    st.builds(restart, SLOTS, overlapping=st.booleans()),
    st.builds(sync, SLOTS),
    st.just(next_day),
)


@contextmanager
def scene() -> Iterator[Play]:
    with TemporaryDirectory() as directory, mock.patch("time.time", return_value=0.0) as clock:
        play = Play(Path(directory), clock)
        try:
            yield play
        finally:
            for sealer in play.slots:
                sealer.close()


@given(st.lists(MOVES, max_size=30))
def test_what_opens_is_what_was_sealed_until_it_is_erased(moves: list[Move]) -> None:
    with scene() as play:
        for move in moves:
            move(play)
        play.check()
        play.check_files()
