"""The reader that fills the usage table: what each exchange used, added to the hour it ended in.

Only outcomes count, each for as many exchanges as it stands for (`count`: refusals above a rate are told together). An
exchange whose worker was killed has a decision and no outcome, and is not counted. A user's name is in the sealed part
and is opened here; where its key was destroyed the usage is nobody's. A model's name is kept where a route was found
for it and, where only a pattern of the config answered to it, where a provider has served it: anything else may be
what a caller thought of, and must not fill the table. Then it counts under the pattern.

A batch is summed in memory, then added and the cursor moved in one transaction: both, or neither, whatever happens
when. No number of the journal may do harm: a record with an amount or a time out of bounds is poison.
"""

from collections.abc import Callable, Sequence
from typing import Final

from gateway.control.database.handle import Database
from gateway.control.database.trouble import BadValue, DatabaseTrouble
from gateway.control.pace import Pace
from gateway.control.readers.base import Batch, Cursor, Poison, Trouble
from gateway.control.usage_fields import HOUR_S, MEASURES, Group, clean
from gateway.journal.read import Entry
from gateway.record import Ending, Kind, Personal, Record, Usage, UsageSource
from gateway.units import US_PER_S

NAME: Final = "usage"
MAX_AMOUNT: Final = 10**12  # of anything, in one record: sums of nine million of them still fit
MAX_AT_US: Final = 4_102_444_800 * US_PER_S  # the year 2100
_OK: Final = 200
_ERROR: Final = 400
_HOUR_US: Final = HOUR_S * US_PER_S
_NOTHING: Final = Usage()
_NO_AMOUNTS: Final = (0,) * len(MEASURES)
_OUTCOME: Final = Kind.OUTCOME  # these are looked at for every line: an attribute of an enum costs 30 ns
_PROVIDER: Final = UsageSource.PROVIDER
_REFUSED: Final = Ending.REFUSED.value
_FAILED: Final = Ending.FAILED.value
_TRUNCATED: Final = Ending.TRUNCATED.value
_ABANDONED: Final = Ending.ABANDONED.value

OpenPersonal = Callable[[Record], Personal | None]
"""What is sealed in a record; None where it was erased, or nothing is."""
Sums = dict[tuple[int, Group], list[int]]
"""(hour, group) -> amounts, in the order of MEASURES."""
_Amounts = tuple[int, ...]
_Whose = tuple[int, str, str, str, str, str, str, str, str, int]


class UsageReader:
    """Takes a node's chains into a database, at its runner's pace."""

    name: Final = NAME

    def __init__(self, database: Database, node: str, open_personal: OpenPersonal, pace: Pace | None = None) -> None:
        self._database = database
        self._node = node
        self._open_personal = open_personal
        self._pace = pace or Pace()
        self._erasures: dict[str, int] = {}  # as they were when a chain's cursor was last asked for

    def cursors(self, chains: Sequence[str]) -> dict[str, Cursor]:
        """How far it has got. Raises Trouble."""
        from gateway.control.database import cursors  # noqa: PLC0415 - it loads SQLAlchemy, and control starts without

        try:
            with self._database.writing() as connection:
                held = cursors.held(connection, NAME, self._node, chains)
        except DatabaseTrouble as error:
            raise Trouble(str(error)) from error
        self._erasures |= {chain: found.erasures for chain, found in held.items()}
        return {chain: found.cursor for chain, found in held.items()}

    def apply(self, batch: Batch) -> None:
        """Count a batch. Raises Trouble, Poison, Moved."""
        from gateway.control.database import cursors, usage_rows  # noqa: PLC0415 - as above

        was = cursors.Held(batch.before, self._erasures[batch.chain])
        sums = fold(self._node, batch.entries, self._open_personal, self._pace)
        try:
            with self._database.writing() as connection:
                self._pace.step()
                cursors.advance(connection, NAME, self._node, batch.chain, was, batch.after)
                self._pace.step()
                usage_rows.add(connection, sums)
                self._pace.step()
        except DatabaseTrouble as error:
            raise Trouble(str(error)) from error
        except BadValue as error:
            raise Poison(str(error)) from error


def fold(node: str, entries: Sequence[Entry], open_personal: OpenPersonal, pace: Pace) -> Sums:
    """What these lines add to which rows. Raises Poison, naming the line."""
    rows: dict[_Whose, list[_Amounts]] = {}  # a text is made fit for the table once, and not for every line
    groups: dict[_Whose, Group] = {}
    users: dict[str, str] = {}  # by key: it is one person's, so one of its records is opened and not all
    for some in pace.over(entries):
        for entry in some:
            record = entry.record
            if record.kind is not _OUTCOME:
                continue
            amounts = _amounts(record)
            if min(amounts) < 0 or max(amounts) > MAX_AMOUNT or not 0 <= record.at_us < MAX_AT_US:
                raise Poison("it counts what cannot be, or at a time that cannot be", entry)
            whose = _whose(record)
            if whose not in rows:
                rows[whose], groups[whose] = [], _group(node, record, _user(record, users, open_personal))
            rows[whose].append(amounts)
    sums: Sums = {}
    for whose, found in rows.items():
        key = whose[0] * HOUR_S, groups[whose]
        sums[key] = [sum(column) for column in zip(sums.get(key, _NO_AMOUNTS), *found, strict=True)]
    return sums


def _whose(record: Record) -> _Whose:
    """What decides in which row a record counts, as it stands there; the hour comes first."""
    return (
        record.at_us // _HOUR_US,
        record.org,
        record.team,
        record.key_id,
        record.sealed and (record.sealed_by or record.sealed),
        record.route,
        record.model,
        record.target,
        record.entry,
        record.status,
    )


def _user(record: Record, users: dict[str, str], open_personal: OpenPersonal) -> str:
    if not record.sealed:
        return ""
    user = users.get(record.sealed_by)
    if user is None:
        personal = open_personal(record)
        user = clean(personal.user) if personal is not None else ""
        if record.sealed_by:
            users[record.sealed_by] = user
    return user


def _group(node: str, record: Record, user: str) -> Group:
    model, target = record.model, record.target
    if record.entry and not _OK <= record.status < _ERROR:
        model, target = record.entry, target and target.partition("/")[0] + "/*"
    return Group(
        node,
        clean(record.org),
        clean(record.team),
        clean(record.key_id),
        user,
        clean(model) if record.route else "",
        clean(target),
    )


def _amounts(record: Record) -> _Amounts:
    """One record's part, in the order of MEASURES."""
    ending, count, usage = record.ending, record.count, record.usage or _NOTHING
    return (
        count,
        count if ending == _REFUSED else 0,
        count if ending == _FAILED else 0,
        count if ending == _TRUNCATED else 0,
        count if ending == _ABANDONED else 0,
        count if record.streamed else 0,
        count if usage.source is not _PROVIDER else 0,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
        usage.audio_input_tokens,
        usage.audio_output_tokens,
        record.cost_microusd,
        record.duration_us,
    )
