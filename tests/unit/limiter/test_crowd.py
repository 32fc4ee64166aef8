"""Too many end users: as many are counted one by one as a table has rows for, and of the others nothing is lost."""

import random

import pytest

from gateway.limiter.crowd import Crowd, shared_key
from gateway.limiter.recorded import Key, key_of
from gateway.limiter.replay import Charge, Fact, Ledger, What
from gateway.limiter.spec import MAX_AMOUNT, Spec, rate, window
from tests.fakes.limit_records import NOON_MS

MINUTE = rate(MAX_AMOUNT, 60_000, 60_000)
DAY = window(MAX_AMOUNT, NOON_MS, NOON_MS + 86_400_000)


def name(user: int, key: str = "k") -> str:
    return f"people|key={key}|end_user={user:x}"


def key(user: int, of: str = "k", spec: Spec = MINUTE) -> Key:
    return key_of(name(user, of), spec)


SHARED = key_of("people|key=k|end_user=*", MINUTE)


def bounded(each: int, most: int = 1_000) -> Ledger:
    ledger = Ledger()
    ledger.bound(Crowd(each, most))
    return ledger


def take(ledger: Ledger, what: What, hold: str, user: int, amount: int, at_ms: int = NOON_MS) -> None:
    ledger.take("w0", Fact(what, at_ms, hold, [Charge(key(user), MINUTE, amount)]))


def used(ledger: Ledger, now_ms: int = NOON_MS) -> dict[str, int]:
    return {found.bucket: found.used for found in ledger.used(now_ms)}


def test_a_set_has_so_many_and_the_others_share_one() -> None:
    crowd = Crowd(2, 100)
    assert [crowd.enter(key(user), ()) for user in range(2)] == [key(0), key(1)]
    before = crowd.folds
    assert crowd.enter(key(2), ()) == SHARED
    assert (before, crowd.folds) == (False, True)
    crowd.leave(key(0))
    assert crowd.enter(key(2), {SHARED: 1}) == SHARED  # where its hold was charged before
    assert crowd.enter(key(2), ()) == key(2)
    assert crowd.enter(key(3), ()) == SHARED


def test_a_window_and_another_key_are_sets_of_their_own() -> None:
    crowd = Crowd(1, 100, [key(1)])
    for other in (key(2, "other"), key(2, spec=DAY)):
        assert crowd.enter(other, ()) == other


def test_who_comes_late_finds_room_though_one_set_is_greedy() -> None:
    crowd = Crowd(100, 12)
    placed = {crowd.enter(key(user), ()) for user in range(50)}
    assert len(placed - {SHARED}) == 6
    assert crowd.enter(key(1, "other"), ()) == key(1, "other")


@pytest.mark.parametrize("bucket", ["tpm|key=k", "people|key=k|end_user=*"])
def test_what_is_no_end_users_is_counted_by_itself(bucket: str) -> None:
    assert shared_key(key_of(bucket, MINUTE)) is None
    assert Crowd(0, 0).enter(key_of(bucket, MINUTE), ()) == key_of(bucket, MINUTE)


def test_what_was_reserved_together_is_settled_there() -> None:
    ledger = bounded(1)
    for user in range(4):
        take(ledger, What.RESERVED, f"h{user}", user, 100)
    assert used(ledger) == {name(0): 100, SHARED.bucket: 300}
    ledger.prune(NOON_MS + 200)  # the first has refilled, so there is room
    take(ledger, What.SETTLED, "h1", 1, 250, NOON_MS + 200)
    assert used(ledger, NOON_MS + 200) == {SHARED.bucket: 250}
    take(ledger, What.RESERVED, "h9", 1, 10, NOON_MS + 200)
    take(ledger, What.SETTLED, "h2", 2, 0, NOON_MS + 200)
    assert used(ledger, NOON_MS + 200) == {SHARED.bucket: 150, name(1): 10}


def test_who_was_folded_when_it_was_kept_is_known_when_it_is_loaded() -> None:
    ledger = bounded(1)
    for user in range(2):
        take(ledger, What.RESERVED, f"h{user}", user, 100)
    ledger.bound(Crowd(1, 1_000))
    take(ledger, What.RESERVED, "h2", 2, 100)
    take(ledger, What.SETTLED, "h2", 2, 0)
    assert used(ledger) == {name(0): 100, SHARED.bucket: 100}


def test_the_others_of_a_set_are_forgotten_with_it() -> None:
    ledger = bounded(1)
    for user in range(3):
        take(ledger, What.RESERVED, f"h{user}", user, 100)
    ledger.forget(["people"], NOON_MS)
    assert (used(ledger), [held.charges for held in ledger.holds.values()]) == ({}, [{}] * 3)
    take(ledger, What.RESERVED, "new", 7, 5, NOON_MS + 1)
    assert used(ledger, NOON_MS + 1) == {name(7): 5}


@pytest.mark.parametrize("seed", range(60))
def test_all_of_a_set_have_used_no_less_than_one_by_one(seed: int) -> None:
    """A budget comes to the same sum whatever is settled; a rate that is only charged, to no less while none leaves."""
    dice, now_ms, spec = random.Random(seed), NOON_MS, (MINUTE, DAY)[seed % 2]
    alone, crowded = Ledger(), bounded(dice.randrange(1, 4), dice.randrange(4, 9))
    reserved = dict[str, tuple[int, int]]()
    for number in range(120):
        now_ms += dice.choice((0, 1, 50, 900))
        hold, user, amount = f"h{number}", dice.randrange(12), dice.randrange(1_000)
        what = What.RESERVED
        if reserved and dice.random() < 0.5:
            hold, (user, least) = reserved.popitem()
            what, amount = What.SETTLED, amount if spec is DAY else least + amount
        else:
            reserved[hold] = user, amount
        for ledger in (alone, crowded):
            ledger.take("w0", Fact(what, now_ms, hold, [Charge(key(user, spec=spec), spec, amount)]))
            if spec is DAY and number % 10 == 0:
                ledger.prune(now_ms)
        sums = [sum(used(ledger, now_ms).values()) for ledger in (alone, crowded)]
        assert sums[0] == sums[1] if spec is DAY else sums[0] <= sums[1]
        assert sum(SHARED.bucket != one.bucket for one in crowded.accounts) <= 8
    assert any(one.bucket == SHARED.bucket for one in crowded.accounts)
