"""What the journal says was used: decisions and outcomes, folded into the rows that an engine would have.

A decision charges what its hold reserved; its outcome replaces that by what was settled. A hold whose worker died has a
decision and no outcome: it stays charged as reserved, which is an estimate, and is corrected, once, should its outcome
be found after all. Who writes a chain anew has its lock and says that it began, so the worker before is gone: that is
how a death shows here.

The arithmetic is the engines' own (`bucket.py`) with the records' wall clock as the time, so a RATE refills
between two lines as it did then. A record names how each bucket counts (`recorded.py`): no config and no price is
needed, and a limit that was changed meanwhile keeps its usage.

A limit that was taken out of the config is forgotten: a line of control's chain says so, and nothing that was reserved
until then counts any more, in whichever order lines are read. What such a hold settles later is nothing, too.

End users may be more than can be counted one by one; `crowd.py` says who shares an account then.

Every window of a budget is counted apart, so lines of an older one that are read late charge nobody else. What is used
never falls below zero, as in an engine.

Invariants: folding lines in parts gives the same as folding them at once; the order of chains matters to nothing but
what a RATE refills meanwhile, and who of too many end users shares an account; an amount is applied once for every
line. Left out: reading lines, keeping the result (`checkpoint.py`), and giving it to an engine.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from gateway.config.limits import SHORT_FORMS
from gateway.limiter.bucket import Row, charged_at, current
from gateway.limiter.crowd import Crowd, shared_key
from gateway.limiter.engine import Amount
from gateway.limiter.recorded import SLICE, Key, parsed, slice_mark
from gateway.limiter.spec import MAX_AMOUNT, Kind, Spec, prove_amount, rate
from gateway.record import Kind as RecordKind
from gateway.record import Record, begins_a_writer

KEPT_MS: Final = 86_400_000  # how long a dead worker's hold is told apart from what is certain
FORGOTTEN_KEPT_MS: Final = 33 * 86_400_000  # longer than any line counts
FORGOTTEN: Final = "limit.forgotten"  # the action of a record
SHORT_NAMES: Final = frozenset(f"{whose}.{form}" for whose in ("key", "team") for form in SHORT_FORMS)
_US_PER_MS: Final = 1_000
_ALLOW: Final = "allow"


class What(Enum):
    """What a line says about limits."""

    RESERVED = "reserved"
    SETTLED = "settled"
    BEGAN = "began"  # somebody else writes this chain from here on
    FORGOTTEN = "forgotten"  # these limits do not exist any more


class Charge(msgspec.Struct, frozen=True, gc=False):
    """So much of what is counted under `key`; `spec` is how it counts, and its limit means nothing."""

    key: Key
    spec: Spec
    amount: int


class Fact(NamedTuple):
    """One line, read. `charges` are of a hold that was reserved or settled at `at_ms`.

    `sliced` is not empty for a settlement that was counted in slices; see `is_counted`. `subjects` are what is
    forgotten, as `subject_of` names them.
    """

    what: What
    at_ms: int
    hold: str = ""
    charges: Sequence[Charge] = ()
    sliced: str = ""
    subjects: tuple[str, ...] = ()

    @property
    def amounts(self) -> tuple[Amount, ...]:
        """The charges, as an engine takes them."""
        return tuple(Amount(one.key.bucket, one.spec, one.amount) for one in self.charges)


class Account:
    """What is used (the numbers of a Row), and how it counts as the newest record says.

    `share` is what is used of a RATE of which this node may rely on its part of the refill alone, and `part` how that
    counts; a checkpoint has no such number, and then it begins with the other.
    """

    __slots__ = ("is_changed", "part", "row", "share", "spec")

    def __init__(self, row: tuple[int, int, int], spec: Spec) -> None:
        self.row = self.share = row
        self.spec = spec
        self.part: Spec | None = None
        self.is_changed = False  # since it was kept

    def charge_share(self, nodes: int, amount: int, at_ms: int) -> None:
        """Charge what counts on this node's part alone, by the spec of now."""
        if self.part is None:
            self.part = part_of(self.spec, nodes)
        self.share = charged_at(self.share, self.part, at_ms, amount)


