"""What of a bucket is reserved and not settled yet: by requests under way, and by those whose lease has ended.

A reservation is an estimate: until it is settled a bucket's level is lower by it. What open holds have reserved comes
back as far as it was not used; what expired ones have stays charged, as estimated, until the journal settles it.

The shared table is read without its mutex, since who asks must stop nobody: a hold that changes meanwhile is counted as
it was, as it is, or not at all. Left out: a store, which does not tell its holds.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

from gateway.limiter.hold import State
from gateway.limiter.layout import AT_KEY, kept_name, row_digest
from gateway.limiter.spec import Kind, Spec
from gateway.limiter.table import Table

MAX_HOLDS: Final = 20_000  # looked at: a quarter of a second
_KEY_WORDS: Final = 2


class Outstanding(NamedTuple):
    """In the bucket's own units: `reserved` by open holds, `estimated` by expired ones."""

    reserved: int
    estimated: int


def outstanding(table: Table, buckets: Sequence[tuple[str, Spec]]) -> list[Outstanding] | None:
    """For each bucket what is outstanding; None where more holds wait than are looked at. May run in any thread."""
    holds = [number for number, *_ in islice(table.holds.in_states(State.OPEN, State.EXPIRED), MAX_HOLDS + 1)]
    if len(holds) > MAX_HOLDS:
        return None
    sums = {State.OPEN: [0] * len(buckets), State.EXPIRED: [0] * len(buckets)}
    key = table.words[AT_KEY : AT_KEY + _KEY_WORDS].tobytes()
    wanted = {row_digest(kept_name(name), spec.kind, key)[0]: at for at, (name, spec) in enumerate(buckets)}
    for held in map(table.holds.load, holds):
        if held.state not in sums:
            continue
        for tag in held.charges.keys() & wanted.keys():
            at, taken = wanted[tag], held.charges[tag]
            spec = buckets[at][1]
            if spec.kind is Kind.SLOTS:
                sums[held.state][at] += held.state is State.OPEN  # a lease that has ended has freed it
            elif spec.kind is Kind.RATE or taken.window_ms == spec.start_ms:
                sums[held.state][at] += taken.reserved
    return [Outstanding(*both) for both in zip(sums[State.OPEN], sums[State.EXPIRED], strict=True)]
