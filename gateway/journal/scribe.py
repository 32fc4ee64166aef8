"""What an exchange leaves in the journal: its decision before the first upstream byte, its outcome when it is over.

The pipeline hands over values; this module makes lines of them. What all decisions of one key, model and surface have
in common is made once, as a form with blanks, so a decision costs one formatting of bytes. The personal part is sealed
once an exchange, and the same sealed text stands on both of its lines.

Invariants: nothing personal and no body goes into a line as it is; a refusal of a caller nobody knows never makes a
line of its own. Left out: when lines reach the disk (`journal.py`), and keys (`seal.py`).
"""

from asyncio import Future
from typing import Final, Protocol

import msgspec

from gateway.errors import JournalUnavailable
from gateway.journal.line import content_of
from gateway.journal.refusals import Refusals
from gateway.record import Ending, Kind, Personal, Record
from gateway.units import US_PER_S

ALLOW: Final = "allow"
REFUSE: Final = "refuse"
_HEAD: Final = content_of(Record(Kind.DECISION, "", 0))[:-1] + b","
_BLANKS: Final = (
    b'{"kind":"decision","exchange_id":"%b","at_us":%d,"trace_id":"%b","span_id":"%b","sealed":"%b","sealed_by":"%b",'
    b'"request_bytes":%d,"prompt_digest":"%b",'
)
_REFUSED: Final = Ending.REFUSED.value


class Digest(Protocol):
    """A keyed digest that grows with what passes."""

    def update(self, data: bytes) -> None:
        """More of it."""

    def hexdigest(self) -> str:
        """The digest of all so far."""


class SealKey(Protocol):
    """The key of one person's records; `id` is "" when there is none, and then all that it says is ""."""

    id: str

    def seal(self, personal: Personal, exchange_id: str) -> str:
        """The sealed part of a record."""

    def digest(self, body: bytes) -> str:
        """The keyed digest of a body."""

    def hasher(self) -> Digest:
        """The keyed digest of a body that is still to come."""


class Keys(Protocol):
    """Where the keys of sealed parts come from."""

    def key(self, org: str, user: str, end_user: str) -> SealKey:
        """The key for one person's records."""

    def poll(self) -> None:
        """Forget keys that have been destroyed."""


class Lines(Protocol):
    """The chain that lines go to."""

    def append(self, content: bytes) -> None:
        """A line, with this turn's write."""

    def commit(self, content: bytes, *, synced: bool) -> Future[bool]:
        """A line, and whether it is in the journal."""

    def unrecorded(self) -> None:
        """A decision went on without its line."""


class Sealed(msgspec.Struct, frozen=True, gc=False):
    """The personal part of one exchange, as its lines carry it, and the key it is sealed under."""

    key: SealKey
    text: str


class Scribe:
    """One worker's pen. `refusals_per_s`: lines a second for 429s of one reason, the rest is counted."""

    def __init__(self, lines: Lines, keys: Keys, refusals_per_s: int) -> None:
        self.commit = lines.commit  # write a decision, see `decided`; True once it counts as recorded
        self._lines = lines
        self._keys = keys
        self._refusals = Refusals(refusals_per_s)

    def adopt(self, refusals_per_s: int) -> None:
        """Follow a snapshot."""
        self._refusals.per_s = refusals_per_s

    def seal(self, exchange_id: str, org: str, personal: Personal) -> Sealed:
        """Seal what may identify a person."""
        key = self._keys.key(org, personal.user, personal.end_user)
        return Sealed(key, key.seal(personal, exchange_id))

    def not_recorded(self, *, go_on: bool) -> None:
        """A decision is not in the journal: count it and go on without, or raise JournalUnavailable."""
        if not go_on:
            raise JournalUnavailable(
                "the gateway cannot record this request at the moment, so it was not sent: try again shortly",
                retry_after_s=1,
            )
        self._lines.unrecorded()

    def outcome(self, record: Record) -> None:
        """Write how an exchange ended, or count it where that is enough."""
        if record.ending == _REFUSED and self._counts(record):
            return
        self._lines.append(content_of(record))

    def mode(self, action: str, subject: str, detail: str, at_us: int) -> None:
        """Write that something began or ended."""
        self._lines.append(content_of(Record(Kind.MODE, "", at_us, action=action, subject=subject, detail=detail)))

    def tick(self, now_us: int) -> None:
        """Write the counts of the seconds that are over."""
        for record in self._refusals.take(now_us // US_PER_S):
            self._lines.append(content_of(record))

    def poll(self) -> None:
        """Forget keys that have been destroyed."""
        self._keys.poll()

    def _counts(self, record: Record) -> bool:
        known = record.key_id != "" and record.error != JournalUnavailable.code
        return self._refusals.counted(record, known=known)


def form(constant: Record) -> bytes:
    """The form of all decisions that share these fields; `constant` has none of those that differ."""
    fixed = content_of(constant)[len(_HEAD) : -1].replace(b"%", b"%%")
    return _BLANKS + fixed + b"}"


def decided(
    form: bytes,
    exchange_id: str,
    at_us: int,
    trace_id: str,
    span_id: str,
    sealed: Sealed,
    request_bytes: int,
    prompt_digest: str,
) -> bytes:
    """A decision: the form, filled in."""
    return form % (
        exchange_id.encode(),
        at_us,
        trace_id.encode(),
        span_id.encode(),
        sealed.text.encode(),
        sealed.key.id.encode(),
        request_bytes,
        prompt_digest.encode(),
    )


def with_hold(content: bytes, hold: str, amounts: dict[str, int]) -> bytes:
    """A decision of a request that limits have counted: what was taken from each bucket, under this id."""
    return b'%b,"hold_id":"%b","hold_amounts":%b}' % (content[:-1], hold.encode(), msgspec.json.encode(amounts))