class Held(msgspec.Struct):
    """A hold without an outcome. `dead`: its worker is gone, so what it is charged stays an estimate.

    `due`: nobody has made sure yet that a store has it, which may have lost it while the worker still lived. `is_kept`:
    a file has it, and `is_changed` since.
    """

    chain: str
    at_ms: int
    charges: dict[Key, int]
    dead: bool = False
    due: bool = False
    is_kept: bool = False
    is_changed: bool = True


class Changes(NamedTuple):
    """What is to be kept anew: accounts by their keys, holds, and those that are over. `everything`: more than that."""

    accounts: list[Key]
    holds: dict[str, Held]
    ended: list[str]
    everything: bool


class Used(NamedTuple):
    """So much of a bucket is used; `live` of it is reserved by requests that are still on their way.

    `more` is what may be used beyond that: what has refilled here only if other nodes have left it.
    """

    bucket: str
    spec: Spec
    used: int
    live: int = 0
    estimated: int = 0  # reserved by requests whose worker died
    more: int = 0


def fact_of(record: Record) -> Fact | None:
    """What a record says about limits, if anything. Raises ValueError for one that cannot be right."""
    if record.kind is RecordKind.DECISION and record.hold_id and record.decision == _ALLOW:
        return Fact(What.RESERVED, record.at_us // _US_PER_MS, record.hold_id, _charges(record.hold_amounts))
    if record.kind is RecordKind.OUTCOME and record.hold_id:
        at_ms, sliced = record.at_us // _US_PER_MS, record.limits_verdict
        charges = _charges(record.settled_amounts)
        return Fact(What.SETTLED, at_ms, record.hold_id, charges, sliced if sliced.startswith(SLICE) else "")
    if begins_a_writer(record):
        return Fact(What.BEGAN, record.at_us // _US_PER_MS)
    if record.kind is RecordKind.ADMIN and record.action == FORGOTTEN:
        return Fact(What.FORGOTTEN, record.at_us // _US_PER_MS, subjects=_forgotten(record))
    return None


def subject_of(bucket: str) -> str:
    """What a bucket is forgotten with: its rule, or, of a key's or team's short form, itself."""
    rule = bucket.partition("|")[0]
    return bucket if rule in SHORT_NAMES else rule


def is_counted(fact: Fact, epoch: str) -> bool:
    """Whether the memory with this name has what was settled there, under no id: to repeat it would charge it twice."""
    return bool(fact.sliced) and fact.sliced == slice_mark(epoch)


class _Forgotten(msgspec.Struct, frozen=True):
    buckets: list[str] = []


def _forgotten(record: Record) -> tuple[str, ...]:
    try:
        buckets = msgspec.json.decode(record.detail or b"{}", type=_Forgotten).buckets
    except RecursionError as error:
        raise ValueError(f"its detail cannot be read: {error}") from None
    return tuple(buckets) or (record.subject,)


def _charges(told: Mapping[str, int]) -> list[Charge]:
    charges = []
    for name, amount in told.items():
        key, spec = parsed(name)
        charges.append(Charge(key, spec, amount if 0 <= amount <= MAX_AMOUNT else prove_amount(amount)))
    return charges


class Ledger:
    """The rows and the holds that a journal comes to."""

    def __init__(self) -> None:
        self.nodes = 1  # that share the memory which counts the same
        self.accounts: dict[Key, Account] = {}
        self._crowd = Crowd()
        self._changed: list[Key] = []  # accounts
        self._ended: list[str] = []  # of the holds that were kept
        self._everything = True  # has changed, or has never been kept
        self.holds: dict[str, Held] = {}
        self._forgotten: Mapping[str, int] = {}
        self._forgotten_ms = -1  # what began later is not forgotten
        self.stirred: set[Key] = set()  # what of them somebody has charged all the same, or again

    @property
    def forgotten(self) -> Mapping[str, int]:
        """Subjects, and up to when."""
        return self._forgotten

    @forgotten.setter
    def forgotten(self, forgotten: Mapping[str, int]) -> None:
        self._forgotten, self._forgotten_ms = forgotten, max(forgotten.values(), default=-1)

    def bound(self, crowd: Crowd) -> None:
        """Count no more end users one by one than this."""
        self._crowd = crowd.of(self.accounts)

    def take_changes(self) -> Changes:
        """What has changed since this was asked last; who cannot keep it asks for everything the next time."""
        accounts = [key for key in dict.fromkeys(self._changed) if key in self.accounts]
        for key in accounts:
            self.accounts[key].is_changed = False
        holds = {hold: held for hold, held in self.holds.items() if held.is_changed}
        for held in holds.values():
            held.is_kept, held.is_changed = True, False
        changes = Changes(accounts, holds, self._ended, self._everything)
        self._changed, self._ended, self._everything = [], [], False
        return changes

    def take(self, chain: str, fact: Fact) -> None:
        """Fold one line."""
        if fact.what is What.RESERVED:
            self._reserve(chain, fact)
        elif fact.what is What.SETTLED:
            self._settle(fact)
        elif fact.what is What.FORGOTTEN:
            self.forget(fact.subjects, fact.at_ms)
        else:
            self.bury(chain)

    def forget(self, subjects: Iterable[str], at_ms: int) -> None:
        """Nothing of these that was reserved up to then counts any more."""
        news = {subject for subject in subjects if self.forgotten.get(subject, -1) < at_ms}
        if not news:
            return
        self._everything = True
        self.forgotten = {**self.forgotten, **dict.fromkeys(news, at_ms)}
        for key in [key for key in self.accounts if subject_of(key.bucket) in news]:
            self._close(key)
        for held in self.holds.values():
            held.charges = {key: charge for key, charge in held.charges.items() if not self._gone(key, held.at_ms)}

    def remembered(self, fact: Fact) -> Fact:
        """A settlement without what is forgotten."""
        if not self.forgotten:
            return fact
        return fact._replace(charges=[one for one in fact.charges if not self._gone(one.key, fact.at_ms)])

    def bury(self, chain: str = "") -> None:
        """Whoever wrote this chain (any chain) is gone: what it holds will not be settled any more."""
        for held in self.holds.values():
            if not held.dead and chain in ("", held.chain):
                held.dead = held.due = held.is_changed = True

    def orphans(self) -> list[Fact]:
        """What the dead have left that is due: to be settled as it was reserved."""
        return [
            Fact(What.SETTLED, held.at_ms, hold, list(self._charged(held)))
            for hold, held in self.holds.items()
            if held.due
        ]

    def laid_to_rest(self, holds: Iterable[str]) -> None:
        """What these have left is due no more."""
        for hold in holds:
            held = self.holds.get(hold)
            if held is not None:
                held.due, held.is_changed = False, True

    def disturb(self) -> None:
        """What any of the dead have left is due again."""
        self._everything = True
        for held in self.holds.values():
            held.due = held.dead

    def used(self, now_ms: int) -> Iterator[Used]:
        """Every bucket that is not as good as new."""
        return self._used(self.accounts.items(), now_ms)

    def budgets(self, now_ms: int) -> Iterator[Used]:
        """Those of them that are budgets."""
        return self._used(((key, account) for key, account in self.accounts.items() if key.kind is Kind.WINDOW), now_ms)

    def prune(self, now_ms: int) -> None:
        """Forget what says nothing any more."""
        for key in [key for key, account in self.accounts.items() if not self._share_at(account, now_ms)]:
            self._close(key)
        for hold in [hold for hold, held in self.holds.items() if held.dead and now_ms - held.at_ms >= KEPT_MS]:
            del self.holds[hold]
        over_ms = now_ms - FORGOTTEN_KEPT_MS
        self.forgotten = {subject: at_ms for subject, at_ms in self.forgotten.items() if at_ms > over_ms}

    # --- within -----------------------------------------------------------------------------------------------------

    def _used(self, accounts: Iterable[tuple[Key, Account]], now_ms: int) -> Iterator[Used]:
        live, estimated = self._reserved()
        for key, account in accounts:
            used, share = used_at(account, now_ms), self._share_at(account, now_ms)
            if share:
                yield Used(key.bucket, account.spec, used, live.get(key, 0), estimated.get(key, 0), share - used)

    def _charged(self, held: Held) -> Iterator[Charge]:
        for key, reserved in held.charges.items():
            account = self.accounts.get(key)
            if account is not None:
                yield Charge(key, account.spec, reserved)

    def _reserve(self, chain: str, fact: Fact) -> None:
        if fact.hold in self.holds:
            return
        charges = self._kept(fact.charges, fact.at_ms)
        self._charge(charges, {}, fact.at_ms)
        told = {one.key: one.amount for one in charges}
        self.holds[fact.hold] = Held(chain, fact.at_ms, self._counted(told) if self._crowd.folds else told)

    def _settle(self, fact: Fact) -> None:
        held = self.holds.pop(fact.hold, None)
        if held is None:
            self._charge(self._kept(fact.charges, fact.at_ms), {}, fact.at_ms)
            return
        if held.is_kept:
            self._ended.append(fact.hold)
        reserved = held.charges
        self._charge(self._kept(fact.charges, held.at_ms), reserved, fact.at_ms)
        for key in [key for key in reserved if key in self.accounts]:  # else it has refilled, or is forgotten, since
            self._charge([Charge(key, self.accounts[key].spec, 0)], reserved, fact.at_ms)

    def _kept(self, charges: Sequence[Charge], began_ms: int) -> Sequence[Charge]:
        """Those that are not forgotten, of a hold that began then."""
        if began_ms > self._forgotten_ms:
            return charges
        gone = {one.key for one in charges if self._gone(one.key, began_ms)}
        self.stirred |= gone
        return [one for one in charges if one.key not in gone]

    def _charge(self, charges: Sequence[Charge], reserved: dict[Key, int], at_ms: int) -> None:
        """Charge these, less what is taken from `reserved` for them."""
        accounts, nodes = self.accounts, self.nodes
        for one in charges:
            key, spec = one.key, one.spec
            account = accounts.get(key)
            if account is None:
                key, account = self._opened(key, spec, at_ms, reserved)
            amount = one.amount - reserved.pop(key, 0)
            account.row = charged_at(account.row, spec, at_ms, amount)
            if not account.is_changed:
                account.is_changed = True
                self._changed.append(key)
            if account.spec is not spec:
                account.spec, account.part = spec, None
            if nodes > 1:
                account.charge_share(nodes, amount, at_ms)

    def _opened(self, key: Key, spec: Spec, at_ms: int, reserved: Container[Key]) -> tuple[Key, Account]:
        """The account of a bucket that has none, or that of its set; and under which key that is."""
        if self._gone(key, 0):
            self.stirred.add(key)  # it counts anew: the limit is back, or somebody does not know that it is gone
        key = self._crowd.enter(key, reserved)
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account((0, spec.end_ms, spec.start_ms or at_ms), spec)
        return key, account

    def _close(self, key: Key) -> None:
        del self.accounts[key]
        self._crowd.leave(key)

    def _counted(self, told: dict[Key, int]) -> dict[Key, int]:
        """What was just charged, by where it was counted."""
        counted = dict[Key, int]()
        for key, amount in told.items():
            where = key if key in self.accounts else shared_key(key) or key
            counted[where] = counted.get(where, 0) + amount
        return counted

    def _share_at(self, account: Account, now_ms: int) -> int:
        """At least what is used at this moment."""
        if self.nodes == 1 or account.spec.kind is not Kind.RATE:
            return used_at(account, now_ms)
        return current(Row(*account.share), part_of(account.spec, self.nodes), now_ms).used

    def _gone(self, key: Key, began_ms: int) -> bool:
        """Whether what was reserved then is forgotten."""
        return bool(self.forgotten) and began_ms <= self.forgotten.get(subject_of(key.bucket), -1)

    def _reserved(self) -> tuple[dict[Key, int], dict[Key, int]]:
        """What is reserved and not settled: by the living, and by the dead."""
        sums: tuple[dict[Key, int], dict[Key, int]] = ({}, {})
        for held in self.holds.values():
            for key, reserved in held.charges.items():
                sums[held.dead][key] = sums[held.dead].get(key, 0) + reserved
        return sums


def part_of(spec: Spec, nodes: int) -> Spec:
    """How a bucket counts where this node may rely on its part of the refill alone."""
    if nodes == 1 or spec.kind is not Kind.RATE:
        return spec
    return rate(spec.limit, -(-spec.amount // nodes), spec.period_ms, shadow=spec.shadow)


def used_at(account: Account, now_ms: int) -> int:
    """What is used at this moment: after the refill, and nothing of a window that is over."""
    if account.spec.kind is Kind.RATE:
        return current(Row(*account.row), account.spec, now_ms).used
    return account.row[0] if now_ms < account.spec.end_ms else 0
