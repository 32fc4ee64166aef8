"""Records as a person reads them: one line each, all chains together in the order of time, also while they grow.

Models two things: putting the chains' answers to one question in order (`listed`, `newest`, `Following`), and saying a
record in words (`told`). Each chain is in order by itself and their clocks are one, so a merge is enough; a record
that bears an earlier time than the one before it in its chain (it tells of when its exchange began) stays behind it.

Invariants: what a caller chose (names of models, users, errors) is printed with everything escaped that a terminal
could obey; what was sealed is opened only if an opener is given, and then told as opened, erased or absent.
"""

import heapq
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from gateway.journal import layout
from gateway.journal.read import START, Entry, Place
from gateway.journal.search import Query, end_of, search, start_for
from gateway.record import Kind, Personal, Record

_US_PER_MS: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROUSD: Final = 1_000_000
_DIGESTS_KEPT: Final = 4096
_END: Final = Place(sys.maxsize, 0)


class Opener(Protocol):
    """Who holds the keys of sealed parts."""

    def open(self, record: Record) -> Personal | None:
        """The personal part; None when its key is gone."""

    def digest(self, key_id: str, body: bytes) -> str | None:
        """The digest of a body under a key; None when it is gone."""


# --- in order -------------------------------------------------------------------------------------------------------


def listed(journal: Path, query: Query) -> Iterator[Entry]:
    """What is asked for of all chains, oldest first. Raises OSError."""
    streams = [
        search(journal, chain, query, start_for(journal, chain, query.since_us)) for chain in layout.chains(journal)
    ]
    return heapq.merge(*streams, key=_at_us)


def newest(journal: Path, query: Query, count: int, ends: Mapping[str, Place] | None = None) -> list[Entry]:
    """The last `count` lines that are asked for, oldest first; `ends`: before these places. Raises OSError.

    Reads no older segment than it needs.
    """
    ends = dict.fromkeys(layout.chains(journal), _END) if ends is None else ends
    found = [_newest_of(journal, chain, query, count, end) for chain, end in ends.items()]
    return list(deque(heapq.merge(*found, key=_at_us), maxlen=count))


def _newest_of(journal: Path, chain: str, query: Query, count: int, end: Place) -> list[Entry]:
    found = deque[Entry]()
    first = start_for(journal, chain, query.since_us).segment
    for segment in reversed(layout.segments(journal, chain)):
        if len(found) >= count or segment < first:
            break
        of_segment = search(journal, chain, query, Place(segment, 0), min(end, Place(segment + 1, 0)))
        found.extendleft(reversed(deque(of_segment, maxlen=count - len(found))))
    return list(found)


class Following:
    """The lines that come from now on: each call gives those that came since the one before, in order.

    `places`: where each chain has been read to.
    """

    def __init__(self, journal: Path, query: Query) -> None:
        """Raises OSError."""
        self._journal, self._query = journal, query
        self.places = {chain: end_of(journal, chain) for chain in layout.chains(journal)}

    def more(self) -> list[Entry]:
        """What came. Raises OSError."""
        found = list[Entry]()
        for chain in layout.chains(self._journal):
            start, end = self.places.get(chain, START), end_of(self._journal, chain)
            if end > start:
                found.extend(search(self._journal, chain, self._query, start, end))
                self.places[chain] = end
        return sorted(found, key=_at_us)


def _at_us(entry: Entry) -> int:
    return entry.record.at_us


def fits_body(opener: Opener, body: bytes) -> Callable[[Record], bool]:
    """Whether a record's prompt or answer was this body, by its keyed digests; False where the key is gone."""

    @lru_cache(_DIGESTS_KEPT)
    def digest(key_id: str) -> str | None:
        return opener.digest(key_id, body)

    def fits(record: Record) -> bool:
        said = {record.prompt_digest, record.answer_digest} - {""}
        return bool(said) and digest(record.sealed_by) in said

    return fits


# --- in words -------------------------------------------------------------------------------------------------------


def told(entry: Entry, opener: Opener | None = None) -> str:
    """One line on what a record says: when, which, what sort, who, what, how it went."""
    record = entry.record
    if entry.error:
        return plain(f"{'?':<24}  {_name(entry):<14}  damaged     {entry.error}: {entry.raw[:80]!r}")
    parts = [f"{time_of(record.at_us)}  {_name(entry):<14}  {record.kind.value:<10}"]
    parts += _of_exchange(record) if record.kind in {Kind.DECISION, Kind.OUTCOME} else _of_node(record)
    if opener is not None and record.sealed:
        parts.append(_person(opener.open(record)))
    return plain("  ".join(part for part in parts if part))


def plain(text: str) -> str:
    """A text with everything escaped that is not simply seen."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _name(entry: Entry) -> str:
    return f"{entry.chain}/{entry.segment}/{entry.seq}"


def time_of(at_us: int, timespec: str = "milliseconds") -> str:
    """A moment as people write it; as its number where no calendar has it, as only a changed line says."""
    try:
        at = _EPOCH + timedelta(microseconds=at_us)
    except OverflowError:
        return f"{at_us} us"
    return at.isoformat(timespec=timespec).replace("+00:00", "Z")


def _of_exchange(record: Record) -> list[str]:
    who = "/".join(part for part in (record.org, record.team, record.agent, record.key_id) if part)
    target = f"{record.model} → {record.target}" if record.target else record.model
    times = f"×{record.count}" if record.count > 1 else ""
    return [who or "(nobody known)", target, record.decision, times, *_how_it_went(record), record.exchange_id]


def _how_it_went(record: Record) -> list[str]:
    if record.kind is Kind.DECISION:
        return []
    usage, cost = record.usage, record.cost_microusd
    return [
        str(record.status or ""),
        record.ending,
        record.error,
        f"{usage.input_tokens:,}+{usage.output_tokens:,} tokens" if usage is not None else "",
        f"${cost // _MICROUSD}.{cost % _MICROUSD:06d}" if cost else "",
        f"{record.duration_us // _US_PER_MS:,} ms" if record.duration_us else "",
    ]


def _of_node(record: Record) -> list[str]:
    by = f"by {record.actor}" if record.actor else ""
    return [record.action, record.subject, by, record.detail, record.exchange_id]


def _person(personal: Personal | None) -> str:
    if personal is None:
        return "[personal part erased, or its key is not here]"
    said = {
        "user": personal.user,
        "end user": personal.end_user,
        "ip": personal.client_ip,
        "agent": personal.user_agent,
    }
    return "[" + ", ".join(f"{name} {value}" for name, value in said.items() if value) + "]"
